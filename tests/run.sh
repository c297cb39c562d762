#!/usr/bin/env bash
# Runs every test of the workspace, the end-to-end ones included. They start a nats-server of their own; NATS_SERVER names
# its binary, else it is looked for on the PATH, else installed where that is possible. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian installs it where the PATH of an ordinary user does not lead.
export PATH="$PATH:/usr/sbin:/usr/local/bin"

if [[ -z "${NATS_SERVER:-}" ]] && ! command -v nats-server >/dev/null; then
    if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
        echo "tests/run.sh: installing nats-server"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nats-server
    else
        echo "tests/run.sh: install nats-server (Debian: apt-get install nats-server) or name its binary in NATS_SERVER" >&2
        exit 2
    fi
fi

# promtool is a part of Debian's prometheus, which is only unpacked: installed it would start a server.
if [[ -z "${PROMTOOL:-}" ]] && ! command -v promtool >/dev/null; then
    tools="${CARGO_TARGET_DIR:-target}/tools"
    if [[ ! -x "$tools/usr/bin/promtool" && "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
        echo "tests/run.sh: unpacking promtool"
        mkdir -p "$tools"
        apt-get update -qq
        (cd "$tools" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb .) \
            || echo "tests/run.sh: promtool cannot be had, so the rules' tests are skipped" >&2
    fi
    if [[ -x "$tools/usr/bin/promtool" ]]; then
        PROMTOOL="$(realpath "$tools/usr/bin/promtool")"
        export PROMTOOL
    fi
fi

# The Python example and the Kubernetes schemas are used in environments of their own.
if command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
        echo "tests/run.sh: installing python3-venv"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv
    else
        echo "tests/run.sh: install Python's venv module (Debian: apt-get install python3-venv)" >&2
        exit 2
    fi
fi

exec cargo test --workspace --locked "$@"
