#!/usr/bin/env bash
# Sets the version of the next release wherever it is written: release/set_version.sh 0.2.0. A preview is 0.2.0-rc.1 (or alpha, beta). The
# changelog's section *Unreleased* becomes that of the version, with today's date. With --check, prints the lines with another version than
# Cargo.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "release/set_version.sh: $*" >&2
    exit 1
}

# A preview's names are fixed, as an archive's name continues after the version.
number='[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)\.[0-9]+)?'
# What stands before a version of importguard. Versions of dependencies stand elsewhere.
ours='(importguard[a-z-]*[:-]|newTag: |kubernetes\.io/version: |^appVersion: |^version: |ARG VERSION=|download/v|^ +"version": ")'
# Every file with one. Tests have versions that nobody released, the changelog those that were, and packages of Node their own.
mapfile -t files < <(git grep --files-with-matches --extended-regexp "$ours$number" -- . ':!tests' ':!CHANGELOG.md' ':!*package*.json')
version="${1:?a version, for example 0.2.0, or --check}"

if [[ "$version" == --check ]]; then
    version="$(release/version.sh)"
    stale="$(for file in "${files[@]}"; do
        sed -E "s,$ours$number,\1$version,g" "$file" \
            | diff --old-line-format= --unchanged-line-format= --new-line-format="$file:%dn:%L" - "$file" || true
    done)"
    [[ -z "$stale" ]] || fail "Cargo.toml has version $version, but not these lines:"$'\n'"$stale"
    exit
fi
[[ "$version" =~ ^$number$ ]] || fail "$version is neither like 0.2.0 nor like 0.2.0-rc.1"
grep --quiet '^## Unreleased$' CHANGELOG.md || fail "CHANGELOG.md has no section Unreleased; after a preview, add one for the release"

# The other versions in it are those of dependencies.
sed -i "0,/^version = \".*\"/s//version = \"$version\"/" Cargo.toml
sed -i -E "s,$ours$number,\1$version,g" "${files[@]}"
sed -i "s/^## Unreleased$/## $version - $(date --utc +%F)/" CHANGELOG.md
# The workspace's own crates in the lock files, and nothing else.
cargo update --workspace --offline --quiet
(cd fuzz && cargo update --workspace --offline --quiet)
git status --short
