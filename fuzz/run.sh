#!/usr/bin/env bash
# Runs the fuzz targets: fuzz/run.sh [seconds per target, default 60] [target …]. Needs stable Rust and a C++ compiler; builds
# cargo-fuzz if it is missing. Fails if a target finds an input that breaks it, and prints the input's path. The corpus grows in
# fuzz/corpus/, which is not in git; the seeds are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds="${1:-60}"
shift || true
targets=("$@")
if [[ ${#targets[@]} == 0 ]]; then
    targets=(request_body request_head connection policy expression event)
fi

cargo_fuzz="$(../tests/tool.sh cargo-fuzz)"
# cargo finds its subcommands on the PATH.
PATH="$(dirname "$cargo_fuzz"):$PATH"

# Sanitizers need a nightly compiler and find errors that safe Rust rules out. Coverage works without them.
cargo fuzz build --sanitizer none

found=()
for target in "${targets[@]}"; do
    printf '\n==> %s, %s seconds\n' "$target" "$seconds"
    mkdir -p "corpus/$target"
    # An input that takes 10 seconds or 2 GB is a failure too.
    cargo fuzz run --sanitizer none "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 \
        -dict="dictionaries/$target" -print_final_stats=1 || found+=("$target")
done

if [[ ${#found[@]} -gt 0 ]]; then
    echo "fuzz/run.sh: failures in: ${found[*]}. The inputs:" >&2
    for target in "${found[@]}"; do
        find "$PWD/artifacts/$target" -type f >&2
    done
    exit 1
fi
printf '\n==> nothing found\n'
