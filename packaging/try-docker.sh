#!/usr/bin/env bash
# Starts both images with each documented set of flags, by Docker itself, and
# fails unless each gives the rung that docs/deploy.md promises. Needs the
# images `codex-server` and `codex-server:ordinary`, and removes what it starts.
set -euo pipefail

open=(--security-opt seccomp=unconfined --security-opt apparmor=unconfined
    --security-opt systempaths=unconfined)
name=codex-try-$$
trap 'docker rm --force "$name" >/dev/null 2>&1 || true' EXIT

# check IMAGE RUNG [FLAG…]: serves at that rung, both languages run.
check() {
    local image=$1 rung=$2 language code answer
    shift 2
    docker run --detach --name "$name" "$@" "$image" serve --host 0.0.0.0 >/dev/null
    for _ in $(seq 60); do
        docker exec "$name" codex-server health >/dev/null 2>&1 && break
        sleep 1
    done
    answer=$(docker exec "$name" codex-server health) || {
        docker logs "$name"
        return 1
    }
    case $answer in
        "healthy: $rung,"*) ;;
        *) echo "$image $*: promised $rung, got: $answer" >&2; return 1 ;;
    esac
    local token
    token=$(docker exec "$name" codex-server token create try)
    for language in python javascript bash; do
        case $language in
            python) code='print(2+2)' ;;
            javascript) code='console.log(2+2)' ;;
            bash) code="echo \$((2+2))" ;;
        esac
        answer=$(docker exec "$name" python3 -c '
import json, sys, urllib.request
body = json.dumps({"language": sys.argv[2], "code": sys.argv[3]}).encode()
head = {"Authorization": "Bearer " + sys.argv[1], "Content-Type": "application/json"}
call = urllib.request.Request("http://127.0.0.1:8000/execute", body, head)
found = json.load(urllib.request.urlopen(call, timeout=60))
print(found["output"].strip(), found["isolation"])' "$token" "$language" "$code")
        [ "$answer" = "4 $rung" ] || {
            echo "$image $*: $language answered $answer" >&2
            return 1
        }
    done
    docker stop --time 20 "$name" >/dev/null
    [ "$(docker inspect --format '{{.State.ExitCode}}' "$name")" = 0 ]
    docker rm "$name" >/dev/null
    echo "$image $*: $rung"
}

# refuses IMAGE [FLAG…]: ends with code 4, as having no sandbox.
refuses() {
    local code=0
    docker run --rm --name "$name" "$@" >/dev/null 2>&1 || code=$?
    [ "$code" = 4 ] || {
        echo "$*: should refuse with 4, ended with $code" >&2
        return 1
    }
    echo "$*: refuses"
}

check codex-server uids
check codex-server namespaces "${open[@]}"
check codex-server full "${open[@]}" --cgroupns private --security-opt writable-cgroups=true
refuses codex-server:ordinary
check codex-server:ordinary namespaces "${open[@]}"
