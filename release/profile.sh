#!/usr/bin/env bash
# Trains the compiler: builds the programs so that they count what they execute, runs the benchmark on them, and writes what they counted to
# target/pgo/importguard.profdata. Builds that use it take a quarter less CPU a decision (bench/README.md):
#
#   release/profile.sh
#   CARGO_ENCODED_RUSTFLAGS="-Cprofile-use=$PWD/target/pgo/importguard.profdata" cargo build --release --locked \
#       -p importguard-gateway -p importguard-decider -p importguard
#
# cargo puts the packages that are built, their directory and a --target into the names of functions: a build that differs in one of them
# finds nothing in the profile. AUDITABLE is set if that build is one by cargo-auditable.
#
# Needs llvm-profdata (rustup component add llvm-tools) and nats-server; takes a quarter of an hour or more. The profile is of use only to
# the compiler and the sources that it was made with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dir="$PWD/target/pgo"
profile="$dir/importguard.profdata"
host="$(rustc -vV | sed -n 's/^host: //p')"
profdata="$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata"
if [[ ! -x "$profdata" ]]; then
    echo "release/profile.sh: there is no llvm-profdata of this compiler; install it with: rustup component add llvm-tools" >&2
    exit 1
fi
if [[ -z "${NATS_SERVER:-}" ]] && ! PATH="$PATH:/usr/sbin" command -v nats-server >/dev/null; then
    echo "release/profile.sh: there is no nats-server; install it (Debian: apt-get install nats-server) or set NATS_SERVER" >&2
    exit 1
fi

rm -rf "$dir/raw" "$profile"
# Encoded, as a path may have spaces.
CARGO_ENCODED_RUSTFLAGS="-Cprofile-generate=$dir/raw" CARGO_INCREMENTAL=0 \
    cargo ${AUDITABLE:+auditable} build --release --locked --target-dir "$dir/counting" -p importguard-gateway -p importguard-decider -p importguard
# The load need not be fast to build, nor to run.
CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_INCREMENTAL=0 \
    cargo build --release --locked --target-dir "$dir" -p importguard-bench
# What build scripts and macros have counted.
rm -rf "$dir/raw"

# HTTP/1.1 and HTTP/2, few and many friends, more than there is capacity for, and NATS away.
bench() {
    "$dir/release/importguard-bench" "$@" --bin-dir "$dir/counting/release" >"$dir/bench.log" 2>&1 || {
        cat "$dir/bench.log" >&2
        exit 1
    }
}
bench --only importguard --rounds 2 --seconds 5
bench overload --rounds 1 --seconds 3 --overload-seconds 6
bench drain --rounds 1 --seconds 2

"$profdata" merge --output "$profile" "$dir"/raw/*.profraw
rm -rf "$dir/raw"
echo "$profile"
