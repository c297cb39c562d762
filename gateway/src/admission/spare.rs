use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// So many a second, and no more.
#[derive(Debug)]
pub(super) struct Spare {
    per_second: u32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    taken: u32,
}

impl Spare {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            window: Mutex::new(Window {
                began: Instant::now(),
                taken: 0,
            }),
        }
    }

    /// Takes one of this second's, if one is left.
    pub(super) fn take(&self) -> bool {
        let now = Instant::now();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.began) >= Duration::from_secs(1) {
            *window = Window {
                began: now,
                taken: 0,
            };
        }
        let left = window.taken < self.per_second;
        window.taken += u32::from(left);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_has_so_many_and_the_next_one_has_them_again() {
        let spare = Spare::new(2);
        for _ in 0..3 {
            assert!(spare.take());
            assert!(spare.take());
            assert!(!spare.take());
            tokio::time::advance(Duration::from_millis(999)).await;
            assert!(!spare.take());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }
}
