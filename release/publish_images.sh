#!/usr/bin/env bash
# Joins the architectures of each image under the tag VERSION, and signs the result with its bill of materials, without keys (the identity
# is the workflow's). target/digests has the digests (release/image.sh), target/dist the bills. Prints `IMAGE=DIGEST` lines.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version="${VERSION:?}"
owner="${GITHUB_REPOSITORY_OWNER:-importguard}"
for image in importguard importguard-gateway importguard-decider; do
    name="ghcr.io/$owner/$image"
    sources=()
    for suffix in amd64 arm64; do
        sources+=("$name@$(<"target/digests/$image-$suffix")")
    done
    tags=(--tag "$name:$version")
    # A preview is not what `latest` means.
    [[ "$version" == *-* ]] || tags+=(--tag "$name:latest")
    docker buildx imagetools create "${tags[@]}" "${sources[@]}" >&2
    digest="$(docker buildx imagetools inspect "$name:$version" --format '{{.Manifest.Digest}}')"
    cosign sign --yes --recursive "$name@$digest" >&2
    # Both architectures have the same dependencies.
    cosign attest --yes --type cyclonedx --predicate "target/dist/importguard-$version-x86_64-unknown-linux-musl.cdx.json" "$name@$digest" >&2
    echo "$image=$digest"
done
