use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep},
};

use super::metrics::InFlight;

/// A backend's answer on its way to OpenIM, frame by frame. It ends with an error, and so breaks off, where nothing comes for
/// too long.
#[derive(Debug)]
pub(crate) struct Passed {
    incoming: Incoming,
    patience: Duration,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
    _in_flight: InFlight,
}

impl Passed {
    pub(super) fn new(
        incoming: Incoming,
        patience: Duration,
        place: OwnedSemaphorePermit,
        in_flight: InFlight,
    ) -> Self {
        Self {
            incoming,
            patience,
            silence: Box::pin(sleep(patience)),
            _place: place,
            _in_flight: in_flight,
        }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            let next = Instant::now() + self.patience;
            self.silence.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match self.silence.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err("the backend fell silent".into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
