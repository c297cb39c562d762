//! Tracks whether NATS still remembers the IDs of all events published before, and so drops duplicates itself.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time since which events may have been published without a received ack.
#[derive(Debug)]
pub(super) struct Attempts(Mutex<First>);

#[derive(Clone, Copy, Debug)]
enum First {
    /// An earlier process may have published some.
    Unknown,
    /// None were published.
    Never,
    /// Time of the first publication, by two clocks: one stops while the machine sleeps, the other can be set.
    At { steady: Instant, wall: SystemTime },
}

impl Attempts {
    pub(super) fn new(has_events: bool) -> Self {
        Self(Mutex::new(if has_events {
            First::Unknown
        } else {
            First::Never
        }))
    }

    /// Records that an event is about to be published, or was published up to `ago` before now.
    pub(super) fn note(&self, ago: Duration) {
        let mut first = self.0.lock();
        if let First::Never = *first {
            let (steady, wall) = (Instant::now(), SystemTime::now());
            *first = First::At {
                steady: steady.checked_sub(ago).unwrap_or(steady),
                wall: wall.checked_sub(ago).unwrap_or(wall),
            };
        }
    }

    /// Forgets all attempts. Call it when no event waits in the spool.
    pub(super) fn settle(&self) {
        *self.0.lock() = First::Never;
    }

    /// Returns whether all attempts were made within `window`, by both clocks. Returns `false` in case of doubt, and if there was no
    /// attempt.
    pub(super) fn are_within(&self, window: Duration) -> bool {
        match *self.0.lock() {
            First::Unknown | First::Never => false,
            First::At { steady, wall } => {
                let by_wall = SystemTime::now().duration_since(wall);
                steady.elapsed() < window && by_wall.is_ok_and(|since| since < window)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn the_first_attempt_counts_until_all_are_settled() {
        let attempts = Attempts::new(false);
        attempts.note(WINDOW * 2);
        attempts.note(Duration::ZERO);
        assert!(!attempts.are_within(WINDOW));
        attempts.settle();
        attempts.note(Duration::ZERO);
        assert!(attempts.are_within(WINDOW));
    }

    #[test]
    fn what_another_process_left_is_in_doubt() {
        let attempts = Attempts::new(true);
        attempts.note(Duration::ZERO);
        assert!(!attempts.are_within(WINDOW));
    }

    #[test]
    fn a_clock_that_was_set_back_or_forward_leaves_doubt() {
        let steady = Instant::now();
        for wall in [SystemTime::now() + WINDOW, SystemTime::now() - WINDOW * 2] {
            let attempts = Attempts(Mutex::new(First::At { steady, wall }));
            assert!(!attempts.are_within(WINDOW));
        }
    }
}
