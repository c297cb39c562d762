use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Method, Uri};
use importguard_runtime::Exchange;

use crate::{
    app::App,
    openim::{Rejection, RequestHead},
};

/// Maximum number of headers: OpenIM sends nine, and proxies add a dozen. hyper's own limit is higher, so that the response is a
/// callback answer.
const MAX_HEADERS: usize = 100;

/// Rejects a request whose head is too large, whose method is for proxies, or that arrives without TLS on a TLS listener.
pub(crate) async fn check_head(State(app): State<App>, request: Request, next: Next) -> Response {
    let request_head = request.extensions().get::<Arc<RequestHead>>();
    let checked = request_head.ok_or(Rejection::Internal);
    match checked.and_then(|request_head| check(&request, &request_head.uri, app.max_header_bytes))
    {
        Ok(()) => next.run(request).await,
        Err(rejection) => rejection.into_response(),
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
