#!/usr/bin/env bash
# Builds the archive of a release in target/dist: release/archive.sh TARGET, for example x86_64-unknown-linux-musl. It has the three
# programs without dependencies on libraries, the sample policy, the licences, and a bill of materials (CycloneDX) beside it. The programs
# carry the list of their dependencies too (cargo auditable). Nothing in it depends on the directory or the time of the build.
#
# With a target that ends in -gnu, the C library is linked statically: for trials where the standard library for musl cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target="${1:?a target, for example x86_64-unknown-linux-musl}"
version="$(release/version.sh)"
name="importguard-$version-$target"
dist=target/dist
programs=(importguard importguard-gateway importguard-decider)
# The time of the bill of materials, of the archive's files, and of mimalloc's build, which is in the programs (__DATE__).
SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)"
export SOURCE_DATE_EPOCH

auditable="$(tests/tool.sh cargo-auditable)"
cyclonedx="$(tests/tool.sh cargo-cyclonedx)"
release/notices.sh

# For what is written in C.
if [[ "$target" == *-musl ]] && command -v musl-gcc >/dev/null; then
    export "CC_${target//-/_}=musl-gcc"
fi

# Panics name source files; those names must not depend on where this is built. Separated by a character that no path has.
flags=(-C target-feature=+crt-static "--remap-path-prefix=$PWD=/importguard" "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo")
encoded="$(printf '%s\x1f' "${flags[@]}")"

# cargo finds its subcommands on the PATH.
PATH="$(dirname "$auditable"):$PATH" CARGO_ENCODED_RUSTFLAGS="${encoded%?}" CARGO_INCREMENTAL=0 \
    cargo auditable build --release --locked --target-dir target --target "$target" "${programs[@]/#/--package=}"

rm -rf "${dist:?}/$name"
mkdir -p "$dist/$name"
for program in "${programs[@]}"; do
    file="target/$target/release/$program"
    # Not in a pipe, where a missing readelf would look like a static program.
    dynamic="$(readelf --dynamic "$file")"
    if grep NEEDED <<<"$dynamic"; then
        echo "release/archive.sh: $program needs the libraries above" >&2
        exit 1
    fi
    cp "$file" "$dist/$name/"
done
cp -r policy LICENSE "$dist/THIRD-PARTY-NOTICES.txt" "$dist/$name/"
for page in README.md CHANGELOG.md; do
    release/links.sh "$version" <"$page" >"$dist/$name/$page"
done
# It is of use with the manifests for Kubernetes only.
rm "$dist/$name/policy/kustomization.yaml"

# Written beside each manifest; the one of the root has both parts as dependencies.
"$cyclonedx" cyclonedx --format json --target "$target" --override-filename sbom --quiet
sed "s|file://$PWD|file:///importguard|g" sbom.json >"$dist/$name.cdx.json"
find . -name sbom.json -not -path './target/*' -delete

# The same bytes from the same commit.
tar --create --gzip --file "$dist/$name.tar.gz" --directory "$dist" --sort=name --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" "$name"
(cd "$dist" && sha256sum "$name.tar.gz" "$name.cdx.json" >"$name.sha256")
echo "$dist/$name.tar.gz"
