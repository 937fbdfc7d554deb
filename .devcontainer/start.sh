#!/usr/bin/env bash
# At each start of the container: the server in the background, then its port
# made public, which Codespaces forgets at each restart. Never fails the start
# of the container; what went wrong, and what to do by hand, is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

port=8000
log=${START_LOG:-/tmp/codex-server.log}
server=target/release/codex-server
# How long to wait for the server, and how often to ask for the port.
tries=${START_TRIES:-60}
pause=${START_PAUSE:-2}

cargo xtask build

if "$server" health >/dev/null 2>&1; then
    echo "The server runs already."
else
    # Its own session, or it would end with this script. The first token is in
    # the log, which is for this user alone.
    (umask 077 && setsid --fork "$server" up --port "$port" >"$log" 2>&1 </dev/null)
fi

for ((i = 0; i < tries; i++)); do
    if "$server" health; then
        break
    fi 2>/dev/null
    sleep "$pause"
done
if ! "$server" health >/dev/null 2>&1; then
    echo "The server does not answer; the end of $log:"
    tail -n 20 "$log" || true
    exit 0
fi
echo "Token and curl line: $log"

by_hand() {
    cat <<END
The port is still private, and ChatGPT cannot reach it. By hand:
  Ports panel -> right-click $port -> Port Visibility -> Public
or, where the codespace's token may not do that:
  GITHUB_TOKEN= gh auth login --scopes codespace
  GITHUB_TOKEN= gh codespace ports visibility $port:public -c "${CODESPACE_NAME:-}"
An organisation may forbid public ports; then only its members get through.
Whether it worked: $server doctor --public
END
}

if [ -z "${CODESPACE_NAME:-}" ]; then
    echo "No codespace: the port is this machine's own, http://127.0.0.1:$port"
    exit 0
fi
if ! command -v gh >/dev/null; then
    by_hand
    exit 0
fi
# The tunnel learns of a port some time after it is listened on; until then the
# answer is 404. A 403 will not get better.
for ((i = 0; i < tries; i++)); do
    if said=$(gh codespace ports visibility "$port:public" -c "$CODESPACE_NAME" 2>&1); then
        echo "Public: https://$CODESPACE_NAME-$port.${GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN:-app.github.dev}"
        exit 0
    fi
    case $said in
        *403* | *admin\ rights* | *"not permitted"*) break ;;
    esac
    sleep "$pause"
done
echo "gh says: $said"
by_hand
