#!/usr/bin/env bash
# Runs every fuzz target for a while: fuzz/run.sh [seconds for each, default 60] [target …]. Works with stable Rust and a C++
# compiler; installs cargo-fuzz if it is not there. Ends with an error where something was found, and says which input does it.
# What was learnt stays in fuzz/corpus/, which is not kept in git, unlike the seeds to start from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds="${1:-60}"
shift || true
targets=("$@")
if [[ ${#targets[@]} == 0 ]]; then
    targets=(request_body request_head connection policy expression event)
fi

export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
if ! command -v cargo-fuzz >/dev/null; then
    echo "fuzz/run.sh: installing cargo-fuzz"
    cargo install cargo-fuzz --locked
fi

# Sanitizers want a nightly compiler, and what they find is what safe Rust rules out. Coverage works without.
cargo fuzz build --sanitizer none

found=()
for target in "${targets[@]}"; do
    printf '\n==> %s, %s seconds\n' "$target" "$seconds"
    mkdir -p "corpus/$target"
    # An input that takes 10 seconds or 2 GB is a finding too.
    cargo fuzz run --sanitizer none "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 \
        -dict="dictionaries/$target" -print_final_stats=1 || found+=("$target")
done

if [[ ${#found[@]} -gt 0 ]]; then
    echo "fuzz/run.sh: found something in: ${found[*]}. The inputs:" >&2
    for target in "${found[@]}"; do
        find "$PWD/artifacts/$target" -type f >&2
    done
    exit 1
fi
printf '\n==> nothing found\n'
