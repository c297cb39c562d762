use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, Uri};
use importguard_runtime::Exchange;
use tower_http::validate_request::ValidateRequest;

use crate::{openim::Rejection, request::RequestHead};

/// Maximum number of headers: OpenIM sends nine, and proxies add a dozen. hyper's own limit is higher, so that the response is a
/// callback answer.
const MAX_HEADERS: usize = 100;

/// Rejects requests whose head is too large, whose method is for proxies, or that arrive without TLS on a TLS listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadCheck {
    pub(crate) max_bytes: usize,
}

impl ValidateRequest<Body> for HeadCheck {
    type ResponseBody = Body;

    fn validate(&mut self, request: &mut Request) -> Result<(), Response> {
        let request_head = request.extensions().get::<Arc<RequestHead>>();
        let uri = &request_head
            .ok_or_else(|| Rejection::Internal.into_response())?
            .uri;
        check(request, uri, self.max_bytes).map_err(IntoResponse::into_response)
    }
}

fn check(request: &Request, uri: &Uri, max_bytes: usize) -> Result<(), Rejection> {
    let exchange = request.extensions().get::<Arc<Exchange>>();
    if exchange.is_some_and(|exchange| exchange.connection().plaintext()) {
        let text = "this listener accepts only TLS: OpenIM's webhook URL must begin with https://";
        return Err(Rejection::Malformed(text.to_owned()));
    }
    let url = uri.path().len() + uri.query().map_or(0, str::len);
    if url > max_bytes {
        return Err(Rejection::UriTooLong);
    }
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
    if url + fields.sum::<usize>() > max_bytes || request.headers().len() > MAX_HEADERS {
        return Err(Rejection::HeadTooLarge);
    }
    // Neither is valid for a webhook, nor forwarded to a backend.
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Rejection::MethodNotAllowed);
    }
    Ok(())
}
