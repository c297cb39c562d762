//! The layers around the handlers. `app` has their order.

mod authentication;
mod credentials;
mod head;
mod limits;
mod log;
mod span;
mod trace;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::{
    authentication::Authentication,
    head::HeadCheck,
    limits::{Limit, Overloaded, admit},
    log::{RejectionLog, decided, undecided, unrecorded},
    span::{RequestResult, publish_span, published},
    trace::trace,
};
pub use self::{authentication::CredentialsFileError, credentials::CredentialsError};

/// A request extension: when the request arrived, and when its response is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) arrived: Instant,
    pub(crate) deadline: Instant,
}

impl Clock {
    fn start(budget: Duration) -> Self {
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
