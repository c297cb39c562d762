use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use tracing::warn;

use crate::{
    openim::{Callback, Forwarded, Rejection, RequestHead},
    request::RequestResult,
    state::App,
    upstream::UpstreamError,
};

/// Handles requests without a route: forwards OpenIM's other callbacks to the upstream backend, if one is set, and its responses back
/// unchanged. Rejects everything else.
pub(crate) async fn pass_through(
    State(app): State<App>,
    request: Request,
) -> Result<Response, Rejection> {
    let (head, body) = request.into_parts();
    let request_head = head.extensions.get::<Arc<RequestHead>>();
    let request_head = request_head.ok_or(Rejection::Internal)?;
    let upstream = match (&request_head.target.callback, &app.upstream) {
        (Callback::Other, Some(upstream)) => upstream,
        (Callback::Mismatch { expected, found }, _) => {
            return Err(Rejection::CommandMismatch {
                expected,
                found: found.clone(),
            });
        }
        (Callback::Other, None) => return Err(Rejection::NoUpstream),
        _ => return Err(Rejection::UnknownCommand),
    };
    let below = request_head
        .target
        .below(request_head.uri.path())
        .unwrap_or_default();
    let error = match upstream
        .forward(below, request_head.uri.query(), &head, body)
        .await
    {
        Ok(mut response) => {
            response.extensions_mut().insert(Forwarded);
            response.extensions_mut().insert(RequestResult::Done(None));
            return Ok(response);
        }
        Err(error) => error,
    };
    // An overload would flood the log; it is counted as a rejection.
    if !matches!(error, UpstreamError::Overloaded) {
        warn!("{error}; the callback is refused: check IMPORTGUARD_UPSTREAM");
    }
    Err(match error {
        UpstreamError::Unavailable(_) => Rejection::UpstreamUnavailable,
        UpstreamError::Timeout(_) => Rejection::UpstreamTimeout,
        UpstreamError::Overloaded => Rejection::Overloaded,
    })
}
