//! What is kept and written about each request: its time, its log lines and its spans.

pub(crate) mod log;
pub(crate) mod span;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::{log::RequestLog, span::RequestResult};

/// A request extension: when the request arrived, and when its response is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) arrived: Instant,
    pub(crate) deadline: Instant,
}

impl Clock {
    pub(crate) fn start(budget: Duration) -> Self {
        let arrived = Instant::now();
        Self {
            arrived,
            deadline: arrived + budget,
        }
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.arrived.elapsed()
    }

    pub(crate) fn left(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}
