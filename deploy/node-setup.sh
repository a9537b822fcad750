#!/bin/sh
# Set up this machine as a node of a hub: Ollama, its models, the firewall, the agent.
#
#     sh node-setup.sh --dry-run   # say what would be done, change nothing
#     sh node-setup.sh             # say it, then do it; again changes only what is not so
#
# See docs/nodes.md.
set -eu

# ---- edit here; a variable of the environment wins --------------------------------------
SERVER_URL=${SERVER_URL:-http://localhost:8000}  # the hub
NODE_PORT=${NODE_PORT:-8001}                     # where the hub asks the agent
OLLAMA_PORT=${OLLAMA_PORT:-11434}                # where this machine's Ollama listens
REQUIRED_MODELS=${REQUIRED_MODELS-qwen2.5:7b}    # pulled: comma-separated; may be empty
SKIP_MODEL_PULL=${SKIP_MODEL_PULL:-0}            # 1: pull nothing
OPEN_OLLAMA=${OPEN_OLLAMA:-0}                    # 1: let the hub reach Ollama itself, too
NODE_ID=${NODE_ID:-}                             # this machine's name; empty: the host name
NODE_IMAGE=${NODE_IMAGE:-ollama-proxy}           # the agent's image; built if it is missing
NODE_PACKAGE=${NODE_PACKAGE:-}                   # for pip, without Docker; empty: this checkout
OLLAMA_PROXY_NODE_TOKEN=${OLLAMA_PROXY_NODE_TOKEN:-} # joins the hub, once: from its 'ollama-proxy node-token'
NODE_TLS=${NODE_TLS:-}                           # false: join and serve without TLS
NODE_TUNNEL=${NODE_TUNNEL:-}                     # true: behind NAT, the agent connects to the hub
NODE_LABELS=${NODE_LABELS:-}                     # the hub may choose by them: gpu=a100,site=home
HEARTBEAT_INTERVAL=${HEARTBEAT_INTERVAL:-}       # empty, here and below: the agent's default
NODE_REQUEST_TIMEOUT=${NODE_REQUEST_TIMEOUT:-}
OLLAMA_NUM_PARALLEL=${OLLAMA_NUM_PARALLEL:-}
OLLAMA_MODELS=${OLLAMA_MODELS:-}
LOG_LEVEL=${LOG_LEVEL:-}
# -----------------------------------------------------------------------------------------

UNIT_DIR=${UNIT_DIR:-/etc/systemd/system}
INSTALL_DIR=${INSTALL_DIR:-/opt/ollama-node}
ENV_FILE=${ENV_FILE:-/etc/ollama-node.env} # the agent's settings; only root may read it
USUAL_MODELS=${USUAL_MODELS:-/usr/share/ollama/.ollama/models} # of Ollama's own installer
# Not exported any more: what is run here, such as Ollama's installer, has no use for it.
token=$OLLAMA_PROXY_NODE_TOKEN
unset OLLAMA_PROXY_NODE_TOKEN
OLLAMA_PROXY_NODE_TOKEN=$token
NAME=ollama-node
WAIT_S=${WAIT_S:-60}
DRY_RUN=0
INSTALLS_OLLAMA=0
OLLAMA=http://127.0.0.1:$OLLAMA_PORT

exec 3>&1 # what it says; standard output of a command may go elsewhere

say() { printf '%s\n' "$*" >&3; }

die() {
    printf 'node-setup: %s\n' "$*" >&2
    exit 1
}

# Print a command and run it; only print it in a dry run.
run() {
    say "+ $*"
    [ "$DRY_RUN" = 1 ] || "$@"
}

is_root() { [ "$(id -u)" = 0 ]; }

as_root() { if is_root; then run "$@"; else run sudo "$@"; fi; }

# Look at something that only root may see; in silence.
look() { if is_root; then "$@"; else sudo "$@"; fi 2>/dev/null; }

has() { command -v "$1" >/dev/null 2>&1; }

check_port() {
    case $2 in
    '' | 0* | *[!0-9]* | ??????*) die "$1: '$2' is not a port; write one from 1 to 65535" ;;
    esac
    [ "$2" -le 65535 ] || die "$1: '$2' is not a port; write one from 1 to 65535"
}

check_switch() {
    case $2 in
    0 | 1) ;;
    *) die "$1: '$2' is neither 0 nor 1" ;;
    esac
}

