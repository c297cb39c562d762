#!/usr/bin/env bash
# Prints the path of a tool that checks, documents or releases the project: tests/tool.sh NAME. One that is not on the PATH in the
# version below is built into target/tools, once. What is told meanwhile goes to standard error; exit code 1 if it cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name="${1:?a tool, such as cargo-deny}"
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
    actionlint) version=1.7.12 ;;
    *) echo "tests/tool.sh: no tool $name" >&2; exit 2 ;;
esac

tools="$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")"
# The version is part of the path, so that another one is built when it changes.
file="$tools/$name-$version/bin/$name"

is_current() {
    command -v "$name" >/dev/null && "$name" --version 2>/dev/null | grep -qF "$version"
}

if [[ ! -x "$file" ]]; then
    if is_current; then
        command -v "$name"
        exit 0
    fi
    echo "tests/tool.sh: building $name $version" >&2
    if [[ "$name" == actionlint ]]; then
        command -v go >/dev/null || { echo "tests/tool.sh: $name needs Go" >&2; exit 1; }
        GOBIN="$(dirname "$file")" go install "github.com/rhysd/actionlint/cmd/actionlint@v$version" >&2
    else
        # They share their dependencies.
        CARGO_TARGET_DIR="$tools/build" CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 \
            cargo install --quiet "${profile[@]}" --locked --root "$(dirname "$(dirname "$file")")" "${features[@]}" "$name@$version" >&2
    fi
    # cargo install succeeds with a warning if a crate has no program in these features.
    [[ -x "$file" ]] || { echo "tests/tool.sh: $name $version has no program" >&2; exit 1; }
fi
echo "$file"
