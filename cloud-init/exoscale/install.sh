#!/bin/sh
# Set up Caddy, the driver and Ollama, what takes long side by side. What is there already is
# left alone, so this also goes on with what a reboot broke off. It tells in /run/ollama-proxy:
#   stage   the step it is at, or failed:STEP; failed:disk if that was for want of room
#   stages  STEP SECONDS when one begins and STEP.end SECONDS when it has ended, in uptime
#   report  what a step that failed said last
#   driver  NVIDIA's branch and version
#   log/STEP  what a step has said so far
set -eu
root="${ROOT:-}"
config="$root/etc/ollama-proxy"
run="$root/run/ollama-proxy"
log="$run/log"
# ENGINE is native or docker; OLLAMA_VERSION is pinned, and OLLAMA_SHA256 too if it is not empty.
# DRIVER_KINDS are the kinds of NVIDIA's driver that the cards take, none without cards, of
# branches from DRIVER_LEAST to DRIVER_MOST. MODELS are pulled while the driver is installed.
# shellcheck source=/dev/null
. "$config/install.env"
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a
ollama_url=http://127.0.0.1:11434
hopeless='unable to locate package|no installation candidate|unmet dependencies|held broken packages'
full='no space left on device|enough free space'
hopeless="$hopeless|$full|toomanyrequests|returned error: 404|dpkg returned an error code"
locked='could not get lock|unable to lock|unable to acquire the dpkg'

uptime_s() {
    read -r up _ < "$root/proc/uptime"
    echo "${up%%.*}"
}

note() { # note STEP or note STEP.end
    printf '%s %s\n' "$1" "$(uptime_s)" >> "$run/stages"
}

stage() {
    step="$1"
    printf '%s\n' "$1" > "$run/stage"
    echo "ollama-proxy: $1"
}

# job STEP COMMAND…: run it beside the others; what it says goes into the step's log.
job() {
    name="$1"
    shift
    (
        trap '[ "$?" = 0 ] || { echo "$name" > "$run/broken"; kill -USR1 $$; }' EXIT
        "$@"
    ) >> "$log/$name" 2>&1 < /dev/null &
}

timed() {
    note "$name"
    "$@"
    note "$name.end"
}

# do_step STEP COMMAND…: do a step and wait for it. As a job, since -e means nothing before a `||`.
do_step() {
    stage "$1"
    name="$1"
    shift
    job "$name" timed "$@"
    wait "$!" || give_up "$name"
}

# give_up STEP: the report comes first, so that who reads of the failure finds it. A job that
# broke meanwhile has left its name.
give_up() {
    trap '' USR1
    trap - EXIT
    why=$(cat "$run/broken" 2> /dev/null || echo "$1")
    if [ -f "$log/$why" ]; then
        tail -n 40 "$log/$why" | tail -c 8192 > "$run/report.new"
        mv "$run/report.new" "$run/report"
        cat "$run/report"
    fi
    if grep -Eqis "$full" "$run/report" || [ "$(df -Pk "$root/" | awk 'NR == 2 { print $4 }')" -lt 1024 ]; then
        why=disk
    fi
    stage "failed:$why"
    exit 1
}

has() {
    command -v "$1" > /dev/null 2>&1
}

# said_since FILE BYTES PATTERN: whether a log has it after so many bytes.
said_since() {
    tail -c "+$(($2 + 1))" "$1" | grep -Eqi "$3"
}

# retry COMMAND…: again, unless what it says can't heal: a package that there is none of, a full
# disk, a script of a package that fails, as the minutes of building a module do.
retry() {
    for pause in 2 5 10 20 end; do
        begun=$(wc -c < "$log/$name")
        "$@" && return 0
        if [ "$pause" = end ] || said_since "$log/$name" "$begun" "$hopeless"; then
            return 1
        fi
        sleep "${RETRY_PAUSE:-$pause}"
    done
}

# apt COMMAND…: wait for every lock of apt's, 5 min in a step; its own time-out is for dpkg's alone.
apt() {
    while :; do
        begun_apt=$(wc -c < "$log/$name")
        timeout -k 30 1800 apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o APT::Update::Error-Mode=any \
            -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 \
            -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" && return 0
        if [ "$waited" -ge 300 ] || ! said_since "$log/$name" "$begun_apt" "$locked"; then
            return 1
        fi
        waited=$((waited + 3))
        sleep "${RETRY_PAUSE:-3}"
    done
}

update() {
    # A list that can't be had is an error, but no longer once it was tried enough.
    retry apt update || apt -o APT::Update::Error-Mode=persistent-failure update
    touch "$run/updated"
}

