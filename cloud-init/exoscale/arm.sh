#!/bin/sh
# Arm the dead-man's switch: arm SECONDS DEAD_MAN_SCRIPT HEARTBEAT_SCRIPT.
# Runs at every boot, first of all. ROOT is a folder in tests.
set -eu
root="${ROOT:-}"
units="$root/etc/systemd/system"
sbin="$root/usr/local/sbin"
mkdir -p "$units" "$sbin" "$root/etc/ollama-proxy" "$root/run/ollama-proxy"
printf 'DEAD_MAN_S=%s\n' "$1" > "$root/etc/ollama-proxy/dead-man.env"
printf '%s' "$2" > "$sbin/ollama-proxy-dead-man"
printf '%s' "$3" > "$sbin/ollama-proxy-heartbeat"
chmod 0755 "$sbin/ollama-proxy-dead-man" "$sbin/ollama-proxy-heartbeat"
stage=booting
[ ! -e "$root/etc/ollama-proxy/installed" ] || stage=ready # a later boot installs nothing
printf '%s\n' "$stage" > "$root/run/ollama-proxy/stage"
if [ "$stage" = ready ] && [ -e "$root/etc/ollama-proxy/driver" ]; then
    cp "$root/etc/ollama-proxy/driver" "$root/run/ollama-proxy/driver"
fi

cat > "$units/ollama-proxy-dead-man.service" <<UNIT
[Unit]
Description=Power off when the proxy has fallen silent
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/ollama-proxy-dead-man
UNIT
cat > "$units/ollama-proxy-dead-man.timer" <<UNIT
[Unit]
Description=Look every 30 s whether the proxy is heard
DefaultDependencies=no
[Timer]
OnBootSec=30
OnUnitActiveSec=30
[Install]
WantedBy=timers.target
UNIT
cat > "$units/ollama-proxy-heartbeat.socket" <<UNIT
[Unit]
Description=Heartbeats of the proxy, handed on by Caddy
[Socket]
ListenStream=/run/ollama-proxy/heartbeat.sock
SocketMode=0666
Accept=yes
MaxConnections=16
[Install]
WantedBy=sockets.target
UNIT
cat > "$units/ollama-proxy-heartbeat@.service" <<UNIT
[Unit]
Description=Take one heartbeat
[Service]
ExecStart=-/usr/local/sbin/ollama-proxy-heartbeat
StandardInput=socket
StandardOutput=socket
TimeoutStartSec=10
RuntimeMaxSec=10
UNIT
# cloud-init runs its commands at the first boot only: what a reboot broke off goes on by this.
cat > "$units/ollama-proxy-install.service" <<UNIT
[Unit]
Description=Set up what serves the models
ConditionPathExists=!/etc/ollama-proxy/installed
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/ollama-proxy-install
TimeoutStartSec=90min
StandardOutput=journal+console
StandardError=inherit
UNIT
systemctl daemon-reload
systemctl enable ollama-proxy-dead-man.timer ollama-proxy-heartbeat.socket
# This runs before sysinit.target, which the units would be waited for after: do not wait.
systemctl start --no-block ollama-proxy-dead-man.timer ollama-proxy-heartbeat.socket
if [ "$stage" = booting ] && [ -e "$root/etc/ollama-proxy/install.env" ]; then # not the first boot
    systemctl start --no-block ollama-proxy-install.service
fi
