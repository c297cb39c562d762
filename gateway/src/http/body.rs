use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};

use crate::{callback::Reason, serve::Received};

/// Reads a body to its end, if that comes within `max` bytes and before the `deadline`.
pub(super) async fn read_body(
    headers: &HeaderMap,
    body: Received,
    max: usize,
    deadline: Instant,
) -> Result<Bytes, Reason> {
    let too_large = || Reason::TooLarge {
        what: "the body",
        max,
        unit: "bytes",
    };
    if content_length(headers).is_some_and(|bytes| bytes > max) {
        return Err(too_large());
    }
    match timeout_at(deadline, Limited::new(body, max).collect()).await {
        Err(_) => Err(Reason::TooSlow),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if is_length_limit(error.as_ref()) => Err(too_large()),
        Ok(Err(error)) => Err(Reason::Malformed(format!(
            "the body could not be read: {error}"
        ))),
    }
}

/// Reads a body that is not looked at, if it has an end within `max` bytes and before the `deadline`: a connection on which bytes
/// are left unread must be closed, and the next callback would have to open another.
pub(super) async fn skip_body(
    headers: &HeaderMap,
    mut body: Received,
    max: usize,
    deadline: Instant,
) {
    let announced = content_length(headers).unwrap_or(usize::MAX);
    let skip = async { while let Some(Ok(_)) = body.frame().await {} };
    if announced <= max {
        // Who is slower loses the connection.
        let _ = timeout_at(deadline, skip).await;
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

fn is_length_limit(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<LengthLimitError>()
        || error
            .source()
            .is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}