# Check a text that goes into the file of settings, where quotes and spaces would count.
check_text() {
    case $2 in
    *[!A-Za-z0-9._/=,*:~+@-]*) die "$1: there are other characters than letters, digits and ._/=,*:~+@-" ;;
    esac
}

check_settings() {
    case $SERVER_URL in
    *[!]A-Za-z0-9._:/[-]*) die "SERVER_URL: '$SERVER_URL' is not a URL; write http://host:port" ;;
    http://?* | https://?*) ;;
    *) die "SERVER_URL: '$SERVER_URL' is not a URL; write http://host:port" ;;
    esac
    check_port NODE_PORT "$NODE_PORT"
    check_port OLLAMA_PORT "$OLLAMA_PORT"
    check_switch SKIP_MODEL_PULL "$SKIP_MODEL_PULL"
    check_switch OPEN_OLLAMA "$OPEN_OLLAMA"
    case $REQUIRED_MODELS in
    *[!A-Za-z0-9._:/,\ -]*) die "REQUIRED_MODELS: '$REQUIRED_MODELS' is no comma-separated list of models" ;;
    esac
    case $NODE_ID in
    *[!A-Za-z0-9._-]*) die "NODE_ID: '$NODE_ID' has more than letters, digits, dots, dashes and underscores" ;;
    esac
    check_text OLLAMA_PROXY_NODE_TOKEN "$OLLAMA_PROXY_NODE_TOKEN"
    check_text NODE_TLS "$NODE_TLS"
    check_text NODE_TUNNEL "$NODE_TUNNEL"
    check_text NODE_LABELS "$NODE_LABELS"
    check_text HEARTBEAT_INTERVAL "$HEARTBEAT_INTERVAL"
    check_text NODE_REQUEST_TIMEOUT "$NODE_REQUEST_TIMEOUT"
    check_text OLLAMA_NUM_PARALLEL "$OLLAMA_NUM_PARALLEL"
    check_text OLLAMA_MODELS "$OLLAMA_MODELS"
    check_text LOG_LEVEL "$LOG_LEVEL"
    case $OLLAMA_PROXY_NODE_TOKEN:$NODE_TLS:$SERVER_URL in
    :* | *:false:* | *:https://*) ;;
    *) die "SERVER_URL: '$SERVER_URL' is no https:// address, and a machine joins over TLS; write https://, or set NODE_TLS=false" ;;
    esac
    case $NODE_IMAGE in
    *[!A-Za-z0-9._:/@-]* | -*) die "NODE_IMAGE: '$NODE_IMAGE' is no name of an image" ;;
    esac
}

# ---- what is here ------------------------------------------------------------------------

