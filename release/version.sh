#!/usr/bin/env bash
# Prints the workspace's version. With a tag, checks first that it can be released: release/version.sh v0.1.0 fails if the workspace has
# another version, the changelog has no section for it, a file still names another one, the commit is not on main, or the release exists.
# That needs gh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
if [[ $# == 0 ]]; then
    echo "$version"
    exit
fi
tag="$1"

fail() {
    echo "release/version.sh: $*" >&2
    exit 1
}

[[ "$tag" == "v$version" ]] || fail "the tag is $tag, but Cargo.toml has version $version"
[[ "$version" =~ ^[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)\.[0-9]+)?$ ]] || fail "$version is neither like 0.2.0 nor like 0.2.0-rc.1"
grep -qE "^## ${version//./\\.}( |$)" CHANGELOG.md || fail "CHANGELOG.md has no section for $version"
release/set_version.sh --check || fail "run release/set_version.sh"
main="$(git rev-parse --verify --quiet origin/main || git rev-parse --verify main)"
git merge-base --is-ancestor HEAD "$main" || fail "the commit is not on main"
# A run that is repeated must not replace what was published.
releases="$(gh release list --limit 1000 --json tagName --jq '.[].tagName')" || fail "GitHub does not list the releases"
if grep --quiet --line-regexp --fixed-strings -- "$tag" <<<"$releases"; then
    fail "$tag is released already; releases are never changed"
fi
echo "$version"
