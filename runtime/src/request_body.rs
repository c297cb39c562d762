//! A request's body, which knows its exchange.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use crate::{Exchange, connection::LINGER};

/// A request's body. Marks its exchange as received when the body is complete.
pub struct RequestBody {
    /// Taken when this is dropped.
    incoming: Option<Incoming>,
    exchange: Arc<Exchange>,
    http2: bool,
}

impl RequestBody {
    /// The body `incoming` of the request of `exchange`.
    pub fn new(incoming: Incoming, exchange: Arc<Exchange>, http2: bool) -> Self {
        if incoming.is_end_stream() {
            exchange.received();
        }
        Self {
            incoming: Some(incoming),
            exchange,
            http2,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        if (frame.is_none() || self.is_end_stream()) && !self.exchange.is_received() {
            self.exchange.received();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.incoming.as_ref().map(Body::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

/// Over HTTP/2, hyper resets the stream of an unread body as soon as the response is sent. RFC 9113, section 8.1, allows that, but
/// clients that are still sending may lose the response (curl before version 8 does). So the rest of the body is read and discarded,
/// for at most [`LINGER`]. Over HTTP/1.1, [`Connection`](crate::Connection) does the same at shutdown.
impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.http2 || self.is_end_stream() {
            return;
        }
        // There is no runtime while the process exits.
        if let (Some(mut incoming), Ok(runtime)) =
            (self.incoming.take(), tokio::runtime::Handle::try_current())
        {
            let rest = async move {
                while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
                }
            };
            runtime.spawn(timeout(LINGER, rest));
        }
    }
}
