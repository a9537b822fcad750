#!/bin/sh
# Start Ollama and the guard before it, hand signals on, and end when either ends or
# when the proxy has fallen silent.
#   GUARD_TOKEN     what a caller has to know; nothing starts without it
#   GUARD           token, or platform: a gateway before this has checked the caller
#   PORT            where the guard listens, 8080
#   OLLAMA_PORT     where Ollama listens behind it, on loopback, 11434
#   DEAD_MAN_S      silence of the proxy, in seconds, after which nobody wants this; 0: never
#   MAX_LIFETIME_S  the same for the time since the start; 0: never
#   IDLE_S          the same for the time without a request and without a pull of its own; 0: never.
#                   For a platform that starts it again for the next caller, and sees no such pull
#   DEAD_MAN        what happens then. exit: the container ends. metric: /-/wanted tells 0, for
#                   a platform that starts again what ended, and scales down what is unwanted
#   PRELOAD_MODELS  models that it pulls, with commas or spaces; else those of preload-models.txt
#   The names of an older sidecar are understood as well: OLLAMA_PRELOAD_MODELS, OLLAMA_HTTP_PORT,
#   OLLAMA_MODEL_CACHE_DIR, and a volume at /ollama/data.
#   TMPDIR          where its own files go, /tmp; else /dev/shm, /run or the home, if a root that
#                   can only be read leaves no other
set -eu
user=42420
etc="${ETC:-/etc/ollama-proxy}"
models="${OLLAMA_MODELS:-$HOME/models}"
old_volume="${OLD_VOLUME:-/ollama/data}"

say() {
    echo "entrypoint: $*" >&2
}

# Where an older sidecar kept its models, unless OLLAMA_MODELS is set besides the image's own.
cache="${OLLAMA_MODEL_CACHE_DIR:-}"
if [ -z "$cache" ] && [ -d "$old_volume" ]; then
    cache="$old_volume"
fi
if [ -n "$cache" ] && [ "$models" = "$HOME/models" ]; then
    models="$cache"
    for below in models .ollama/models; do # as its HOME or OLLAMA_MODELS had it
        [ ! -d "$cache/$below/blobs" ] || models="$cache/$below"
    done
    say "models are kept in $models, as OLLAMA_MODEL_CACHE_DIR or the volume at $old_volume has it"
elif [ -n "$cache" ] && [ "$cache" != "$models" ]; then
    say "OLLAMA_MODELS is $models, so $cache is not used; set only one of them"
fi

case "${GUARD:=token} ${GUARD_TOKEN:=none}" in
    "platform "*) ;;
    "token "*[!A-Za-z0-9_-]*) say "GUARD_TOKEN may hold letters, digits, - and _ only"; exit 64 ;;
    "token "????????????????*) ;;
    *) say "GUARD_TOKEN is missing or shorter than 16 characters; set a long random word"; exit 64 ;;
esac
case "${DEAD_MAN:=exit}" in
    exit | metric) ;;
    *) say "DEAD_MAN is exit or metric, not $DEAD_MAN"; exit 64 ;;
esac

case "${DEAD_MAN_S:=0}${MAX_LIFETIME_S:=0}${IDLE_S:=0}" in
    *[!0-9]*) say "DEAD_MAN_S, MAX_LIFETIME_S and IDLE_S are seconds, without a unit"; exit 64 ;;
esac
if [ "$IDLE_S" -gt 0 ] && [ ! -r /proc/net/tcp ]; then
    say "IDLE_S needs /proc/net/tcp, which can't be read here: set it to 0"; exit 64
fi

if [ -n "${OLLAMA_HTTP_PORT:-}" ] && [ -z "${PORT:-}" ]; then
    PORT="$OLLAMA_HTTP_PORT"
    say "the guard listens on port $PORT, as OLLAMA_HTTP_PORT has it; callers need the token"
fi
case "${OLLAMA_PORT:=11434}" in
    *://*) OLLAMA_PORT=11434 ;; # what Kubernetes says of a Service named ollama, no setting
esac
case "${PORT:=8080} $OLLAMA_PORT" in
    " "* | *" " | *[!0-9\ ]* | *" "*" "*) say "PORT and OLLAMA_PORT are numbers, not $PORT and $OLLAMA_PORT"; exit 64 ;;
esac

if [ "$PORT" = "$OLLAMA_PORT" ]; then # the guard has every address, so Ollama moves
    OLLAMA_PORT=$((PORT + 1))
fi

if [ "$(id -u)" = 0 ]; then # a fresh volume belongs to root
    mkdir -p "$models" || true
    find "$models" "$HOME" -xdev ! -user "$user" -exec chown -h "$user:$user" {} + 2> /dev/null ||
        say "not everything in $models can be given to user $user"
    if setpriv --reuid="$user" --regid="$user" --clear-groups -- true 2> /dev/null; then
        exec setpriv --reuid="$user" --regid="$user" --clear-groups -- "$0" "$@"
    fi
    say "root may not become user $user here, so everything goes on as root"
fi

run=""
for place in "${TMPDIR:-/tmp}" /dev/shm /run "$HOME"; do # whichever a read-only root leaves
    run="$(mktemp -d "$place/ollama-proxy.XXXXXX" 2> /dev/null)" && break
done
[ -n "$run" ] || { say "no folder can be written; mount a tmpfs at /tmp"; exit 73; }
export RUN_DIR="$run" GUARD GUARD_TOKEN PORT OLLAMA_PORT
[ -w "$models" ] || mkdir -p "$models" 2> /dev/null || true
if [ ! -w "$models" ] && [ -d "$models/blobs" ]; then
    say "the folder $models can only be read: nothing in it is pruned, and no pull can be kept; put models into the bucket of OLLAMA_VOLUME, or mount a volume that user $(id -u) may write"
    export OLLAMA_NOPRUNE=1
