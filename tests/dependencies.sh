#!/usr/bin/env bash
# Checks the dependencies by deny.toml: licences, banned crates, sources, and known vulnerabilities. The advisory database needs
# network; without it, that check is skipped with a line that says so, or fails if CI=strict.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! deny="$(tests/tool.sh cargo-deny)"; then
    echo "SKIPPED: dependencies are not checked, as cargo-deny cannot be built" >&2
    [[ "${CI:-}" != strict ]]
    exit
fi

"$deny" --locked check --hide-inclusion-graph bans licenses sources

if timeout 120 "$deny" --locked fetch db; then
    "$deny" --locked check --hide-inclusion-graph advisories
else
    echo "SKIPPED: known vulnerabilities are not checked, as the advisory database cannot be reached" >&2
    [[ "${CI:-}" != strict ]]
fi
