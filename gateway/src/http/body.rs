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
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > max) {
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

fn is_length_limit(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<LengthLimitError>()
        || error
            .source()
            .is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}
