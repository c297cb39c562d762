use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span};

const SECOND: Duration = Duration::from_secs(1);

/// A rate limit: at most so many per second.
#[derive(Debug)]
pub struct PerSecond {
    at_most: u32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    taken: u32,
}

impl PerSecond {
    /// A limit of `at_most` per second.
    pub fn new(at_most: u32) -> Self {
        Self {
            at_most,
            window: Mutex::new(Window {
                began: Instant::now(),
                taken: 0,
            }),
        }
    }

    /// Takes one of this second's permits, if one is left.
    pub fn take(&self) -> bool {
        let now = Instant::now();
        let mut window = self.window.lock();
        if now.duration_since(window.began) >= SECOND {
            *window = Window {
                began: now,
                taken: 0,
            };
        }
        let left = window.taken < self.at_most;
        window.taken += u32::from(left);
        left
    }
}

/// Summarises frequent occurrences in one log line per second.
#[derive(Clone, Debug, Default)]
pub struct Summary(Arc<AtomicU64>);

impl Summary {
    /// Counts one. After the first since the last line, calls `write` with their number a second later.
    pub fn count(&self, write: impl FnOnce(u64) + Send + 'static) {
        if self.0.fetch_add(1, Relaxed) > 0 {
            return;
        }
        let counted = Arc::clone(&self.0);
        let line = async move {
            sleep(SECOND).await;
            write(counted.swap(0, Relaxed));
        };
        // It belongs to no single callback.
        tokio::spawn(line.instrument(Span::none()));
    }
}

/// Maximum number of log lines per second for occurrences of one kind: enough to identify the peers, too few to flood the log.
const LINES_PER_SECOND: u32 = 20;

/// Logs occurrences that peers can cause: one line each, or one line per second for the rest of a flood.
#[derive(Debug)]
pub struct Flood {
    lines: PerSecond,
    rest: Summary,
}

impl Default for Flood {
    fn default() -> Self {
        Self {
            lines: PerSecond::new(LINES_PER_SECOND),
            rest: Summary::default(),
        }
    }
}

impl Flood {
    /// Counts one. Calls `line` for it, or `rest` with the number of those without a line, as [`Summary::count`] does.
    pub fn count(&self, line: impl FnOnce(), rest: impl FnOnce(u64) + Send + 'static) {
        if self.lines.take() {
            line();
        } else {
            self.rest.count(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_second_has_its_own_permits() {
        let allowed = PerSecond::new(2);
        for _ in 0..3 {
            assert!(allowed.take());
            assert!(allowed.take());
            assert!(!allowed.take());
            tokio::time::advance(Duration::from_millis(999)).await;
            assert!(!allowed.take());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }
}
