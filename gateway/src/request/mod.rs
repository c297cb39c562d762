//! What is kept and written about each request: its time, its log lines and its spans.

pub(crate) mod log;
pub(crate) mod span;

use std::{sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use importguard_core::OperationId;
use importguard_runtime::Exchange;
use tokio::time::Instant;

pub(crate) use self::{log::RequestLog, span::RequestResult};
use crate::openim::{Rejection, Target};

/// A request extension: the parsed head, for layers, extractors and handlers.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) target: Target,
    pub(crate) operation_id: Result<OperationId, Rejection>,
    /// What the caller sent instead of a usable operationID, where one was generated.
    pub(crate) replaced_operation_id: Option<String>,
    /// Path and query of the original URL: the router sees [`Route::path`](crate::openim::Route::path).
    pub(crate) url: PathAndQuery,
    pub(crate) clock: Clock,
    pub(crate) exchange: Arc<Exchange>,
}

/// The part of the budget that is kept for recording: an eighth. At the default budget that is 250 ms, several times what a commit takes
/// on a busy disk.
const RECORDING: u32 = 8;

/// When a request arrived, and when its decision and its response are due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// When its head had arrived. It may have waited for the byte limit since, which delays what is due.
    pub(crate) arrived: Instant,
    /// Afterwards, there is time only for recording.
    pub(crate) decide_until: Instant,
    pub(crate) deadline: Instant,
}

impl Clock {
    pub(crate) fn start(arrived: Instant, budget: Duration) -> Self {
        let deadline = Instant::now() + budget;
        Self {
            arrived,
            decide_until: deadline - budget / RECORDING,
            deadline,
        }
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.arrived.elapsed()
    }

    /// The time left for a decision.
    pub(crate) fn left(self) -> Duration {
        self.decide_until.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_the_byte_limit_counts_as_time_taken_and_is_no_part_of_the_budget() {
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        let clock = Clock::start(began, Duration::from_secs(2));
        assert_eq!(clock.elapsed(), Duration::from_secs(3));
        assert_eq!(clock.deadline, began + Duration::from_secs(5));
        // The rest is for recording.
        assert_eq!(clock.left(), Duration::from_millis(1_750));
    }
}
