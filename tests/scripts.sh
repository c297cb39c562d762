#!/usr/bin/env bash
# Checks the shell scripts (shellcheck) and the workflows in .github (actionlint). What is not installed and cannot be is skipped with a
# line that says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v shellcheck >/dev/null && [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
    echo "tests/scripts.sh: installing shellcheck" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends shellcheck >/dev/null; } || true
fi
if command -v shellcheck >/dev/null; then
    git ls-files -z '*.sh' .ci | xargs -0 shellcheck
else
    echo "SKIPPED: the shell scripts are not checked, as shellcheck is not installed" >&2
fi

# It uses shellcheck for what the workflows run.
if actionlint="$(tests/tool.sh actionlint)"; then
    "$actionlint"
else
    echo "SKIPPED: the workflows in .github are not checked, as actionlint cannot be built" >&2
fi
