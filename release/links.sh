#!/usr/bin/env bash
# A filter: makes links of Markdown that are relative to the repository's root absolute, to the tag of VERSION, for what is read elsewhere:
# release/links.sh 0.1.0 <README.md
set -euo pipefail

version="${1:?a version, for example 0.1.0}"
repository=https://github.com/importguard/importguard/blob
# Those with a colon have a scheme, those that begin with # stay on the page.
sed -E "s|\]\(([^):# ]+)(#[^) ]*)?\)|](${repository}/v$version/\1\2)|g"
