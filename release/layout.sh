#!/usr/bin/env bash
# Moves what a callback executes together, in the programs importguard-gateway and importguard-decider of a directory, and removes the
# relocations from these and from importguard:
#
#   release/layout.sh target/release BENCH
#
# BENCH is the program importguard-bench, which runs the programs so that LLVM's BOLT sees what they execute. They must have been linked
# with -Clink-arg=-Wl,--emit-relocs. On top of a trained build (release/profile.sh) this takes a sixth less CPU a decision
# (bench/README.md).
#
# Needs objcopy, llvm-bolt (Debian: apt-get install bolt-19) and nats-server. On other processors than x86-64, where BOLT was not tried, only
# the relocations are removed.
set -euo pipefail

dir="${1:?the directory of the programs}"
bench="${2:?the program importguard-bench}"
programs=(importguard-gateway importguard-decider)

# The benchmark runs gateway and decider, not both in one process. Relocations are a third of a program.
objcopy --remove-relocations='*' "$dir/importguard"
if [[ "$(uname -m)" != x86_64 ]]; then
    for program in "${programs[@]}"; do
        objcopy --remove-relocations='*' "$dir/$program"
    done
    exit 0
fi
# BOLT searches its library beside the path by which it was called, and Debian's is a link.
bolt="$(readlink -f "$(command -v llvm-bolt llvm-bolt-19 | head -n 1)" || true)"
[[ -x "$bolt" ]] || {
    echo "release/layout.sh: there is no llvm-bolt; install it (Debian: apt-get install bolt-19)" >&2
    exit 1
}

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$work/counting" "$work/counts" "$work/ordered"

# Runs BOLT, which says a lot, and shows it if it fails: run NAME ARGUMENT...
run() {
    "$bolt" "${@:2}" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        echo "release/layout.sh: BOLT cannot process $1" >&2
        exit 1
    }
}

for program in "${programs[@]}"; do
    run "$program" "$dir/$program" -instrument -o "$work/counting/$program" \
        --instrumentation-file="$work/counts/$program" --instrumentation-file-append-pid
done
"$bench" --only importguard --rounds 1 --seconds 5 --bin-dir "$work/counting" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
for program in "${programs[@]}"; do
    # Each process writes its counts when it ends.
    "$(dirname "$bolt")/merge-fdata" "$work/counts/$program".*.fdata >"$work/counts/$program.all" 2>"$work/log" || {
        cat "$work/log" >&2
        exit 1
    }
    run "$program" "$dir/$program" -o "$work/ordered/$program" -data "$work/counts/$program.all" \
        -reorder-blocks=ext-tsp -reorder-functions=cdsort -split-functions -split-all-cold -split-eh -icf=1 -use-gnu-stack
    "$work/ordered/$program" --version >/dev/null
done
mv "$work/ordered"/* "$dir"
