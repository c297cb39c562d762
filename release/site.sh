#!/usr/bin/env bash
# Builds the documentation's site in target/book with mdBook.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

repository=https://github.com/importguard/importguard/blob/main
mdbook="$(tests/tool.sh mdbook)"
mermaid="$(tests/tool.sh mdbook-mermaid)"

# The reader's browser draws the diagrams, with a script that mdbook-mermaid brings along: the site loads nothing from elsewhere. It is
# not in book.toml, so that `mdbook serve` works without that program, and shows diagrams as text.
scripts=target/mermaid
rm -rf "$scripts"
mkdir -p "$scripts"
echo '[book]' >"$scripts/book.toml"
"$mermaid" install "$scripts" 2>/dev/null
export MDBOOK_PREPROCESSOR__MERMAID__COMMAND="$mermaid"
export MDBOOK_OUTPUT__HTML__ADDITIONAL_JS="[\"$scripts/mermaid.min.js\", \"$scripts/mermaid-init.js\"]"
"$mdbook" build

# It is 2.7 MB, which a page without a diagram should not load.
grep --recursive --files-without-match --null --include='*.html' 'class="mermaid"' target/book \
    | xargs --null --no-run-if-empty sed -i '/<script src="[^"]*mermaid[^"]*"/d'
grep --quiet --recursive --include='*.html' 'class="mermaid"' target/book \
    || { echo "release/site.sh: no page has a diagram" >&2; exit 1; }

# Pages link to files outside docs/, which are in the repository but not on the site. mdBook has made .html of their .md.
find target/book -name '*.html' -exec sed -i -E \
    -e 's#href="\.\./([^"]*)\.html([^"]*)"#href="../\1.md\2"#g' \
    -e "s#href=\"\.\./([^\"]*)\"#href=\"$repository/\1\"#g" {} +
echo "target/book/index.html"
