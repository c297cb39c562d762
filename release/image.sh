#!/usr/bin/env bash
# Builds an image for one platform and pushes it by digest, without a tag: release/image.sh IMAGE PLATFORM SUFFIX. CONTEXTS has the bases'
# digests (release/bases.sh), VERSION the version; target/dist has the third-party notices. Writes the digest to target/digests. With
# PUSH=false, it only builds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

image="${1:?importguard, importguard-gateway or importguard-decider}"
platform="${2:?for example linux/amd64}"
suffix="${3:?for example amd64}"
stage="${image#importguard-}"
name="ghcr.io/${GITHUB_REPOSITORY_OWNER:-importguard}/$image"

contexts=()
for context in ${CONTEXTS:?}; do
    contexts+=(--build-context "$context")
done
auditable="$(sed -n 's/.*cargo-auditable) version=\([0-9.]*\).*/\1/p' tests/tool.sh)"

metadata="$(mktemp)"
docker buildx build . --target "$stage" --platform "$platform" "${contexts[@]}" \
    --build-context notices=target/dist \
    --build-arg VERSION="${VERSION:?}" --build-arg REVISION="$(git rev-parse HEAD)" --build-arg AUDITABLE="${auditable:?}" --build-arg PGO=yes \
    --provenance mode=max --sbom true \
    --output "type=image,name=$name,push-by-digest=true,name-canonical=true,push=${PUSH:-true}" \
    --metadata-file "$metadata"
mkdir -p target/digests
jq --raw-output '."containerimage.digest"' "$metadata" >"target/digests/$image-$suffix"
cat "target/digests/$image-$suffix"
