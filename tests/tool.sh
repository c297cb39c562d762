#!/usr/bin/env bash
# Prints the path of a tool that tests, checks, documents or releases the project: tests/tool.sh NAME. One that is not on the PATH in the
# version below is built into target/tools, once. Progress goes to standard error; exit code 1 if the tool cannot be built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name="${1:?a tool, such as cargo-deny}"
# Of a tool that is written in Go.
package=""
features=()
# A debug build takes a third of the time, and most of these tools run for seconds.
profile=(--debug)
case "$name" in
    cargo-deny) version=0.20.2 ;;
    # It compares each file of each crate with every known licence, in which a debug build did not end within seven minutes.
    cargo-about) version=0.9.3 features=(--features cli) profile=() ;;
    cargo-auditable) version=0.7.7 ;;
    cargo-cyclonedx) version=0.5.9 ;;
    cargo-fuzz) version=0.13.2 ;;
    mdbook) version=0.5.4 ;;
    mdbook-mermaid) version=0.17.1 ;;
    actionlint) version=1.7.12 package=github.com/rhysd/actionlint/cmd/actionlint ;;
    docker-compose) version=2.40.3 package=github.com/docker/compose/v2 ;;
    helm) version=3.22.0 package=helm.sh/helm/v3/cmd/helm ;;
    kubeconform) version=0.8.0 package=github.com/yannh/kubeconform/cmd/kubeconform ;;
    nats-server) version=2.15.3 package=github.com/nats-io/nats-server/v2 ;;
    *) echo "tests/tool.sh: no tool $name" >&2; exit 2 ;;
esac

tools="$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")"
# The version is part of the path, so that another one is built when it changes.
root="$tools/$name-$version"
file="$root/bin/$name"

is_current() {
    command -v "$name" >/dev/null && "$name" --version 2>/dev/null | grep -qF "$version"
}

build() {
    if [[ -z "$package" ]]; then
        # They share their dependencies.
        CARGO_TARGET_DIR="$tools/build" CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 \
            cargo install --quiet "${profile[@]}" --locked --root "$root" "${features[@]}" "$name@$version"
    elif ! command -v go >/dev/null; then
        echo "tests/tool.sh: $name needs Go"
        return 1
    elif [[ "$name" == docker-compose ]]; then
        build_compose
    else
        GOBIN="$root/bin" go install "$package@v$version"
    fi
}

# Its module has replacements, so that `go install` refuses it; and Go does not build in its cache of modules.
build_compose() {
    local source
    source="$(GOWORK=off go mod download -json "$package@v$version" | sed -n 's/.*"Dir": "\(.*\)",*$/\1/p')"
    mkdir -p "$root/source"
    cp -r "${source:?}/." "$root/source"
    chmod -R u+w "$root/source"
    (cd "$root/source" && GOWORK=off go build -o "$file" ./cmd)
    rm -rf "$root/source"
}

if [[ ! -x "$file" ]]; then
    if is_current; then
        command -v "$name"
        exit 0
    fi
    echo "tests/tool.sh: building $name $version" >&2
    build >&2
    # cargo install succeeds with a warning if a crate has no program in these features.
    [[ -x "$file" ]] || { echo "tests/tool.sh: $name $version has no program" >&2; exit 1; }
fi
echo "$file"
