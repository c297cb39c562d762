//! The bodies of a request and of its response, within the limits of their connection.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{Exchange, connection::LINGER};

/// The limits of a body that is received.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveLimits {
    /// Maximum size in bytes.
    pub max_bytes: usize,
    /// When it must be complete. Later by the time for which it waits for the listener's byte limit, which is not its peer's fault.
    pub due: Instant,
    /// When it must be complete at the latest.
    pub deadline: Instant,
}

/// Why a body was not received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError<E> {
    /// It is larger than [`ReceiveLimits::max_bytes`].
    #[error("the body is too large")]
    TooLarge,
    /// It was not complete in time.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The listener's byte limit left no room for it in time.
    #[error("there was no memory for the body in time")]
    NoMemory,
    /// The connection or the request broke.
    #[error("the body could not be read: {0}")]
    Broken(E),
}

/// Receives a body completely. Reserves memory for it in the listener's byte limit as it arrives.
///
/// # Errors
/// If it is beyond a limit, or breaks off.
pub async fn receive<B>(
    mut body: B,
    exchange: &Exchange,
    limits: ReceiveLimits,
) -> Result<Bytes, ReceiveError<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut due = limits.due.min(limits.deadline);
    let mut received = Received::default();
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let frame = timeout_at(due, frame).await;
        let Some(frame) = frame.map_err(|_| ReceiveError::TooSlow)? else {
            return Ok(received.bytes.into());
        };
        let Ok(data) = frame.map_err(ReceiveError::Broken)?.into_data() else {
            continue;
        };
        if received.bytes.len() + data.len() > limits.max_bytes {
            return Err(ReceiveError::TooLarge);
        }
        let began = Instant::now();
        let reserved = timeout_at(limits.deadline, exchange.reserve(data.len())).await;
        reserved.map_err(|_| ReceiveError::NoMemory)?;
        due = limits.deadline.min(due + began.elapsed());
        received.push(&data);
    }
}

/// The received part of a body. It is copied: a chunk is a part of all that was read with it, of which a peer could have much kept in
/// memory with little.
#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    chunks: usize,
}

/// Chunks after each of which the body has no spare capacity: over HTTP/2 a thousand friends arrive in two, and may then wait in the
/// queue.
const EXACT_CHUNKS: usize = 2;

impl Received {
    fn push(&mut self, data: &[u8]) {
        if self.chunks < EXACT_CHUNKS {
            self.bytes.reserve_exact(data.len());
        }
        self.bytes.extend_from_slice(data);
        self.chunks += 1;
    }
}

/// A request's body. Marks its exchange as received when the body is complete.
pub struct RequestBody {
    /// Taken when this is dropped.
    incoming: Option<Incoming>,
    exchange: Arc<Exchange>,
}

impl RequestBody {
    /// The body `incoming` of the request of `exchange`.
    pub fn new(incoming: Incoming, exchange: Arc<Exchange>) -> Self {
        if incoming.is_end_stream() {
            exchange.received();
        }
        Self {
            incoming: Some(incoming),
            exchange,
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
        if matches!(frame, Some(Err(_))) {
            self.exchange.abandon();
        }
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
/// for at most three seconds. Over HTTP/1.1, [`Connection`](crate::Connection) does the same at shutdown.
impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.exchange.is_http2() || self.is_end_stream() {
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

/// What is told of a response's way to the peer, and dropped when the peer has read it.
pub trait Delivery: Send + Sync + 'static {
    /// A part of the response, or its end, was handed to the connection: the peer is expected to read it.
    fn sending(&self);
    /// The next part is not there yet.
    fn working(&self);
}

impl Delivery for Exchange {
    fn sending(&self) {
        self.answered();
    }

    fn working(&self) {
        Self::working(self);
    }
}

/// A response's body that is tracked until the peer has read it: hyper drops each chunk when it has written it, and h2 when the
/// stream's window has let it through. There is no other sign of unread data.
#[derive(Debug)]
pub struct TrackedBody<B, D> {
    body: B,
    delivery: Arc<D>,
}

impl<B, D: Delivery> TrackedBody<B, D> {
    /// Tracks `body`, which is ready to be sent.
    pub fn new(body: B, delivery: Arc<D>) -> Self {
        delivery.sending();
        Self { body, delivery }
    }
}

impl<B, D> Body for TrackedBody<B, D>
where
    B: Body<Data = Bytes> + Unpin,
    D: Delivery,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.delivery.working();
            return Poll::Pending;
        };
        let delivery = &self.delivery;
        delivery.sending();
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| {
                    Bytes::from_owner(Chunk {
                        bytes,
                        _delivery: Arc::clone(delivery),
                    })
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A chunk of a body, which keeps its delivery open.
struct Chunk<D> {
    bytes: Bytes,
    _delivery: Arc<D>,
}

impl<D> AsRef<[u8]> for Chunk<D> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;

    use super::*;
    use crate::table::tests::{connection, table};

    struct Block(Arc<[u8]>);

    impl AsRef<[u8]> for Block {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[tokio::test]
    async fn a_received_body_keeps_nothing_that_was_read_with_it() {
        let block: Arc<[u8]> = vec![b'x'; 16_384].into();
        let body = Bytes::from_owner(Block(Arc::clone(&block))).slice(..100);
        let exchange = connection(&table()).begin(true);
        let deadline = Instant::now() + Duration::from_secs(60);
        let limits = ReceiveLimits {
            max_bytes: 1_000,
            due: deadline,
            deadline,
        };
        let received = receive(Body::from(body), &exchange, limits).await.unwrap();
        assert_eq!(received.len(), 100);
        assert_eq!(Arc::strong_count(&block), 1);
    }
}
