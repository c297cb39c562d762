#!/usr/bin/env bash
# Checks that TAG can be released: release/version.sh v0.1.0. Prints `version=0.1.0`. Fails if the workspace has another version, the
# changelog has no section for it, a file still names another one, or the commit is not on main.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tag="${1:?a tag, for example v0.1.0}"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"

fail() {
    echo "release/version.sh: $*" >&2
    exit 1
}

[[ "$tag" == "v$version" ]] || fail "the tag is $tag, but Cargo.toml has version $version"
[[ "$version" =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || fail "$version is no semantic version"
grep -qE "^## ${version//./\\.}( |$)" CHANGELOG.md || fail "CHANGELOG.md has no section for $version"
release/set_version.sh --check || fail "run release/set_version.sh"
main="$(git rev-parse --verify --quiet origin/main || git rev-parse --verify main)"
git merge-base --is-ancestor HEAD "$main" || fail "the commit is not on main"
echo "version=$version"
