#!/usr/bin/env bash
# Checks the shell scripts (shellcheck) and the workflows in .github (actionlint, and that they name actions by commit). What is not
# installed and cannot be is skipped with a line that says so.
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

# A tag can be moved to other code, which would then run with the permissions of a release. Dependabot keeps commit and comment current.
if git grep --line-number 'uses: [^.]' -- .github/workflows | grep --invert-match --extended-regexp '@[0-9a-f]{40} # v[0-9.]+$'; then
    echo "tests/scripts.sh: the actions above are not named by commit and version: owner/name@COMMIT # v1.2.3" >&2
    exit 1
fi
