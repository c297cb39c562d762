#!/usr/bin/env bash
# Writes the licences of everything that the three programs contain to target/dist/THIRD-PARTY-NOTICES.txt: those of the crates, of musl
# (release/notices.hbs) and of the Rust standard library.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=target/dist/THIRD-PARTY-NOTICES.txt
mkdir -p "$(dirname "$out")"
# Without examples, tests and benchmarks, which are workspace members too.
"$(tests/tool.sh cargo-about)" generate --locked --fail --config release/about.toml --output-file "$out" \
    --manifest-path Cargo.toml release/notices.hbs

# The compiler brings a page of its own along.
library="$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html"
[[ -s "$library" ]] || { echo "release/notices.sh: this Rust has no $library; use rustup's" >&2; exit 1; }
{
    printf '\n%s\nThe Rust standard library\n\n' "$(printf '=%.0s' {1..80})"
    sed -n '/<body>/,$p' "$library" | sed -e 's/<[^>]*>//g' -e 's/&lt;/</g; s/&gt;/>/g; s/&quot;/"/g; s/&amp;/\&/g' | cat --squeeze-blank
} >>"$out"

# An empty list would satisfy nobody's licence.
[[ "$(grep -c '^=====' "$out")" -ge 5 ]]
echo "$out"
