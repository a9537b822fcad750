#!/bin/sh
# Set up Caddy, the driver, Docker and Ollama; what is there already is left alone.
# The stage it is at, or failed at, can be read at /run/ollama-proxy/stage.
set -eu
root="${ROOT:-}"
config="$root/etc/ollama-proxy"
# DRIVER is NVIDIA's branch, empty without a GPU; OLLAMA_VERSION is pinned.
# shellcheck source=/dev/null
. "$config/install.env"
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a
step=booting

stage() {
    step="$1"
    printf '%s\n' "$1" > "$root/run/ollama-proxy/stage"
    echo "ollama-proxy: $1"
}

failed() {
    status=$?
    [ "$status" -eq 0 ] || printf 'failed:%s\n' "$step" > "$root/run/ollama-proxy/stage"
    exit "$status"
}
trap failed EXIT

has() {
    command -v "$1" > /dev/null 2>&1
}

retry() {
    for pause in 2 5 10 20 0; do
        "$@" && return 0
        sleep "${RETRY_PAUSE:-$pause}"
    done
    return 1
}

packages() {
    retry apt-get -q -o DPkg::Lock::Timeout=300 update
    retry apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
}

# repository NAME KEY_URL LINE: a signed source of packages.
repository() {
    keyring="$root/usr/share/keyrings/$1.gpg"
    mkdir -p "$root/usr/share/keyrings" "$root/etc/apt/sources.list.d"
    retry curl -fsSL -o "$keyring.asc" "$2"
    gpg --batch --yes --dearmor -o "$keyring" "$keyring.asc"
    printf 'deb [signed-by=%s] %s\n' "$keyring" "$3" > "$root/etc/apt/sources.list.d/$1.list"
}

install_caddy() {
    has caddy && return 0
    if ! packages caddy; then # Ubuntu 22.04 has none of its own
        packages curl gpg
        repository caddy https://dl.cloudsmith.io/public/caddy/stable/gpg.key \
            "https://dl.cloudsmith.io/public/caddy/stable/deb/debian any-version main"
        packages caddy
    fi
}

start_caddy() {
    mkdir -p "$root/etc/caddy/link" "$root/etc/systemd/system/caddy.service.d"
    install -m 0644 "$config/Caddyfile" "$root/etc/caddy/Caddyfile"
    install -o caddy -g caddy -m 0400 "$config/server.crt" "$config/server.key" "$root/etc/caddy/link/"
    # Its own ExecStart prints the environment, and so the token, into the journal.
    cat > "$root/etc/systemd/system/caddy.service.d/link.conf" <<UNIT
[Service]
EnvironmentFile=/etc/ollama-proxy/link.env
ExecStart=
ExecStart=$(command -v caddy) run --config /etc/caddy/Caddyfile
Restart=always
UNIT
    systemctl daemon-reload
    systemctl enable caddy
    systemctl restart caddy
}

# No update may replace the kernel, the driver or Docker under a running model.
hold_updates() {
    systemctl mask --now apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service || true
}

install_driver() {
    if ! has nvidia-smi; then
        utils="nvidia-utils-${DRIVER%-open}"
        packages "linux-modules-nvidia-$DRIVER-$(uname -r)" "nvidia-headless-no-dkms-$DRIVER" "$utils" ||
            packages "linux-headers-$(uname -r)" "nvidia-headless-$DRIVER" "$utils" # built here: slower
    fi
    modprobe nvidia
    modprobe nvidia_uvm
    nvidia-smi
}

install_docker() {
    has docker || packages docker.io
    systemctl enable --now docker
}

install_toolkit() {
    if ! has nvidia-ctk; then
        packages curl gpg
        # shellcheck disable=SC2016  # $(ARCH) is apt's to fill in
        repository nvidia-container-toolkit https://nvidia.github.io/libnvidia-container/gpgkey \
            'https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /'
        packages nvidia-container-toolkit
    fi
    nvidia-ctk runtime configure --runtime=docker
    systemctl restart docker
}

start_ollama() {
    gpus=""
    [ -z "$DRIVER" ] || gpus="--gpus=all"
    docker rm -f ollama > /dev/null 2>&1 || true
    retry docker pull "ollama/ollama:$OLLAMA_VERSION"
    # shellcheck disable=SC2086  # no word where there is no GPU
    docker run -d --name ollama --restart always $gpus --network host \
        --env-file "$config/ollama.env" -v ollama:/root/.ollama "ollama/ollama:$OLLAMA_VERSION"
    retry curl -fsS -o /dev/null http://127.0.0.1:11434/api/version
}

hold_updates
stage guard
install_caddy
start_caddy
if [ -n "$DRIVER" ]; then
    stage driver
    install_driver
fi
stage docker
install_docker
if [ -n "$DRIVER" ]; then
    stage toolkit
    install_toolkit
fi
stage ollama
start_ollama
touch "$config/installed"
stage ready