find_hub() {
    HUB=${SERVER_URL#*://}
    HUB=${HUB%%/*}
    case $HUB in
    \[*) HUB=${HUB#\[} HUB=${HUB%%\]*} ;;
    *) HUB=${HUB%%:*} ;;
    esac
    HUB_ADDRESSES=$(getent ahosts "$HUB" | sed 's/[[:space:]].*//' | sort -u) || true
    [ -n "$HUB_ADDRESSES" ] || die "the hub '$HUB' of SERVER_URL has no address; write a name or address that this machine can resolve"
}

find_firewall() {
    FIREWALL=none
    if has ufw && look ufw status | grep -q '^Status: active'; then
        FIREWALL=ufw
    elif has firewall-cmd && look firewall-cmd --state | grep -q '^running'; then
        FIREWALL=firewalld
    fi
}

find_checkout() {
    here=$(cd "$(dirname "$0")" && pwd)
    CHECKOUT=
    if [ -f "$here/../pyproject.toml" ] && [ -d "$here/../ollama_proxy" ]; then
        CHECKOUT=$(cd "$here/.." && pwd)
    fi
}

find_python() {
    PYTHON=
    for name in python3.14 python3.13 python3.12 python3.11 python3; do
        if has "$name" && "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            PYTHON=$name
            return
        fi
    done
}

# Decide by what the agent is run, before anything is changed.
find_way() {
    WAY=
    if has docker && look docker info >/dev/null; then
        WAY=docker
        look docker image inspect "$NODE_IMAGE" >/dev/null && return
        [ -n "$CHECKOUT" ] || die "the image '$NODE_IMAGE' is not here; build it, or run this script from a checkout"
        return
    fi
    find_python
    [ -n "$PYTHON" ] || die "there is neither Docker nor a Python of 3.11 or newer with venv (Debian: apt install python3-venv); install one of them and run this again"
    NODE_PACKAGE=${NODE_PACKAGE:-$CHECKOUT}
    [ -n "$NODE_PACKAGE" ] || die "there is nothing to install the agent from; run this script from a checkout, or set NODE_PACKAGE to a wheel"
    WAY=venv
}

ollama_answers() { curl -fsS --max-time 5 "$OLLAMA/api/version" >/dev/null 2>&1; }

has_systemd() { has systemctl && systemctl list-units >/dev/null 2>&1; }

# ---- what it does --------------------------------------------------------------------------

tell_plan() {
    say "This machine becomes a node of the hub $SERVER_URL ($(echo "$HUB_ADDRESSES" | tr '\n' ' ' | sed 's/ $//')):"
    say "  Ollama    on port $OLLAMA_PORT; installed and started if it is not there"
    if [ "$SKIP_MODEL_PULL" = 1 ] || [ -z "$REQUIRED_MODELS" ]; then
        say "  models    none is pulled"
    else
        say "  models    $REQUIRED_MODELS, pulled if missing"
    fi
    case $FIREWALL in
    none) say "  firewall  none is active, so none is changed" ;;
    *) say "  firewall  $FIREWALL; port $NODE_PORT is opened to the hub alone" ;;
    esac
    [ "$OPEN_OLLAMA" = 0 ] || say "            and port $OLLAMA_PORT, where Ollama takes everything: it can delete models, too"
    say "  agent     by $WAY, on port $NODE_PORT"
    [ -z "$OLLAMA_PROXY_NODE_TOKEN" ] || say "            it joins the hub by the token that was given"
    [ "$DRY_RUN" = 0 ] || say "A dry run: the lines with + are what would be run."
}

# Write standard input to a file of root's, and note whether that changes it. A second
# argument is its mode, which it has before it has a byte.
write_file() {
    content=$(cat)
    CHANGED=0
    if [ -f "$1" ] && [ "$(look cat "$1")" = "$content" ]; then
        return
    fi
    CHANGED=1
    as_root mkdir -p "$(dirname "$1")"
    [ -z "${2:-}" ] || as_root install -m "$2" /dev/null "$1"
    printf '%s\n' "$content" | as_root tee "$1" >/dev/null
}

# Print the agent's settings, those that are set, a line each.
print_settings() {
    printf '%s\n' "SERVER_URL=$SERVER_URL" "NODE_PORT=$NODE_PORT" "NODE_ID=$NODE_ID" \
        "OLLAMA_BASE_URL=$OLLAMA" "OLLAMA_PROXY_NODE_TOKEN=$OLLAMA_PROXY_NODE_TOKEN" \
        "NODE_TLS=$NODE_TLS" "NODE_TUNNEL=$NODE_TUNNEL" "NODE_LABELS=$NODE_LABELS" \
        "HEARTBEAT_INTERVAL=$HEARTBEAT_INTERVAL" "NODE_REQUEST_TIMEOUT=$NODE_REQUEST_TIMEOUT" \
        "OLLAMA_NUM_PARALLEL=$OLLAMA_NUM_PARALLEL" "LOG_LEVEL=$LOG_LEVEL" "$@" | grep -v '=$'
}

# The token is in a file that only root may read: a command line is seen by everybody.
write_settings() {
    write_file "$ENV_FILE" 600 <<SETTINGS
$(print_settings "$@")
SETTINGS
}

find_models() {
    MODELS=$OLLAMA_MODELS
    [ -n "$MODELS" ] || MODELS=$USUAL_MODELS
    look test -d "$MODELS" || MODELS=
}

install_ollama() {
    if ollama_answers || has ollama; then
        say "Ollama is installed."
        return
    fi
    INSTALLS_OLLAMA=1
    script=node-setup.ollama-install.sh
    [ "$DRY_RUN" = 1 ] || script=$(mktemp)
    run curl -fsSL --output "$script" https://ollama.com/install.sh || die "Ollama's installer can't be fetched; install Ollama and run this again"
    run sh "$script" || die "Ollama's installer failed; see above"
    [ "$DRY_RUN" = 1 ] || rm -f "$script"
}

