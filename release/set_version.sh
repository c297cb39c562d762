#!/usr/bin/env bash
# Sets the version of the next release wherever it is written: release/set_version.sh 0.2.0. The changelog's section *Unreleased* becomes
# that of the version, with today's date. With --check, prints the lines with another version than Cargo.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What stands before a version of importguard. Versions of dependencies stand elsewhere.
ours='(importguard[a-z-]*[:-]|newTag: |kubernetes\.io/version: |^appVersion: |^version: |ARG VERSION=|download/v|^ +"version": ")[0-9]+\.[0-9]+\.[0-9]+'
# Every file with one. Tests have versions that nobody released, the changelog those that were, and packages of Node their own.
mapfile -t files < <(git grep --files-with-matches --extended-regexp "$ours" -- . ':!tests' ':!CHANGELOG.md' ':!*package*.json')
old="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
version="${1:?a version, for example 0.2.0, or --check}"

if [[ "$version" == --check ]]; then
    stale="$(grep --line-number --extended-regexp "$ours" "${files[@]}" | grep --invert-match --fixed-strings "$old" || true)"
    if [[ -n "$stale" ]]; then
        echo "release/set_version.sh: Cargo.toml has version $old, but not these lines:"$'\n'"$stale" >&2
        exit 1
    fi
    exit 0
fi
[[ "$version" =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || { echo "release/set_version.sh: $version is no semantic version" >&2; exit 2; }

pattern="${old//./\\.}"
# The other versions in it are those of dependencies.
sed -i "0,/^version = \"$pattern\"/s//version = \"$version\"/" Cargo.toml
sed -i "s/\b\(v\?\)$pattern\b/\1$version/g" "${files[@]}"
sed -i "s/^## Unreleased$/## $version - $(date --utc +%F)/" CHANGELOG.md
# The workspace's own crates in the lock files, and nothing else.
cargo update --workspace --offline --quiet
(cd fuzz && cargo update --workspace --offline --quiet)
git status --short