packages() {
    [ -e "$run/updated" ] || update
    retry apt -y install --no-install-recommends "$@"
}

offered() { # whether apt knows a package of that name
    apt-cache pkgnames "$1" | grep -Fqx -e "$1"
}

fetch() { # fetch URL FILE
    retry curl -fsSL --connect-timeout 20 --speed-limit 10000 --speed-time 60 --max-time 1800 -o "$2" "$1"
}

# repository NAME KEY_URL LINE: a signed source of packages.
repository() {
    keyring="$root/usr/share/keyrings/$1.asc"
    mkdir -p "$root/usr/share/keyrings" "$root/etc/apt/sources.list.d"
    fetch "$2" "$keyring"
    printf 'deb [signed-by=%s] %s\n' "$keyring" "$3" > "$root/etc/apt/sources.list.d/$1.list"
    rm -f "$run/updated"
}

# No update may replace the kernel, the driver or Docker under a running model, nor hold apt's locks.
hold_updates() {
    for unit in apt-daily.timer apt-daily-upgrade.timer apt-daily.service unattended-upgrades.service \
        snapd.socket snapd.service; do
        systemctl mask --now "$unit" || true
    done
}

# A reboot may have come in the middle of a package. One that was not even unpacked whole apt calls
# installed, and neither installs nor removes: dpkg has to drop it.
mend_packages() {
    torn=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | sed -n 's/^..R //p')
    if [ -n "$torn" ]; then
        # shellcheck disable=SC2086  # a word for each
        dpkg --purge --force-remove-reinstreq --force-depends $torn || true
    fi
    dpkg --configure -a --force-confdef --force-confold || true
    apt -y -f install || true
}

set_up_guard() {
    hold_updates
    [ ! -e "$config/begun" ] || mend_packages
    touch "$config/begun"
    ! has curl || know_toolkit # before the one update
    if ! has caddy || ! has curl || ! has zstd; then
        update
        if ! offered caddy; then # Ubuntu 22.04 has none of its own
            packages curl ca-certificates
            repository caddy https://dl.cloudsmith.io/public/caddy/stable/gpg.key \
                "https://dl.cloudsmith.io/public/caddy/stable/deb/debian any-version main"
        fi
        packages caddy curl ca-certificates zstd
    fi
    start_caddy
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

# Branches that the archive has and the cards take, the newest first: 580-server, 570-server-open.
branches() {
    apt-cache pkgnames nvidia-headless-no-dkms- |
        sed -n 's/^nvidia-headless-no-dkms-\([0-9][0-9]*\)-\(server\|server-open\)$/\1 \2/p' |
        while read -r number kind; do
            case " $DRIVER_KINDS " in *" $kind "*) ;; *) continue ;; esac
            if [ "$number" -ge "$DRIVER_LEAST" ] && [ "$number" -le "$DRIVER_MOST" ]; then
                echo "$number-$kind"
            fi
        done | sort -t- -k1,1nr -k2 | head -n 3
}

# What to try in turn: for each branch the modules that the archive built for the running
# kernel, which must be of the same version as the rest; else modules that are built here.
choices() {
    for branch in $(branches); do
        utils="nvidia-utils-${branch%-open}"
        echo "$branch linux-modules-nvidia-$branch-$(uname -r) nvidia-headless-no-dkms-$branch $utils"
        echo "$branch linux-headers-$(uname -r) nvidia-headless-$branch $utils"
    done
}

load_driver() {
    modprobe nvidia && modprobe nvidia_uvm && nvidia-smi
}

install_driver() {
    load_driver || choose_driver
    branch=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 'nvidia-headless-*' 2> /dev/null |
        sed -n 's/^ii *nvidia-headless-\(no-dkms-\)\{0,1\}//p' | head -n 1)
    version=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
    echo "${branch:-template} $version" > "$config/driver"
    cp "$config/driver" "$run/driver"
}

