use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span};

const SECOND: Duration = Duration::from_secs(1);

/// Lets so many a second through, and no more.
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
    /// None was taken yet.
    pub fn new(at_most: u32) -> Self {
        Self {
            at_most,
            window: Mutex::new(Window {
                began: Instant::now(),
                taken: 0,
            }),
        }
    }

    /// Takes one of this second's, if one is left.
    pub fn take(&self) -> bool {
        let now = Instant::now();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Sums up what happens too often for a log line each: one line a second.
#[derive(Clone, Debug, Default)]
pub struct Summary(Arc<AtomicU64>);

impl Summary {
    /// Counts one. The first since the last line has `write` called with their number a second later.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_has_so_many_and_the_next_one_has_them_again() {
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
