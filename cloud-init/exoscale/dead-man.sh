#!/bin/sh
# Power off if the proxy was not heard of for DEAD_MAN_S seconds of uptime.
# Uptime, not the time of day: that jumps while an instance boots.
set -eu
root="${ROOT:-}"
patience="${PATIENCE_S:-120}" # for an orderly end: a unit has 90 s to stop
# shellcheck source=/dev/null
. "$root/etc/ollama-proxy/dead-man.env"

# Whatever hangs: units that don't stop, then systemd itself, then everything but the kernel.
power_off() {
    timeout 30 systemctl poweroff && sleep "$patience"
    echo "still up: powering off without stopping anything" >&2
    timeout 30 poweroff -f && sleep $((patience / 4))
    echo "still up: the kernel is told to" >&2
    for key in s u o; do # write the disk back, make it read-only, off
        printf '%s' "$key" > "$root/proc/sysrq-trigger" || true
        sleep $((patience / 60))
    done
    timeout 30 poweroff -ff || true
}

read -r now _ < "$root/proc/uptime"
now="${now%%.*}"
heard=0
if [ -s "$root/run/ollama-proxy/heartbeat" ]; then
    read -r heard < "$root/run/ollama-proxy/heartbeat"
fi
silent=$((now - heard))
if [ "$silent" -ge "$DEAD_MAN_S" ]; then
    echo "the proxy was not heard of for $silent s: powering off" >&2
    power_off
fi
