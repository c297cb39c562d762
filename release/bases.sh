#!/usr/bin/env bash
# Resolves the base images of Dockerfile to digests, and prints them as `contexts=…` for docker build: the images of all architectures are
# then built from the same bases, whatever happens to the tags. Needs docker buildx and network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

contexts=()
# Stages have no colon in their names.
while read -r image; do
    digest="$(release/digest.sh "$image")"
    echo "$image is $digest" >&2
    contexts+=("$image=docker-image://${image%:*}@$digest")
done < <(sed -n 's/^FROM \([^ ]*:[^ ]*\) .*/\1/p' Dockerfile | sort -u)
[[ ${#contexts[@]} -ge 2 ]]
echo "contexts=${contexts[*]}"
