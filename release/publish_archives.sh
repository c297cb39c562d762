#!/usr/bin/env bash
# Signs what is in target/dist without keys (the identity is the workflow's), and publishes it as the release of VERSION with that section
# of the changelog.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version="${VERSION:?}"
preview=()
[[ "$version" != *-* ]] || preview=(--prerelease)
notes="$(awk -v version="$version" '/^## / { on = $2 == version; next } on' CHANGELOG.md | release/links.sh "$version")"

cd target/dist
sha256sum -- *.tar.gz *.cdx.json >SHA256SUMS
for file in *.tar.gz *.cdx.json SHA256SUMS; do
    cosign sign-blob --yes --bundle "$file.sigstore.json" "$file"
done
gh release create "v$version" --verify-tag --title "importguard $version" --notes "$notes" "${preview[@]}" -- *
