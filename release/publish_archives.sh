#!/usr/bin/env bash
# Signs what is in target/dist without keys (the identity is the workflow's), and publishes it as the release of VERSION with that section
# of the changelog. It is the latest release unless it is a preview or a newer one exists.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version="${VERSION:?}"
if [[ "$version" == *-* ]]; then
    kind=--prerelease
else
    released="$(gh release list --exclude-drafts --exclude-pre-releases --limit 1000 --json tagName --jq '.[].tagName')"
    newest="$(printf '%s\n' "$released" "v$version" | sort --version-sort | tail -1)"
    kind="--latest=$([[ "$newest" == "v$version" ]] && echo true || echo false)"
fi
notes="$(awk -v version="$version" '/^## / { on = $2 == version; next } on' CHANGELOG.md | release/links.sh "$version")"

cd target/dist
sha256sum -- *.tar.gz *.cdx.json >SHA256SUMS
for file in *.tar.gz *.cdx.json SHA256SUMS; do
    cosign sign-blob --yes --bundle "$file.sigstore.json" "$file"
done
gh release create "v$version" --verify-tag --title "importguard $version" --notes "$notes" "$kind" -- *
