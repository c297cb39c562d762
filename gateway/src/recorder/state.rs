//! The recorder's three states and the moves between them.
//!
//! ```text
//!  Spooling ──── NATS accepts events ───────▶ Draining ── none waits ───▶ Streaming
//!     ▲ ▲                                      │     ▲                      │    │
//!     │ └───────────── NATS failed ────────────┘     └── an event waits ────┘    │
//!     └──────────────────────────────── NATS failed ─────────────────────────────┘
//! ```
//!
//! NATS counts as accepting events if the stream is usable and the oldest waiting event, if there is one, did not fail. Any task may report
//! a failure; only the drain moves towards streaming. Events that NATS refuses while it accepts others do not wait: they are parked, which
//! is not a failure.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Serialize;
use strum::{EnumIter, IntoStaticStr};
use tokio::sync::Notify;

/// Where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr, EnumIter)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum State {
    /// NATS accepts events and none waits in the spool: events go to NATS.
    Streaming,
    /// NATS is unreliable: every event goes directly to the spool.
    Spooling,
    /// NATS accepts events again: new events go to NATS while the spool is published as well.
    Draining,
}

impl State {
    /// The state's name in metrics and logs.
    pub fn into_str(self) -> &'static str {
        self.into()
    }

    fn from_bits(word: u64) -> Self {
        match word & STATE_MASK {
            0 => Self::Spooling,
            1 => Self::Draining,
            _ => Self::Streaming,
        }
    }

    const fn bits(self) -> u64 {
        match self {
            Self::Spooling => 0,
            Self::Draining => 1,
            Self::Streaming => 2,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.into_str())
    }
}

/// Three states need two bits; the rest of the word counts outages.
const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;

/// The state before a publication. A failure counts only if the outage count has not changed, so that acks that time out long after NATS
/// has recovered do not end streaming again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observed(u64);

impl Observed {
    pub(super) fn state(self) -> State {
        State::from_bits(self.0)
    }

    fn outages(self) -> u64 {
        self.0 >> STATE_BITS
    }

    fn with(self, state: State) -> u64 {
        (self.0 & !STATE_MASK) | state.bits()
    }
}

/// The current state, in one atomic word that is read once per event.
#[derive(Debug)]
pub(super) struct Machine {
    word: AtomicU64,
    changed: Notify,
}

impl Machine {
    /// Starts in the spooling state. The drain leaves it once NATS accepts events.
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU64::new(State::Spooling.bits()),
            changed: Notify::new(),
        }
    }

    pub(super) fn observe(&self) -> Observed {
        Observed(self.word.load(Ordering::Acquire))
    }

    /// Reports a failed publication that began in the state `seen`. Returns whether it is the first failure of the outage.
    pub(super) fn fail(&self, seen: Observed) -> bool {
        let failed = self
            .word
            .try_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let now = Observed(word);
                let stale = now.outages() != seen.outages();
                (!stale && now.state() != State::Spooling)
                    .then(|| ((now.outages() + 1) << STATE_BITS) | State::Spooling.bits())
            })
            .is_ok();
        if failed {
            self.changed.notify_waiters();
        }
        failed
    }

    /// Makes one of the drain's transitions: from spooling or streaming to draining, or from draining to streaming. Returns `false` if a
    /// publication has failed since `seen`.
    pub(super) fn advance(&self, seen: Observed, to: State) -> bool {
        let moved = self
            .word
            .compare_exchange(seen.0, seen.with(to), Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if moved {
            self.changed.notify_waiters();
        }
        moved
    }

    /// Waits until the state is no longer `from`.
    pub(super) async fn wait_until_left(&self, from: State) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.observe().state() != from {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streaming() -> Machine {
        let machine = Machine::new();
        assert!(machine.advance(machine.observe(), State::Draining));
        assert!(machine.advance(machine.observe(), State::Streaming));
        machine
    }

    #[test]
    fn starts_spooling_and_reaches_streaming_through_draining() {
        let machine = Machine::new();
        assert_eq!(machine.observe().state(), State::Spooling);
        assert_eq!(streaming().observe().state(), State::Streaming);
    }

    #[test]
    fn only_the_first_failure_of_an_outage_tells() {
        let machine = streaming();
        let seen = machine.observe();
        assert!(machine.fail(seen));
        assert!(!machine.fail(seen));
        assert_eq!(machine.observe().state(), State::Spooling);
    }

    #[test]
    fn a_failure_from_before_the_recovery_is_stale() {
        let machine = streaming();
        let before = machine.observe();
        assert!(machine.fail(before));
        assert!(machine.advance(machine.observe(), State::Draining));
        assert!(machine.advance(machine.observe(), State::Streaming));
        assert!(!machine.fail(before));
        assert_eq!(machine.observe().state(), State::Streaming);
    }

    #[test]
    fn a_failure_counts_across_the_drains_own_moves() {
        let machine = streaming();
        let seen = machine.observe();
        assert!(machine.advance(machine.observe(), State::Draining));
        assert!(machine.fail(seen));
    }

    #[test]
    fn the_drain_cannot_advance_over_a_failure() {
        let machine = streaming();
        assert!(machine.advance(machine.observe(), State::Draining));
        let seen = machine.observe();
        assert!(machine.fail(seen));
        assert!(!machine.advance(seen, State::Streaming));
        assert_eq!(machine.observe().state(), State::Spooling);
    }

    #[tokio::test]
    async fn leaving_a_state_wakes_who_waits_for_it() {
        let machine = std::sync::Arc::new(streaming());
        let waiting = tokio::spawn({
            let machine = machine.clone();
            async move { machine.wait_until_left(State::Streaming).await }
        });
        tokio::task::yield_now().await;
        assert!(machine.fail(machine.observe()));
        waiting.await.unwrap();
    }
}
