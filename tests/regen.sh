#!/usr/bin/env bash
# Writes every generated file anew: schemas, the page of settings, and what else a test compares with its source. Those tests
# write the file when UPDATE=1; the names of new ones end in `_is_current`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/usr/local/bin"

# Older names are listed.
UPDATE=1 cargo test --quiet --workspace --locked --lib --test e2e -- is_current the_handbook_has_every_setting \
    the_prometheus_operator_gets_the_same_rules the_chart_has_copies
# The fuzz targets are a workspace of their own, with the same dependencies.
(cd fuzz && cargo metadata --format-version 1 >/dev/null)
git status --short
