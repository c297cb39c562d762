//! The public listener's routes and layers, from the outside in.
//!
//! 1. `trace` recognises the callback in the request line, traces the request, and turns every response into a callback answer. It
//!    replaces the path, whose base may be a secret, by [`Route::path`].
//! 2. A panic becomes 500 with code 5915.
//! 3. [`check_head`] rejects a head that is too large (431, 414), plain HTTP on a TLS port (400) and methods for proxies (405).
//! 4. [`Authentication::challenge`] rejects requests without valid credentials (401).
//! 5. The router selects the handler. It rejects other methods than POST (405); a callback without a route is forwarded or rejected
//!    (404).
//! 6. The extractor [`Import`](crate::admission::Import) rejects invalid headers (415, 400), receives the body (413, 408), waits for a
//!    permit of the concurrency limit, and parses the body (400, 413).
//! 7. The handler decides, records and answers.

use std::{any::Any, convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::future::{Either, ready};
use http::Method;
use importguard_core::Dialect;
use importguard_runtime::Exchange;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    Settings,
    authentication::Authentication,
    decide::Deciders,
    events::Origin,
    handlers::{after_import, before_import, pass_through},
    limit::Limit,
    metrics::Metrics,
    openim::{Command, Rejection, Route},
    overridden_verdicts::OverriddenVerdicts,
    recorder::Recorder,
    request::{RequestHead, RequestLog},
    trace::trace,
    upstream::Upstream,
};

/// The state of layers and handlers.
pub(crate) type App = Arc<AppState>;

/// The state that all requests share.
pub(crate) struct AppState {
    pub(crate) settings: Settings,
    /// `https` or `http`.
    pub(crate) scheme: &'static str,
    pub(crate) authentication: Authentication,
    pub(crate) limit: Limit,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) deciders: Deciders,
    pub(crate) origin: Origin,
    pub(crate) recorder: Recorder,
    pub(crate) overridden_verdicts: OverriddenVerdicts,
    pub(crate) metrics: Metrics,
    pub(crate) log: RequestLog,
}

/// The service of the public listener.
pub(crate) fn app(
    app: App,
) -> impl Service<(Request, Arc<Exchange>), Response = Response, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let documented = Route::of(Command::BeforeImport(Dialect::Documented));
    let server = Route::of(Command::BeforeImport(Dialect::Server));
    let report = Route::of(Command::AfterImport);
    let router = Router::new()
        .route(documented.path(), post(before_import))
        .route(server.path(), post(before_import))
        .route(report.path(), post(after_import))
        .fallback(pass_through)
        .with_state(app.clone());
    let state = app.clone();
    let checked = service_fn(move |request: Request| match rejected(&state, &request) {
        Some(response) => Either::Left(ready(Ok(response))),
        None => Either::Right(router.clone().oneshot(request)),
    });
    let routes = CatchPanicLayer::custom(panicked).layer(checked);
    service_fn(move |(request, exchange)| trace(app.clone(), routes.clone(), request, exchange))
}

/// The response to a request whose head is invalid, or which is not authenticated.
fn rejected(app: &App, request: &Request) -> Option<Response> {
    match check_head(request, app.settings.serve.max_header_bytes as usize) {
        Ok(()) => app.authentication.challenge(request.headers()),
        Err(rejection) => Some(rejection.into_response()),
    }
}

/// Maximum number of a request's headers: OpenIM sends nine, and proxies add a dozen. hyper's own limit is higher, so that the response
/// is a callback answer.
const MAX_ACCEPTED_HEADERS: usize = 100;

/// Rejects a request whose head is too large, whose method is for proxies, or that arrived without TLS on a TLS listener.
fn check_head(request: &Request, max_bytes: usize) -> Result<(), Rejection> {
    let head = request.extensions().get::<Arc<RequestHead>>();
    let RequestHead { url, exchange, .. } = &**head.ok_or(Rejection::Internal)?;
    if exchange.connection().plaintext() {
        let text = "this listener accepts only TLS: OpenIM's webhook URL must begin with https://";
        return Err(Rejection::Malformed(text.to_owned()));
    }
    let url = url.as_str().len();
    if url > max_bytes {
        return Err(Rejection::UriTooLong);
    }
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
    if url + fields.sum::<usize>() > max_bytes || request.headers().len() > MAX_ACCEPTED_HEADERS {
        return Err(Rejection::HeadTooLarge);
    }
    // Neither is valid for a webhook, nor forwarded to a backend.
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Rejection::MethodNotAllowed);
    }
    Ok(())
}

/// The response after a panic, which the panic hook has logged.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Rejection::Internal.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        openim::{Refusals, Target},
        response::complete,
    };
    use axum::body::Body;
    use http::StatusCode;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_panic_is_answered_with_500_and_5915() {
        #[allow(clippy::panic)]
        async fn fails(_: Request) -> Result<Response, Infallible> {
            panic!("on purpose")
        }
        let service = CatchPanicLayer::custom(panicked).layer(service_fn(fails));
        let request = Request::new(Body::empty());
        let response = service.oneshot(request).await;
        let response = response.unwrap().map(Body::new);
        let path = "/callbackBeforeImportFriendsCommand";
        let target = Target::of(&"/".parse().unwrap(), path, None);
        let (response, _) = complete(response, &target, Refusals::Readable);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        for part in ["\"errCode\":5915", "\"nextCode\":1"] {
            assert!(body.contains(part), "no {part} in {body}");
        }
    }
}