choose_driver() {
    [ -e "$run/updated" ] || update
    choices > "$run/choices"
    failures=0
    while read -r branch wanted; do
        # shellcheck disable=SC2086  # several words
        apt -s install --no-install-recommends $wanted > "$run/simulated" 2>&1 < /dev/null || {
            echo "not to be had: $wanted: $(grep -m 2 -E '^E(rror)?:|Depends:' "$run/simulated" | tr -s '\n ' ' ')"
            continue
        }
        tried=$(wc -c < "$log/$name")
        # shellcheck disable=SC2086
        if packages $wanted < /dev/null && load_driver; then
            return 0
        fi
        ! said_since "$log/$name" "$tried" "$full" || return 1 # no branch is so small
        tail -n 20 "$root/var/lib/dkms/nvidia"*/*/build/make.log 2> /dev/null || true
        failures=$((failures + 1))
        [ "$failures" -lt 3 ] || return 1
        # What is half installed would make every other call of apt fail.
        # shellcheck disable=SC2046  # a word for each
        apt -y purge $(dpkg-query -W -f '${Package}\n' "*nvidia*${branch%%-*}*") < /dev/null || true
    done < "$run/choices"
    other_kernel
}

# The archive may have modules for newer kernels only: one reboot, and this goes on after it.
other_kernel() {
    branch=$(branches | head -n 1)
    if [ -z "$branch" ]; then
        echo "apt has no driver of the kinds $DRIVER_KINDS from branch $DRIVER_LEAST to $DRIVER_MOST"
        return 1
    fi
    if [ -e "$config/other-kernel" ]; then
        echo "there are no modules of $branch for $(uname -r), and a newer kernel was tried already"
        return 1
    fi
    touch "$config/other-kernel"
    flavour=$(uname -r)
    flavour="${flavour##*-}"
    packages "linux-image-$flavour" "linux-modules-nvidia-$branch-$flavour" \
        "nvidia-headless-no-dkms-$branch" "nvidia-utils-${branch%-open}" < /dev/null
    systemctl reboot
    sleep "${REBOOT_S:-300}" # which ends this
    echo "the instance did not reboot"
    return 1
}

# Ollama's own archive, without what no card here uses. Its checksum is in the settings, or in the
# release's own list: that finds damage, and trusts GitHub.
install_ollama() {
    has ollama && return 0
    archive="ollama-linux-amd64.tar.zst"
    release="https://github.com/ollama/ollama/releases/download/v$OLLAMA_VERSION"
    new="$root/opt/ollama.new"
    rm -rf "$new"
    mkdir -p "$new" "$root/usr/local/bin"
    sum="$OLLAMA_SHA256"
    if [ -z "$sum" ]; then
        fetch "$release/sha256sum.txt" "$new/sums"
        sum=$(awk -v name="$archive" '{ sub(/^[*]?([.]\/)?/, "", $2) } $2 == name { print $1 }' "$new/sums")
        rm "$new/sums"
    fi
    if ! fetch_checked "$release/$archive"; then
        fetch_checked "https://ollama.com/download/$archive?version=$OLLAMA_VERSION"
    fi
    useless="rocm* vulkan* mlx* cuda_jetpack*"
    [ -n "$DRIVER_KINDS" ] || useless="$useless cuda*"
    set --
    set -f
    for library in $useless; do
        set -- "$@" "--exclude=lib/ollama/$library"
    done
    set +f
    tar -C "$new" --use-compress-program=zstd --no-same-owner "$@" -xf "$new/$archive"
    rm "$new/$archive"
    rm -rf "$root/opt/ollama"
    mv "$new" "$root/opt/ollama"
    ln -sfn /opt/ollama/bin/ollama "$root/usr/local/bin/ollama" # the last thing: now it is there
}

fetch_checked() { # fetch_checked URL
    fetch "$1" "$new/$archive" || return 1
    got=$(sha256sum "$new/$archive")
    [ "${got%% *}" = "$sum" ] && return 0
    echo "$1 has the checksum ${got%% *}, and ${sum:-none} was expected: it is not used"
    return 1
}

write_ollama_unit() {
    getent passwd ollama > /dev/null || useradd -r -s /bin/false -U -m -d /usr/share/ollama ollama
    for group in render video; do
        ! getent group "$group" > /dev/null || usermod -a -G "$group" ollama
    done
    # As root nvidia-smi and nvidia-modprobe make the devices, which nobody else may.
    cat > "$root/etc/systemd/system/ollama.service" <<UNIT
[Unit]
Description=Ollama, behind Caddy
Wants=network-online.target
After=network-online.target
[Service]
EnvironmentFile=/etc/ollama-proxy/ollama.env
EnvironmentFile=-/run/ollama-proxy/pulling.env
ExecStartPre=-+/usr/bin/nvidia-smi
ExecStartPre=-+/usr/bin/nvidia-modprobe -c 0 -u
ExecStart=$(command -v ollama || echo /usr/local/bin/ollama) serve
User=ollama
Group=ollama
Restart=always
RestartSec=3
LimitNOFILE=65536
[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable ollama
}

lacks_toolkit() {
    [ "$ENGINE" = docker ] && [ -n "$DRIVER_KINDS" ] && ! has nvidia-ctk
}

know_toolkit() {
    if lacks_toolkit && [ ! -e "$root/etc/apt/sources.list.d/nvidia-container-toolkit.list" ]; then
        # shellcheck disable=SC2016  # $(ARCH) is apt's to fill in
        repository nvidia-container-toolkit https://nvidia.github.io/libnvidia-container/gpgkey \
            'https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /'
    fi
}

install_docker() {
    # systemd's own management of cgroups takes the GPUs from containers at each daemon-reload.
    if [ ! -e "$root/etc/docker/daemon.json" ]; then
        mkdir -p "$root/etc/docker"
        echo '{"exec-opts": ["native.cgroupdriver=cgroupfs"]}' > "$root/etc/docker/daemon.json"
    fi
    set --
    has docker || set -- docker.io
    if lacks_toolkit; then
        know_toolkit
        set -- "$@" nvidia-container-toolkit
    fi
    [ "$#" = 0 ] || packages "$@"
    systemctl enable --now docker
}

configure_toolkit() {
    nvidia-ctk runtime configure --runtime=docker
    systemctl restart docker
}

fetch_image() {
    begun_pull=$(wc -c < "$log/$name")
    retry timeout -k 30 1800 docker pull "ollama/ollama:$OLLAMA_VERSION" && return 0
    if said_since "$log/$name" "$begun_pull" toomanyrequests; then
        echo "Docker Hub's limit of anonymous pulls is used up for this address; EXOSCALE_ENGINE=native needs no Docker Hub"
    fi
    return 1
}

run_image() { # run_image OPTION…
    docker rm -f ollama > /dev/null 2>&1 || true
    docker run -d --name ollama --restart always "$@" --network host \
        --env-file "$config/ollama.env" -v ollama:/root/.ollama "ollama/ollama:$OLLAMA_VERSION"
}

fetch_ollama() {
    if [ "$ENGINE" = docker ]; then
        fetch_image
    else
        install_ollama
        write_ollama_unit
    fi
}

is_over() {
    grep -qs "^$1.end " "$run/stages"
}

# While there is no driver yet, an Ollama without one pulls. What fails here is only late: the
# proxy pulls what is missing, and tells why it can't.
pull_models() {
    puller=""
    trap '[ -z "$puller" ] || kill "$puller"; exit 0' TERM
    until is_over ollama; do
        [ ! -e "$run/broken" ] || return 0
        sleep 1
    done
    ! is_over driver || return 0
    note model
    if [ "$ENGINE" = docker ]; then
        run_image || return 0
    else
        systemctl start ollama || return 0
    fi
    retry curl -fsS -o /dev/null "$ollama_url/api/version" || return 0
    for model in $MODELS; do
        curl -sS --max-time 7200 -d "{\"model\":\"$model\",\"stream\":false}" "$ollama_url/api/pull" &
        puller="$!"
        wait "$puller" || return 0
    done
    note model.end
}

start_ollama() {
    set --
    if grep -qs '^model ' "$run/stages" && ! is_over model; then
        # A pull is broken off, and the proxy's goes on with it: its parts must stay.
        echo OLLAMA_NOPRUNE=1 > "$run/pulling.env"
        set -- --env OLLAMA_NOPRUNE=1
    fi
    if [ "$ENGINE" = docker ]; then
        [ -z "$DRIVER_KINDS" ] || set -- --gpus=all "$@"
        run_image "$@"
    else
        systemctl restart ollama
    fi
    retry curl -fsS -o /dev/null "$ollama_url/api/version"
}

rm -rf "$log" "$run/broken" "$run/report" "$run/updated" "$run/pulling.env" "$run/driver"
mkdir -p "$log"
echo "booting 0" > "$run/stages"
step=booting
name=booting
waited=0
trap 'give_up "$step"' USR1
trap '[ "$?" = 0 ] || give_up "$step"' EXIT
trap 'trap - EXIT; exit 143' TERM # the machine goes down: that is no failure

do_step guard set_up_guard
[ "$ENGINE" != docker ] || do_step docker install_docker
if [ -n "$DRIVER_KINDS" ]; then
    job ollama timed fetch_ollama
    ollama="$!"
    model=""
    if [ -n "$MODELS" ]; then
        job model pull_models
        model="$!"
    fi
    do_step driver install_driver
    stage ollama
    wait "$ollama" || give_up ollama
    [ "$ENGINE" != docker ] || do_step toolkit configure_toolkit
    if [ -n "$model" ]; then # its pull goes on by the proxy's, which tells how far it is
        kill "$model" 2> /dev/null || true
        wait "$model" || true
    fi
else
    do_step ollama fetch_ollama
fi
stage ollama
job ollama start_ollama
wait "$!" || give_up ollama
touch "$config/installed"
note ready
stage ready
