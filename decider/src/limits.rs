//! How much memory and time calls may take, whoever makes them.

use std::{sync::Arc, time::Duration};

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Bytes, Frame};
use importguard_runtime::{Exchange, Handle, ReceiveError, ReceiveLimits, TrackedBody, receive};
use importguard_telemetry::Flood;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service,
        http::{HeaderMap, Request, Response},
    },
};

use crate::{call::Call, deadline::Deadline, grpc::METHOD, metrics::Metrics};

/// Memory of an open decision, without its message: as much as a gateway's request that waits has at most, its own parts included.
const CALL_BYTES: usize = 6 << 10;

/// How many bytes of decisions may be open in all, unless a few of the largest messages need more. A gateway's 128 concurrent callbacks with
/// a thousand friends have 3 MiB.
const MAX_BYTES: usize = 64 << 20;

/// How many of the largest messages always fit.
const LARGEST_MESSAGES: usize = 4;

/// The prefix of a gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// How long a stream of the health or the reflection service may be open. Its clients call again, over a new connection if the old one
/// has its maximum age, until which a connection waits for its streams.
const MAX_STREAM_TIME: Duration = Duration::from_secs(60);

/// The limits of calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLimits {
    /// Maximum number of friends, which determines `max_message_bytes`.
    pub(crate) max_friends: usize,
    /// Maximum size of a message, in bytes.
    pub(crate) max_message_bytes: usize,
    /// Time limit of a call.
    pub(crate) timeout: Duration,
}

/// Receives calls. Counts the memory of decisions until their responses are read.
pub(crate) struct Calls {
    pub(crate) limits: CallLimits,
    pub(crate) metrics: Metrics,
    /// The calls that were refused.
    pub(crate) refused: Flood,
    /// Cancelled when no more calls are accepted.
    pub(crate) stopping: CancellationToken,
}

impl Calls {
    /// Serves a call by `service`. A decision's message is received completely first: tonic allocates as many bytes as a message's prefix
    /// declares, of which perhaps none ever arrive.
    pub(crate) async fn serve<S>(
        self: Arc<Self>,
        service: S,
        request: Request<Body>,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        // The acceptor gives each connection its handle.
        let Some(handle) = request.extensions().get::<Handle>() else {
            return Ok(Status::internal("a call without a connection").into_http());
        };
        let exchange = handle.begin(true);
        if request.uri().path().strip_prefix('/') != Some(METHOD) {
            return self.serve_other(service, request, exchange).await;
        }
        let exchange = Arc::new(exchange);
        let peer = exchange.connection().peer();
        let call = Call::start(request.headers(), &self.metrics);
        let request = match self.limits.receive(request, &exchange).await {
            Ok(request) => request,
            // The caller has given it up.
            Err(ReceiveError::Broken(status)) => return Ok(status.into_http()),
            Err(error) => {
                let status = self.limits.status(&error);
                call.fail(&status, peer, &self.refused);
                return Ok(status.into_http());
            }
        };
        let served = call.span.instrument(forward(service, request, exchange));
        let response = served.await?;
        call.respond(&response, peer, &self.refused);
        Ok(response)
    }

    /// Serves a call of the health or the reflection service: its messages are short, but its response may be a stream. Each connection
    /// may have as many as its initial concurrency window. So they take bounded memory, and none from other connections: a gateway's
    /// health check gets through whatever other peers hold open.
    async fn serve_other<S>(
        &self,
        mut service: S,
        request: Request<Body>,
        exchange: Exchange,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        if !exchange.try_acquire_slot() {
            let status =
                "this connection has too many open calls of the health and reflection services";
            return Ok(Status::resource_exhausted(status).into_http());
        }
        // It is never marked as answered, so that its end does not widen the window.
        exchange.received();
        let ends = Instant::now() + MAX_STREAM_TIME;
        // The reflection service reads a stream of requests to its end.
        let request = request.map(|body| ending(body, ends, self.stopping.clone(), ()));
        let response = service.call(request).await?;
        Ok(response.map(|body| ending(body, ends, self.stopping.clone(), exchange)))
    }
}

