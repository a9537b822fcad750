#!/bin/sh
# Pull models into the image: bake.sh MODEL…
set -eu
[ "$#" -gt 0 ] || exit 0
export OLLAMA_HOST="127.0.0.1:${BAKE_PORT:-11434}"
ollama serve &
server=$!
trap 'kill "$server"' EXIT
tries=0
until ollama list > /dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { echo "bake: Ollama does not answer" >&2; exit 1; }
    sleep 1
done
for model in "$@"; do
    ollama pull "$model"
done
