#!/usr/bin/env bash
# Runs at half of the gateway's capacity for ten minutes (or the minutes given), with a fault every ten seconds: deciders and NATS are
# killed and frozen, policies and certificates replaced. Fails on a lost event, an unanswered request, a wrong verdict, or growing memory.
# Uses release builds; nothing else should run on the machine. IMPORTGUARD_SOAK_SEED repeats a sequence of faults.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/usr/local/bin"
IMPORTGUARD_SOAK_SECONDS=$((${1:-10} * 60)) exec cargo test --release --locked -p importguard-tests --test load -- --nocapture soak::
