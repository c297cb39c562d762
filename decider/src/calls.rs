//! How much memory calls may take, whoever makes them.

use std::{sync::Arc, time::Duration};

use importguard_runtime::{Exchange, Handle, ReceiveError, ReceiveLimits, TrackedBody, receive};
use tokio::time::Instant;
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service,
        http::{Request, Response},
    },
};

use crate::grpc::METHOD;

/// Memory of an open call, without its message: as much as a gateway's request that waits has at most, its own parts included.
const CALL_BYTES: usize = 6 << 10;

/// How many bytes of calls may be open in all, unless a few of the largest messages need more. A gateway's 128 concurrent callbacks with
/// a thousand friends have 3 MiB.
const MAX_BYTES: usize = 64 << 20;

/// How many of the largest messages always fit.
const LARGEST_MESSAGES: usize = 4;

/// The prefix of a gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The limits of calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLimits {
    /// Maximum size of a message, in bytes.
    pub(crate) max_message_bytes: usize,
    /// Time limit of a call.
    pub(crate) timeout: Duration,
}

impl CallLimits {
    /// The byte limit of the listener.
    pub(crate) fn max_bytes(self) -> usize {
        MAX_BYTES.max(self.max_message_bytes.saturating_mul(LARGEST_MESSAGES))
    }
}

/// Serves a call by `service`, and counts its memory until its response is read. A decision's message is received completely first: tonic
/// allocates as many bytes as a message's prefix declares, of which perhaps none ever arrive.
pub(crate) async fn serve<S>(
    mut service: S,
    request: Request<Body>,
    limits: CallLimits,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    // The acceptor gives each connection its handle.
    let Some(handle) = request.extensions().get::<Handle>() else {
        return Ok(Status::internal("a call without a connection").into_http());
    };
    let exchange = Arc::new(handle.begin(true));
    exchange.reserve(CALL_BYTES).await;
    let request = match complete(request, &exchange, limits).await {
        Ok(request) => request,
        Err(status) => return Ok(status.into_http()),
    };
    exchange.received();
    let response = service.call(request).await?;
    Ok(response.map(|body| Body::new(TrackedBody::new(body, exchange))))
}

/// The request with its whole message, if it asks for a decision. Other messages are short or streams.
async fn complete(
    request: Request<Body>,
    exchange: &Exchange,
    limits: CallLimits,
) -> Result<Request<Body>, Status> {
    if request.uri().path().strip_prefix('/') != Some(METHOD) {
        return Ok(request);
    }
    let max_bytes = limits.max_message_bytes;
    let deadline = Instant::now() + limits.timeout;
    let limits = ReceiveLimits {
        max_bytes: max_bytes.saturating_add(PREFIX_BYTES),
        due: deadline,
        deadline,
    };
    let (head, body) = request.into_parts();
    let message = receive(body, exchange, limits)
        .await
        .map_err(|error| match error {
            ReceiveError::TooLarge => {
                Status::out_of_range(format!("the message is larger than {max_bytes} bytes"))
            }
            ReceiveError::TooSlow => {
                // As of any other call beyond IMPORTGUARD_DECIDER_REQUEST_TIMEOUT.
                Status::cancelled("the message did not arrive in time")
            }
            ReceiveError::NoMemory => {
                Status::resource_exhausted("no memory for the message in time")
            }
            ReceiveError::Broken(status) => status,
        })?;
    Ok(Request::from_parts(
        head,
        Body::new(http_body_util::Full::new(message)),
    ))
}