impl CallLimits {
    /// The byte limit of the listener.
    pub(crate) fn max_bytes(self) -> usize {
        MAX_BYTES.max(self.max_message_bytes.saturating_mul(LARGEST_MESSAGES))
    }

    /// The request with its whole message.
    async fn receive(
        self,
        request: Request<Body>,
        exchange: &Exchange,
    ) -> Result<Request<Body>, ReceiveError<Status>> {
        let ends = Deadline::of(request.headers(), self.timeout);
        let deadline = ends.0.into();
        let reserved = timeout_at(deadline, exchange.reserve(CALL_BYTES)).await;
        reserved.map_err(|_| ReceiveError::NoMemory)?;
        let limits = ReceiveLimits {
            max_bytes: self.max_message_bytes.saturating_add(PREFIX_BYTES),
            due: deadline,
            deadline,
        };
        let (mut head, body) = request.into_parts();
        head.extensions.insert(ends);
        let message = receive(body, exchange, limits).await?;
        Ok(Request::from_parts(
            head,
            Body::new(http_body_util::Full::new(message)),
        ))
    }

    /// The status of a call whose message was not received.
    fn status(self, error: &ReceiveError<Status>) -> Status {
        match error {
            ReceiveError::TooLarge => Status::out_of_range(format!(
                "the message is larger than {} bytes, the most with IMPORTGUARD_DECIDER_MAX_FRIENDS={}",
                self.max_message_bytes, self.max_friends
            )),
            // As of any other call beyond it.
            ReceiveError::TooSlow => Status::cancelled(
                "the message did not arrive before the deadline or within IMPORTGUARD_DECIDER_REQUEST_TIMEOUT",
            ),
            ReceiveError::NoMemory => Status::resource_exhausted(format!(
                "other calls took all of the {} bytes for open calls until the deadline",
                self.max_bytes()
            )),
            ReceiveError::Broken(status) => status.clone(),
        }
    }
}

/// Serves a call whose request is received as far as it has to be.
async fn forward<S>(
    mut service: S,
    request: Request<Body>,
    exchange: Arc<Exchange>,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    exchange.received();
    let response = service.call(request).await?;
    Ok(response.map(|body| Body::new(TrackedBody::new(body, exchange))))
}

/// `body`, which ends with UNAVAILABLE at `ends` or when this decider stops, if it is a stream that is still open then. Holds `held` until
/// its end.
fn ending<T: Send + 'static>(
    body: Body,
    ends: Instant,
    stopping: CancellationToken,
    held: T,
) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let frames = stream::unfold(Some((body, held)), move |open| {
        let stopping = stopping.clone();
        async move {
            let (mut body, held) = open?;
            tokio::select! {
                biased;
                _ = timeout_at(ends, stopping.cancelled()) => Some((unavailable(), None)),
                frame = body.frame() => Some((frame?, Some((body, held)))),
            }
        }
    });
    Body::new(StreamBody::new(frames))
}

/// The end of a stream whose client is to call again.
fn unavailable() -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    Status::unavailable("a stream ends after a minute, and when its decider stops: call again")
        .add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_after_a_minute_and_its_client_is_to_call_again() {
        let began = Instant::now();
        let open = stream::pending::<Result<Frame<Bytes>, Status>>();
        let body = Body::new(StreamBody::new(open));
        let ends = began + MAX_STREAM_TIME;
        let mut body = ending(body, ends, CancellationToken::new(), ());
        let frame = body.frame().await.unwrap().unwrap();
        let status = Status::from_header_map(frame.trailers_ref().unwrap()).unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(began.elapsed() >= MAX_STREAM_TIME);
        assert!(body.frame().await.is_none());
    }
}
