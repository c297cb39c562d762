//! Whether NATS still recognises what was published before, by its own memory of ids.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::spool::lock;

/// Since when events may have been published whose acks did not come.
#[derive(Debug)]
pub(super) struct Attempts(Mutex<First>);

#[derive(Clone, Copy, Debug)]
enum First {
    /// Another process may have published some.
    Unknown,
    /// There are none.
    Never,
    /// By two clocks: the one stands still while the machine sleeps, the other can be set.
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

    /// Something is about to be published, or was `ago`.
    pub(super) fn note(&self, ago: Duration) {
        let mut first = lock(&self.0);
        if let First::Never = *first {
            let (steady, wall) = (Instant::now(), SystemTime::now());
            *first = First::At {
                steady: steady.checked_sub(ago).unwrap_or(steady),
                wall: wall.checked_sub(ago).unwrap_or(wall),
            };
        }
    }

    /// Nothing waits in the spool any more.
    pub(super) fn settle(&self) {
        *lock(&self.0) = First::Never;
    }

    /// All of them were within `window`, by every clock. No where that is in doubt.
    pub(super) fn are_within(&self, window: Duration) -> bool {
        match *lock(&self.0) {
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
