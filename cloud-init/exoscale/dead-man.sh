#!/bin/sh
# Power off if the proxy was not heard of for DEAD_MAN_S seconds of uptime.
# Uptime, not the time of day: that jumps while an instance boots.
set -eu
root="${ROOT:-}"
# shellcheck source=/dev/null
. "$root/etc/ollama-proxy/dead-man.env"
read -r now _ < "$root/proc/uptime"
now="${now%%.*}"
heard=0
if [ -s "$root/run/ollama-proxy/heartbeat" ]; then
    read -r heard < "$root/run/ollama-proxy/heartbeat"
fi
silent=$((now - heard))
if [ "$silent" -ge "$DEAD_MAN_S" ]; then
    echo "the proxy was not heard of for $silent s: powering off" >&2
    systemctl poweroff || poweroff -f
fi
