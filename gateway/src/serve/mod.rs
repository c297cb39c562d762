//! The public listener: connections, their bounds, and their end. What is asked on them is answered by whoever implements
//! [`Answers`]; what hyper would answer by itself, without a body, is too: OpenIM up to 3.6 may read an answer that it cannot
//! parse as consent.
//!
//! `listener` accepts; `connection` speaks HTTP/1.1 or HTTP/2 on one connection; `wire` lies between hyper and the socket and
//! `progress` says how far the two have come, so that a slow caller is noticed and hyper's own answers are replaced.

mod body;
mod connection;
mod fault;
mod listener;
mod metrics;
mod progress;
mod settings;
mod stream;
mod tls;
mod watchdog;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

pub(crate) use self::{
    body::Received,
    fault::Fault,
    listener::{Ended, Listener},
    metrics::Metrics,
    tls::acceptor,
};
pub use self::{settings::ServeSettings, tls::TlsSettings};

/// Whether there is room for a connection's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is.
    Free,
    /// The connection is one too many: its request is to be answered with that, at once.
    None,
}

/// Who answers what is asked on the public listener.
pub(crate) trait Answers: Send + Sync + 'static {
    /// The answers' bodies.
    type Body: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    /// Answers a request. Dropped without an end when the caller hangs up.
    fn answer(
        self: Arc<Self>,
        request: Request<Received>,
        room: Room,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;

    /// Answers what cannot be read as a request.
    fn refuse(&self, fault: Fault) -> Response<Self::Body>;
}
