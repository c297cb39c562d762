#!/usr/bin/env bash
# Simulates 200 power cuts (or as many as given) at random moments under 300 callbacks a second, for the spool and for nats-server. Fails on
# an event that was answered and is gone. Needs strace and a nats-server from 2.10 on, which NATS_SERVER_CURRENT can name. About ten
# minutes; IMPORTGUARD_POWER_CUT_SEED repeats the moments.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/usr/local/bin"
IMPORTGUARD_POWER_CUTS="${1:-200}" exec cargo test --locked -p importguard-tests --test power_cut -- --nocapture --test-threads=1
