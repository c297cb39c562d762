//! The outermost layer: recognises the callback, starts its span, records its metrics, and turns every response into a callback answer.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{Method, StatusCode, Uri, uri::PathAndQuery};
use importguard_runtime::{Delivery, Exchange, TrackedBody, take_turn};
use importguard_telemetry::span::ServerSpan;
use parking_lot::Mutex;
use tower::{Service, ServiceExt};

use crate::{
    app::App,
    openim::{Rejection, Target, callback_name, operation_id},
    request::{Clock, RequestHead, RequestResult, span},
    response::complete,
};

/// Passes a request on to `routes`, and traces it from its head until the caller has received the response or disconnected.
pub(crate) fn trace<S>(
    app: App,
    routes: S,
    mut request: Request,
    exchange: Arc<Exchange>,
) -> impl Future<Output = Result<Response, Infallible>>
where
    S: Service<Request, Response: IntoResponse, Error = Infallible>,
{
    let settings = &app.settings.http;
    // CONNECT names no path. A success would open a tunnel, and has no body.
    let url = request.uri().path_and_query();
    let url = url.filter(|_| *request.method() != Method::CONNECT);
    // A copy, as the request's own would keep all that has been read with it in memory.
    let url = PathAndQuery::try_from(url.map_or("/", PathAndQuery::as_str))
        .unwrap_or_else(|_| PathAndQuery::from_static("/"));
    let (operation_id, replaced_operation_id) =
        operation_id(request.headers(), settings.operation_id);
    let head = Arc::new(RequestHead {
        target: Target::of(&settings.base_path, url.path(), url.query()),
        operation_id,
        replaced_operation_id,
        url,
        clock: Clock::start(exchange.began(), settings.request_budget),
        exchange,
    });
    let open = OpenRequest {
        span: span::start(&request, app.scheme, &head),
        head: Arc::clone(&head),
        result: None,
        sent: Mutex::new(SystemTime::now()),
        app,
    };
    *request.uri_mut() = Uri::from_static(head.target.route().path());
    request.extensions_mut().insert(head);
    let handled = open.span.instrument(routes.oneshot(request));
    handled.then(async move |Ok(response)| {
        let response = response.into_response();
        // Rejections take no permit: without turns, a flood of them would leave no time for callbacks.
        if response.extensions().get::<RequestResult>().is_none() {
            take_turn().await;
        }
        Ok(open.answer(response))
    })
}

/// A request until its response is delivered. If it is dropped without a response, or with the connection broken, the request was
/// abandoned: the caller disconnected, or this process stops.
struct OpenRequest {
    app: App,
    head: Arc<RequestHead>,
    span: ServerSpan,
    result: Option<(RequestResult, StatusCode)>,
    /// When the response, or the last chunk of it so far, was handed to the connection. The span ends then: delivery takes the caller's
    /// time, whose own span may end before the connection reports completion.
    sent: Mutex<SystemTime>,
}

impl OpenRequest {
    /// The callback answer, which keeps this until it is read.
    fn answer(mut self, response: Response) -> Response {
        let refusals = self.app.settings.http.refusals;
        let (response, result) = complete(response, &self.head.target, refusals);
        // What has broken off is abandoned, and not rejected for the error that its handler has seen.
        if !self.head.exchange.is_broken() {
            if let RequestResult::Rejected(rejection) = &result {
                let status = response.status();
                self.span.in_scope(|| self.rejected(rejection, status));
            }
            self.result = Some((result, response.status()));
        }
        let open = Arc::new(self);
        response.map(|body| Body::new(TrackedBody::new(body, open)))
    }

    fn rejected(&self, rejection: &Rejection, status: StatusCode) {
        let url = &self.head.url;
        // A path outside the base path may be a mistyped secret.
        let below = self.head.target.below(url.path()).unwrap_or_default();
        let callback = callback_name(below, url.query());
        self.app.metrics.rejections.get(rejection.code()).inc();
        let peer = self.head.exchange.connection().peer();
        self.app.log.rejected(rejection, status, callback, peer);
    }
}

impl Delivery for OpenRequest {
    fn sending(&self) {
        *self.sent.lock() = SystemTime::now();
        self.head.exchange.answered();
    }

    /// The upstream backend has not sent its next chunk yet.
    fn working(&self) {
        self.head.exchange.working();
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let metrics = &self.app.metrics;
        match &self.result {
            Some((result, status)) if !self.head.exchange.is_broken() => {
                let (route, elapsed) = (self.head.target.route(), self.head.clock.elapsed());
                self.span
                    .in_scope(|| metrics.answered(route, *status, elapsed));
                span::answered(&self.span, result, *status);
                self.span.end_at(*self.sent.lock());
            }
            result => {
                metrics.abandoned.inc();
                // A rejection has a line already.
                if !matches!(result, Some((RequestResult::Rejected(_), _))) {
                    let (clock, peer) = (self.head.clock, self.head.exchange.connection().peer());
                    self.span.in_scope(|| self.app.log.abandoned(clock, peer));
                }
                span::abandoned(&self.span);
            }
        }
    }
}