elif [ ! -w "$models" ]; then # where Ollama would not even start
    say "the folder $models can't be written and is empty: put models into the bucket of OLLAMA_VOLUME, or mount a volume that user $(id -u) may write; until then models go to $run/models and are lost at the end"
    models="$run/models"
    mkdir "$models"
fi
home="$HOME"
[ -w "$home" ] || home="$run" # Ollama writes a key there, or does not start
echo 1 > "$run/wanted"

env -u GUARD_TOKEN HOME="$home" OLLAMA_HOST="127.0.0.1:$OLLAMA_PORT" OLLAMA_MODELS="$models" ollama serve &
ollama=$!
HOME="$run" caddy run --adapter caddyfile --config "$etc/Caddyfile" &
guard=$!
preload=""

uptime_s() {
    read -r up _ < /proc/uptime
    echo "${up%%.*}"
}

end() { # end STATUS: no child is left, whatever it does with signals
    trap '' TERM INT
    for child in $ollama $guard $preload; do
        kill -TERM "$child" 2> /dev/null || true
    done
    tries=0
    while kill -0 "$ollama" 2> /dev/null || kill -0 "$guard" 2> /dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt "${GRACE_TENTHS:-100}" ] || kill -KILL "$ollama" "$guard" 2> /dev/null || true
        sleep 0.1
    done
    wait "$ollama" "$guard" 2> /dev/null || true
    rm -rf "$run"
    exit "$1"
}
trap 'say "told to end"; end 0' TERM INT

wished="${PRELOAD_MODELS:-${OLLAMA_PRELOAD_MODELS:-}}"
if [ -n "$wished" ]; then
    wished="$(printf '%s' "$wished" | tr ',' '\n' | tr -s ' \t\r' '\n')"
else # a file from Windows ends its lines with CR LF
    wished="$(tr -d '\r' < "$etc/preload-models.txt" 2> /dev/null | sed -e 's/#.*//' -e 's/^[[:space:]]*//' -e 's/[[:space:]].*//' || true)"
fi

pull() { # pull MODEL: again and again while there is no network, for some 14 minutes
    for pause in 5 10 30 60 120 300 300 0; do
        said="$(ollama pull "$1" 2>&1)" && return 0
        case "$said" in
            *"file does not exist"* | *"invalid model name"*) break ;; # no pause helps
        esac
        sleep "${RETRY_PAUSE:-$pause}"
    done
    say "$1 could not be pulled: $(printf '%s' "$said" | tr -d '\033' | tail -n 1 | tail -c 300)"
}

preload_models() {
    export OLLAMA_HOST="127.0.0.1:$OLLAMA_PORT"
    until ollama list > /dev/null 2>&1; do sleep 1; done
    for model in $wished; do
        case "$model" in
            -*) say "$model is no name of a model" ;;
            *) pull "$model" ;;
        esac
    done
}
set -f # a name is no pattern of files
if [ -n "$wished" ]; then
    (unset GUARD_TOKEN; preload_models) &
    preload=$!
fi

hex_port="$(printf '%04X' "$OLLAMA_PORT")"
busy() { # a pull of its own is under way, or a request: Caddy keeps a connection for 2 minutes more
    if [ -n "$preload" ] && kill -0 "$preload" 2> /dev/null; then
        return 0
    fi
    while read -r _ here _ state _; do
        case "$here $state" in *":$hex_port 01") return 0 ;; esac
    done < /proc/net/tcp
    return 1
}

begun="$(uptime_s)" heard="$(uptime_s)" used="$(uptime_s)" mark="" last="$(uptime_s)"
unwanted() { # tell why nobody wants this any more, if so
    now="$(uptime_s)"
    seen="$(stat -c '%i %s' "$run/heartbeats.log" 2> /dev/null || true)"
    if [ "$seen" != "$mark" ] || [ $((now - last)) -gt 60 ]; then # or it was suspended
        mark="$seen" heard="$now" # the guard writes a line for each heartbeat
    fi
    if [ "$IDLE_S" -gt 0 ] && { [ $((now - last)) -gt 60 ] || busy; }; then
        used="$now"
    fi
    if [ $((now - last)) -gt 60 ]; then
        begun=$((begun + now - last))
    fi
    last="$now" why=""
    if [ "$DEAD_MAN_S" -gt 0 ] && [ $((now - heard)) -ge "$DEAD_MAN_S" ]; then
        why="the proxy was not heard of for $((now - heard)) s"
    elif [ "$MAX_LIFETIME_S" -gt 0 ] && [ $((now - begun)) -ge "$MAX_LIFETIME_S" ]; then
        why="its longest life of $MAX_LIFETIME_S s is over"
    elif [ "$IDLE_S" -gt 0 ] && [ $((now - used)) -ge "$IDLE_S" ]; then
        why="nobody has asked for anything for $((now - used)) s"
    fi
    [ -n "$why" ]
}

told=1
while :; do
    sleep "${POLL_S:-5}" &
    wait $! || true # a signal ends the wait, and its trap runs
    kill -0 "$ollama" 2> /dev/null || { say "Ollama has ended"; end 1; }
    kill -0 "$guard" 2> /dev/null || { say "the guard has ended"; end 1; }
    wanted=1
    if unwanted; then
        wanted=0
    fi
    if [ "$wanted" = 0 ] && [ "$DEAD_MAN" = exit ]; then
        say "$why: it ends"
        end 0
    fi
    if [ "$wanted" != "$told" ]; then
        say "${why:-wanted again}"
        if echo "$wanted" > "$run/wanted.new" && mv "$run/wanted.new" "$run/wanted"; then
            told="$wanted"
        fi
    fi
done
