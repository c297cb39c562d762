#!/usr/bin/env bash
# Half of what the gateway can, for ten minutes (or as many as are given), with a fault every ten seconds: deciders and NATS killed and
# frozen, policies and certificates exchanged. Fails if an event is lost, a request unanswered, a verdict wrong, or a process grows.
# Release builds, and nothing else should be running beside it. IMPORTGUARD_SOAK_SEED repeats an order of faults.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/usr/local/bin"
IMPORTGUARD_SOAK_SECONDS=$((${1:-10} * 60)) exec cargo test --release --locked -p importguard-tests --test load -- --nocapture soak::
