use std::sync::Arc;

use axum::extract::Request;
use http::Method;

use crate::{openim::Rejection, request::RequestHead};

/// Maximum number of headers: OpenIM sends nine, and proxies add a dozen. hyper's own limit is higher, so that the response is a
/// callback answer.
const MAX_HEADERS: usize = 100;

/// Rejects a request whose head is too large, whose method is for proxies, or that arrived without TLS on a TLS listener.
pub(crate) fn check_head(request: &Request, max_bytes: usize) -> Result<(), Rejection> {
    let head = request.extensions().get::<Arc<RequestHead>>();
    let RequestHead { url, exchange, .. } = &**head.ok_or(Rejection::Internal)?;
    if exchange.connection().plaintext() {
        let text = "this listener accepts only TLS: OpenIM's webhook URL must begin with https://";
        return Err(Rejection::Malformed(text.to_owned()));
    }
    if url.len() > max_bytes {
        return Err(Rejection::UriTooLong);
    }
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
    if url.len() + fields.sum::<usize>() > max_bytes || request.headers().len() > MAX_HEADERS {
        return Err(Rejection::HeadTooLarge);
    }
    // Neither is valid for a webhook, nor forwarded to a backend.
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Rejection::MethodNotAllowed);
    }
    Ok(())
}
