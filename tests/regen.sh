#!/usr/bin/env bash
# Writes every generated file anew: schemas, the page of settings, and what else a test compares with its source. Those tests have names
# that end in `_is_current`, and write the file when UPDATE=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/usr/local/bin"

UPDATE=1 cargo test --quiet --workspace --locked --lib --bins --test e2e -- is_current
# The fuzz targets are a workspace of their own, with the same dependencies.
(cd fuzz && cargo metadata --format-version 1 >/dev/null)
git status --short
