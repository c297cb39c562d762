use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{runtime::Handle, time::timeout};

use super::{
    connection::FAREWELL,
    progress::{Progress, Protocol, Turn},
};

/// A request's body, as it arrives.
#[derive(Debug)]
pub(crate) struct Received {
    /// Taken when this is dropped.
    incoming: Option<Incoming>,
    progress: Arc<Progress>,
}

impl Received {
    pub(super) fn new(incoming: Incoming, progress: Arc<Progress>) -> Self {
        let incoming = Some(incoming);
        Self { incoming, progress }
    }
}

impl Body for Received {
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
        if frame.is_none() || self.is_end_stream() {
            self.progress.body_read();
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

/// Over HTTP/2, a body that nobody reads resets its stream as soon as the answer is out. That is allowed (RFC 9113, section 8.1),
/// but clients that are still sending then lose the answer: curl before version 8 does. So what comes is taken for a while.
/// Over HTTP/1.1 `Wire::finish` does it.
impl Drop for Received {
    fn drop(&mut self) {
        if self.progress.protocol() == Protocol::Http1 || self.is_end_stream() {
            return;
        }
        // Without a runtime, the process is ending.
        if let (Some(mut incoming), Ok(runtime)) = (self.incoming.take(), Handle::try_current()) {
            let rest = async move { while let Some(Ok(_)) = incoming.frame().await {} };
            runtime.spawn(timeout(FAREWELL, rest));
        }
    }
}

/// An answer's body. hyper drops it, and with it the turn, when it has taken all of it.
#[derive(Debug)]
pub(super) struct Sent<B> {
    pub(super) body: B,
    pub(super) _turn: Turn,
}

impl<B: Body + Unpin> Body for Sent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
