#!/usr/bin/env bash
# Prints the digest of an image in a registry, an index if it has several architectures: release/digest.sh rust:1.95.0-bookworm. Needs docker
# buildx and network.
set -euo pipefail

image="${1:?an image}"
# buildx before 0.33 takes a format that begins with {{.Manifest for the whole manifest, which it prints as a table.
digest="$(docker buildx imagetools inspect "$image" --format '{{print .Manifest.Digest}}')"
[[ "$digest" =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "release/digest.sh: no digest of $image: $digest" >&2; exit 1; }
echo "$digest"
