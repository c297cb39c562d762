//! What is kept and written about each request: its time, its log lines and its spans.

pub(crate) mod log;
pub(crate) mod span;

use std::{sync::Arc, time::Duration};

use http::Uri;
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
    /// The original URI: the router sees [`Route::path`](crate::openim::Route::path).
    pub(crate) uri: Uri,
    pub(crate) clock: Clock,
    pub(crate) exchange: Arc<Exchange>,
}

/// When a request arrived, and when its response is due.
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
