use std::time::Duration;

use tokio::time::Instant;

/// When a request arrived, and when its answer is due.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
}

impl Clock {
    pub(super) fn start(budget: Duration) -> Self {
        let arrived = Instant::now();
        Self {
            arrived,
            deadline: arrived + budget,
        }
    }

    pub(super) fn elapsed(self) -> Duration {
        self.arrived.elapsed()
    }

    pub(super) fn left(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The same arrival with an answer due after `patience` from now, if that is earlier.
    pub(super) fn within(self, patience: Duration) -> Self {
        Self {
            deadline: self.deadline.min(Instant::now() + patience),
            ..self
        }
    }
}
