#!/bin/sh
# Take one heartbeat: a request on standard input, whose token Caddy has checked.
set -eu
root="${ROOT:-}"
read -r uptime _ < "$root/proc/uptime"
printf '%s\n' "${uptime%%.*}" > "$root/run/ollama-proxy/heartbeat.new"
mv "$root/run/ollama-proxy/heartbeat.new" "$root/run/ollama-proxy/heartbeat"
while IFS= read -r line; do
    [ "$line" != "$(printf '\r')" ] || break
done
printf 'HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n'
