#!/usr/bin/env bash
# Writes the licences of everything that the three programs contain to target/dist/THIRD-PARTY-NOTICES.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=target/dist/THIRD-PARTY-NOTICES.txt
mkdir -p "$(dirname "$out")"
# Without examples, tests and benchmarks, which are workspace members too.
"$(tests/tool.sh cargo-about)" generate --locked --fail --config release/about.toml --output-file "$out" \
    --manifest-path Cargo.toml release/notices.hbs
# An empty list would satisfy nobody's licence.
[[ "$(grep -c '^=====' "$out")" -ge 5 ]]
echo "$out"
