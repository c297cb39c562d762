#!/usr/bin/env bash
# Runs every test of the workspace, including the end-to-end tests. They start their own nats-server: NATS_SERVER names the binary;
# otherwise it is searched on the PATH, or installed if possible. Arguments are passed to `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian installs it in a directory that is not on an ordinary user's PATH.
export PATH="$PATH:/usr/sbin:/usr/local/bin"

if [[ -z "${NATS_SERVER:-}" ]] && ! command -v nats-server >/dev/null; then
    if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
        echo "tests/run.sh: installing nats-server"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nats-server
    else
        echo "tests/run.sh: install nats-server (Debian: apt-get install nats-server) or set NATS_SERVER to its binary" >&2
        exit 2
    fi
fi

# The tests of power cuts record system calls.
if ! command -v strace >/dev/null && [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
    echo "tests/run.sh: installing strace"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends strace \
        || echo "tests/run.sh: cannot install strace; the tests of power cuts are skipped" >&2
fi

# Debian's nats-server does not know `sync_interval: always`, which came with 2.10.
if [[ -z "${NATS_SERVER_CURRENT:-}" ]] && command -v go >/dev/null; then
    tools="$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")"
    if [[ ! -x "$tools/nats-server" ]]; then
        echo "tests/run.sh: building a current nats-server"
        GOBIN="$tools" go install github.com/nats-io/nats-server/v2@v2.15.3 \
            || echo "tests/run.sh: cannot build a current nats-server; its power cuts are skipped" >&2
    fi
    if [[ -x "$tools/nats-server" ]]; then
        export NATS_SERVER_CURRENT="$tools/nats-server"
    fi
fi

# Docker's compose plugin as a program of its own checks the examples' compositions; it needs no engine for that. Its module has
# replacements, so that `go install` refuses it.
if [[ -z "${DOCKER_COMPOSE:-}" ]] && ! command -v docker-compose >/dev/null && command -v go >/dev/null; then
    tools="$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")"
    if [[ ! -x "$tools/docker-compose" ]]; then
        echo "tests/run.sh: building docker-compose"
        source="$(GOWORK=off go mod download -json github.com/docker/compose/v2@v2.40.3 | sed -n 's/.*"Dir": "\(.*\)",*$/\1/p')" || source=""
        rm -rf "$tools/compose" && mkdir -p "$tools/compose"
        if [[ -n "$source" ]] && cp -r "$source/." "$tools/compose" && chmod -R u+w "$tools/compose" \
            && (cd "$tools/compose" && GOWORK=off go build -o "$tools/docker-compose" ./cmd); then
            rm -rf "$tools/compose"
        else
            echo "tests/run.sh: cannot build docker-compose; the examples' compositions are not checked" >&2
        fi
    fi
    if [[ -x "$tools/docker-compose" ]]; then
        export DOCKER_COMPOSE="$tools/docker-compose"
    fi
fi

# Debian has neither helm nor kubeconform.
build_tool() { # name, variable with its path, Go package
    if [[ -n "${!2:-}" ]] || command -v "$1" >/dev/null || ! command -v go >/dev/null; then
        return
    fi
    local tools
    tools="$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")"
    if [[ ! -x "$tools/$1" ]]; then
        echo "tests/run.sh: building $1"
        GOBIN="$tools" go install "$3" || echo "tests/run.sh: cannot build $1; its tests are skipped" >&2
    fi
    if [[ -x "$tools/$1" ]]; then
        export "$2=$tools/$1"
    fi
}
build_tool helm HELM helm.sh/helm/v3/cmd/helm@v3.22.0
build_tool kubeconform KUBECONFORM github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0

# promtool is part of Debian's prometheus package, which is only unpacked: installing it would start a server.
if [[ -z "${PROMTOOL:-}" ]] && ! command -v promtool >/dev/null; then
    tools="${CARGO_TARGET_DIR:-target}/tools"
    if [[ ! -x "$tools/usr/bin/promtool" && "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
        echo "tests/run.sh: unpacking promtool"
        mkdir -p "$tools"
        apt-get update -qq
        (cd "$tools" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb .) \
            || echo "tests/run.sh: cannot download promtool; the tests of alert rules are skipped" >&2
    fi
    if [[ -x "$tools/usr/bin/promtool" ]]; then
        PROMTOOL="$(realpath "$tools/usr/bin/promtool")"
        export PROMTOOL
    fi
fi

# Some tests set the clock of a gateway; without faketime they are skipped.
if [[ -z "${FAKETIME:-}" ]] && ! command -v faketime >/dev/null; then
    if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
        echo "tests/run.sh: installing faketime"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends faketime; } \
            || echo "tests/run.sh: cannot install faketime; the tests with another clock are skipped" >&2
    fi
fi

# The tests create virtual environments for the Python example and the Kubernetes schemas.
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
