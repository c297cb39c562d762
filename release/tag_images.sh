#!/usr/bin/env bash
# Gives the signed images of a release their tags: VERSION, and `latest` if GitHub marks this release as the latest one
# (release/publish_archives.sh). IMAGES has IMAGE@DIGEST for each (release/publish_images.sh).
set -euo pipefail

version="${VERSION:?}"
owner="${GITHUB_REPOSITORY_OWNER:-importguard}"
latest="$(gh release list --limit 1000 --json tagName,isLatest --jq '.[] | select(.isLatest).tagName')"
for image in ${IMAGES:?}; do
    name="ghcr.io/$owner/${image%@*}"
    tags=(--tag "$name:$version")
    [[ "$latest" != "v$version" ]] || tags+=(--tag "$name:latest")
    docker buildx imagetools create "${tags[@]}" "$name@${image#*@}"
done
