//! The power goes while callbacks are answered, and nothing that was answered is lost.
//!
//! strace records what the gateway (for the spool) or nats-server does to its files. From the recording `disk` makes what may be on
//! the disk after a power cut at any moment: what was synced, and any part of what was not. The real program is then started on
//! that, and asked what it has. The suite tries some moments; `tests/power_cut.sh` two hundred of each kind.

// A helper that finds something else than it expects stops its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A long run is not silent.
#![allow(clippy::print_stderr)]

#[path = "../e2e/asserts.rs"]
#[allow(dead_code, reason = "the other tests say more")]
mod asserts;
mod callers;
mod disk;
mod nats;
mod recording;
mod spool;

use std::{env, path::PathBuf};

use tokio::sync::{Mutex, MutexGuard};

use self::callers::Answers;

/// Has these tests take turns: each needs a gateway that answers as fast as it is asked.
async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// How many power cuts a test simulates.
fn cuts() -> usize {
    let cuts = env::var("IMPORTGUARD_POWER_CUTS").ok();
    cuts.map_or(10, |cuts| cuts.parse().expect("a number of power cuts"))
}

/// How many of them share a recording.
const CUTS_A_RECORDING: usize = 50;

/// The source of the random moments; printed, so that a failure can be repeated.
fn random() -> fastrand::Rng {
    let seed = env::var("IMPORTGUARD_POWER_CUT_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a seed"));
    eprintln!("power cuts: IMPORTGUARD_POWER_CUT_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Fails if something is `lost`, and says where what was on the disk at the `cut` is kept.
fn complain(lost: &[&str], answers: &Answers, cut: f64, keep: impl FnOnce() -> PathBuf) {
    if lost.is_empty() {
        return;
    }
    let answered = answers.values().filter(|at| **at <= cut).count();
    panic!(
        "{} of {answered} answered events are gone after a power cut at {cut:.6}, the first is {}: {} has the disk's content",
        lost.len(),
        lost[0],
        keep().display()
    );
}