# Have the service listen where the settings say; by default it does.
configure_ollama() {
    has_systemd && [ "$OLLAMA_PORT$OPEN_OLLAMA" != 114340 ] || return 0
    host=127.0.0.1
    [ "$OPEN_OLLAMA" = 0 ] || host=0.0.0.0
    write_file "$UNIT_DIR/ollama.service.d/node-setup.conf" <<CONF
[Service]
Environment=OLLAMA_HOST=$host:$OLLAMA_PORT
CONF
    if [ "$CHANGED" = 1 ]; then
        as_root systemctl daemon-reload
        as_root systemctl restart ollama
    fi
}

start_ollama() {
    configure_ollama
    if ollama_answers; then
        say "Ollama answers on port $OLLAMA_PORT."
        return
    fi
    if has_systemd; then
        as_root systemctl enable --now ollama
    else
        say "There is no systemd: Ollama is started now, and not after a reboot."
        say "+ OLLAMA_HOST=127.0.0.1:$OLLAMA_PORT nohup ollama serve &"
        [ "$DRY_RUN" = 1 ] || OLLAMA_HOST=127.0.0.1:$OLLAMA_PORT nohup ollama serve >/dev/null 2>&1 3>&- &
    fi
    [ "$DRY_RUN" = 0 ] || return 0
    waited=0
    until ollama_answers; do
        [ "$waited" -lt "$WAIT_S" ] || die "Ollama does not answer at $OLLAMA after $WAIT_S s; see 'journalctl -u ollama'"
        waited=$((waited + 1))
        sleep 1
    done
}

pull_models() {
    [ "$SKIP_MODEL_PULL" = 0 ] || return 0
    for model in $(echo "$REQUIRED_MODELS" | tr ',' ' '); do
        if curl -fsS --max-time 10 "$OLLAMA/api/show" -d "{\"model\":\"$model\"}" >/dev/null 2>&1; then
            say "The model $model is there."
        elif [ "$INSTALLS_OLLAMA" = 1 ] || has ollama; then
            run env OLLAMA_HOST="127.0.0.1:$OLLAMA_PORT" ollama pull "$model" || die "the model '$model' can't be pulled; see above"
        else
            run curl -fsS "$OLLAMA/api/pull" -d "{\"model\":\"$model\",\"stream\":false}" || die "the model '$model' can't be pulled; see above"
        fi
    done
}

open_port() {
    for address in $HUB_ADDRESSES; do
        case $address in
        127.* | ::1) continue ;; # a firewall lets a machine ask itself
        *:*) family=ipv6 ;;
        *) family=ipv4 ;;
        esac
        if [ "$FIREWALL" = ufw ]; then
            as_root ufw allow proto tcp from "$address" to any port "$1" ||
                say "ufw does not take this rule (IPV6=no in /etc/default/ufw?): the hub can't ask from $address."
            continue
        fi
        rule="rule family=\"$family\" source address=\"$address\" port port=\"$1\" protocol=\"tcp\" accept"
        if ! look firewall-cmd --permanent --query-rich-rule="$rule" >/dev/null; then
            as_root firewall-cmd --permanent --add-rich-rule="$rule"
            as_root firewall-cmd --reload
        fi
    done
}

open_firewall() {
    if [ "$FIREWALL" = none ]; then
        say "No firewall is active (ufw, firewalld): anybody can connect to port $NODE_PORT, and the agent refuses all but the hub."
        [ "$OPEN_OLLAMA" = 0 ] || say "OPEN_OLLAMA=1 without a firewall: anybody on this network can use Ollama, pull and delete models."
        return
    fi
    open_port "$NODE_PORT"
    [ "$OPEN_OLLAMA" = 0 ] || open_port "$OLLAMA_PORT"
}

start_container() {
    if ! look docker image inspect "$NODE_IMAGE" >/dev/null; then
        as_root docker build --tag "$NODE_IMAGE" "$CHECKOUT"
    fi
    image=$(look docker image inspect --format '{{.Id}}' "$NODE_IMAGE") || image=
    find_models
    # How much room there is can be seen through a folder that the container may not write.
    set -- --volume "$NAME:/state"
    [ -z "$MODELS" ] || set -- "$@" --volume "$MODELS:/models:ro"
    write_settings "${MODELS:+OLLAMA_MODELS=/models}"
    wanted="$image $MODELS $(print_settings | cksum | tr ' ' -)"
    if [ "$(look docker inspect --format '{{.State.Running}} {{index .Config.Labels "node-setup"}}' "$NAME")" = "true $wanted" ]; then
        say "The agent runs, with these settings."
        return
    fi
    if look docker inspect "$NAME" >/dev/null; then
        as_root docker stop --time 130 "$NAME" # what goes on may end
        as_root docker rm --force "$NAME"
    fi
    # The addresses that the hub learns have to be the machine's, and Ollama is on its
    # loopback, so the container shares its network.
    as_root docker run --detach --name "$NAME" --restart unless-stopped \
        --network host --stop-timeout 130 "$@" --label "node-setup=$wanted" \
        --env-file "$ENV_FILE" "$NODE_IMAGE" node
}

