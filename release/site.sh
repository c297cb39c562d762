#!/usr/bin/env bash
# Builds the documentation's site in target/book with mdBook.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

repository=https://github.com/importguard/importguard/blob/main
mdbook="$(tests/tool.sh mdbook)"
"$mdbook" build

# Pages link to files outside docs/, which are in the repository but not on the site. mdBook has made .html of their .md.
find target/book -name '*.html' -exec sed -i -E \
    -e 's#href="\.\./([^"]*)\.html([^"]*)"#href="../\1.md\2"#g' \
    -e "s#href=\"\.\./([^\"]*)\"#href=\"$repository/\1\"#g" {} +
echo "target/book/index.html"
