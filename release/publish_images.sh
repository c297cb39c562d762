#!/usr/bin/env bash
# Joins the architectures of each image, pushes the result by digest and signs it without keys (the identity is the workflow's).
# target/digests has the digests (release/image.sh). Prints `images=IMAGE@DIGEST …`, for release/tag_images.sh, and `IMAGE=DIGEST` lines.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

owner="${GITHUB_REPOSITORY_OWNER:-importguard}"
images=()
for image in importguard importguard-gateway importguard-decider; do
    name="ghcr.io/$owner/$image"
    sources=()
    for suffix in amd64 arm64; do
        sources+=("$name@$(<"target/digests/$image-$suffix")")
    done
    # Nobody pulls an image that has no tag: it gets one when it is signed and the release exists.
    index="$(docker buildx imagetools create --dry-run "${sources[@]}")"
    digest="sha256:$(printf %s "$index" | sha256sum | cut --delimiter=' ' --fields=1)"
    docker buildx imagetools create --tag "$name@$digest" "${sources[@]}" >&2
    digest="$(release/digest.sh "$name@$digest")"
    # With --recursive, the bill of materials and the provenance of each architecture are signed too: BuildKit puts them into the index.
    cosign sign --yes --recursive "$name@$digest" >&2
    echo "$image=$digest"
    images+=("$image@$digest")
done
echo "images=${images[*]}"