start_without_systemd() {
    say "There is no systemd: the agent is started now, and not after a reboot."
    if curl -fsS --max-time 5 "http://127.0.0.1:$NODE_PORT/healthz" >/dev/null 2>&1; then
        say "It runs already; end it first if its settings changed."
        return
    fi
    say "+ nohup $INSTALL_DIR/bin/ollama-proxy node &"
    [ "$DRY_RUN" = 0 ] || return 0
    (
        export SERVER_URL NODE_PORT NODE_ID NODE_TLS NODE_TUNNEL NODE_LABELS LOG_LEVEL
        export HEARTBEAT_INTERVAL NODE_REQUEST_TIMEOUT OLLAMA_NUM_PARALLEL OLLAMA_MODELS
        export OLLAMA_PROXY_NODE_TOKEN OLLAMA_BASE_URL="$OLLAMA"
        exec nohup "$INSTALL_DIR/bin/ollama-proxy" node >/dev/null 2>&1 3>&-
    ) &
}

start_venv() {
    stamp="$NODE_PACKAGE $(git -C "$NODE_PACKAGE" rev-parse HEAD 2>/dev/null || true)"
    is_new=0
    if [ "$(cat "$INSTALL_DIR/installed" 2>/dev/null)" != "$stamp" ]; then
        is_new=1
        [ -x "$INSTALL_DIR/bin/python" ] || as_root "$PYTHON" -m venv "$INSTALL_DIR"
        as_root "$INSTALL_DIR/bin/python" -m pip install --quiet --upgrade "$NODE_PACKAGE"
        echo "$stamp" | write_file "$INSTALL_DIR/installed"
    fi
    if ! has_systemd; then
        start_without_systemd
        return
    fi
    write_settings "OLLAMA_MODELS=$OLLAMA_MODELS"
    is_new=$is_new$CHANGED
    # A folder of Ollama's own user is open to its group alone, on many systems.
    group=
    [ -z "$(getent group ollama)" ] || group="SupplementaryGroups=ollama"
    write_file "$UNIT_DIR/$NAME.service" <<UNIT
[Unit]
Description=ollama-proxy node: reports this machine's Ollama to a hub
After=network-online.target ollama.service
Wants=network-online.target

[Service]
EnvironmentFile=$ENV_FILE
Environment=OLLAMA_PROXY_STATE_DIR=/var/lib/$NAME
ExecStart=$INSTALL_DIR/bin/ollama-proxy node
DynamicUser=yes
$group
StateDirectory=$NAME
Restart=always
RestartSec=5
TimeoutStopSec=130

[Install]
WantedBy=multi-user.target
UNIT
    if [ "$is_new$CHANGED" = 000 ] && look systemctl is-active --quiet "$NAME"; then
        say "The agent runs, with these settings."
        return
    fi
    as_root systemctl daemon-reload
    as_root systemctl enable "$NAME"
    as_root systemctl restart "$NAME"
}

main() {
    for option in "$@"; do
        case $option in
        --dry-run) DRY_RUN=1 ;;
        -h | --help)
            sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        *) die "'$option' is no option; there is --dry-run" ;;
        esac
    done
    check_settings
    [ "$(uname -s)" = Linux ] || die "this script is for Linux; on another system install Ollama and start 'ollama-proxy node'"
    has curl || die "there is no curl; install it and run this again"
    is_root || has sudo || die "this needs root: there is no sudo"
    find_hub
    find_firewall
    find_checkout
    find_way
    tell_plan
    install_ollama
    start_ollama
    pull_models
    open_firewall
    if [ "$WAY" = docker ]; then start_container; else start_venv; fi
    [ "$DRY_RUN" = 1 ] || say "Done. The hub lists this node within 30 s: curl $SERVER_URL/nodes"
}

main "$@"
