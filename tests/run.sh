#!/usr/bin/env bash
# Runs every test of the workspace, including the end-to-end tests. They start their own nats-server: NATS_SERVER names the binary;
# otherwise it is searched on the PATH, or installed if possible. Arguments are passed to `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian installs it in a directory that is not on an ordinary user's PATH.
export PATH="$PATH:/usr/sbin:/usr/local/bin"

# Whether there is a program: has NAME [VARIABLE that can name it].
has() {
    [[ -n "${2:-}" && -n "${!2:-}" ]] || command -v "$1" >/dev/null
}

can_install() {
    [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null
}

# The tests create virtual environments for the Python example and the Kubernetes schemas.
lacks_venv() {
    has python3 && ! python3 -c 'import ensurepip, venv' 2>/dev/null
}

packages=()
has nats-server NATS_SERVER || packages+=(nats-server)
has strace STRACE || packages+=(strace)
has faketime FAKETIME || packages+=(faketime)
! lacks_venv || packages+=(python3-venv)
if [[ ${#packages[@]} -gt 0 ]] && can_install; then
    echo "tests/run.sh: installing ${packages[*]}"
    apt-get update -qq || true
    for package in "${packages[@]}"; do
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" || true
    done
fi
if ! has nats-server NATS_SERVER; then
    echo "tests/run.sh: install nats-server (Debian: apt-get install nats-server) or set NATS_SERVER to its binary" >&2
    exit 2
fi
if lacks_venv; then
    echo "tests/run.sh: install Python's venv module (Debian: apt-get install python3-venv)" >&2
    exit 2
fi

# promtool is part of Debian's prometheus package, which is only unpacked: installing it would start a server.
if ! has promtool PROMTOOL; then
    tools="$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")"
    if [[ ! -x "$tools/usr/bin/promtool" ]] && can_install; then
        echo "tests/run.sh: unpacking promtool"
        mkdir -p "$tools"
        apt-get update -qq || true
        (cd "$tools" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb .) || true
    fi
    if [[ -x "$tools/usr/bin/promtool" ]]; then
        export PROMTOOL="$tools/usr/bin/promtool"
    fi
fi

# What Debian does not have, or only an old version of: its nats-server does not know `sync_interval: always`, which came with 2.10.
# docker-compose checks the examples' compositions; it needs no engine for that.
for tool in nats-server:NATS_SERVER_CURRENT docker-compose:DOCKER_COMPOSE helm:HELM kubeconform:KUBECONFORM; do
    name="${tool%:*}" variable="${tool#*:}"
    if [[ -z "${!variable:-}" ]] && { [[ "$name" == nats-server ]] || ! has "$name"; } && path="$(tests/tool.sh "$name")"; then
        export "$variable=$path"
    fi
done

# Tests are skipped where their program is not installed, and the test runner does not show what a test prints that passes.
while IFS='|' read -r name variable what; do
    has "$name" "$variable" || echo "tests/run.sh: $name is not installed${variable:+ ($variable can name it)}; skipped: $what" >&2
done <<'LIST'
nats-server-current|NATS_SERVER_CURRENT|what needs nats-server 2.10 or later, if the installed one is older
strace|STRACE|power cuts, and errors of reading the spool
faketime|FAKETIME|gateways and deciders with another clock
docker-compose|DOCKER_COMPOSE|the compositions of docker-compose.yml and examples/openim
helm|HELM|the Helm chart
kubeconform|KUBECONFORM|manifests by the schemas of Kubernetes
kubectl|KUBECTL|the manifests for Kubernetes
promtool|PROMTOOL|alert rules, and the format of metrics
buf|BUF|buf lint proto
unshare|UNSHARE|full and broken file systems, and changes of names
go||OpenIM's client
npm||the example in Node, and docs/asyncapi.yaml by the AsyncAPI parser
python3||the example in Python, docs/openapi.json, the Helm chart, and the manifests for Kubernetes
LIST

exec cargo test --workspace --locked "$@"
