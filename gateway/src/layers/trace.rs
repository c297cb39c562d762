//! The outermost layer: recognises the callback, starts its span, records its metrics, and turns every response into a callback answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{StatusCode, Uri};
use http_body::{Frame, SizeHint};
use importguard_runtime::{Exchange, Handle};
use importguard_telemetry::span::ServerSpan;
use parking_lot::Mutex;

use crate::{
    openim::{
        RequestHead, Route, Target, callback_name, complete, operation_id, replaced_operation_id,
    },
    request::{Clock, RequestResult, span},
    state::App,
};

/// Traces a request from its head until the caller has received the response or disconnected.
pub(crate) async fn trace(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let settings = &app.settings.http;
    let clock = Clock::start(settings.request_budget);
    let uri = request.uri().clone();
    let request_head = Arc::new(RequestHead {
        target: Target::of(&settings.base_path, uri.path(), uri.query()),
        operation_id: operation_id(request.headers(), settings.operation_id),
        replaced_operation_id: replaced_operation_id(request.headers(), settings.operation_id),
        uri,
    });
    let exchange = request.extensions().get::<Arc<Exchange>>().cloned();
    let route = request_head.target.route();
    let span = span::start(&request, app.scheme, &request_head);
    *request.uri_mut() = Uri::from_static(route.path());
    request.extensions_mut().insert(Arc::clone(&request_head));
    request.extensions_mut().insert(clock);

    let peer = exchange.as_ref();
    let peer = peer.map(|exchange| exchange.connection().peer());
    let handled = span.instrument(async {
        let response = next.run(request).await;
        let (mut response, rejection) = complete(response, &request_head.target, settings.refusals);
        if let Some(rejection) = rejection {
            app.metrics.rejected(&rejection);
            let uri = &request_head.uri;
            let callback = callback_name(uri.path(), uri.query());
            app.log.rejected(&rejection, callback, peer);
            response
                .extensions_mut()
                .insert(RequestResult::Rejected(rejection.code()));
        }
        response
    });
    let mut open = OpenRequest {
        app: app.clone(),
        route,
        span,
        clock,
        result: None,
        sent: Mutex::new(SystemTime::now()),
        exchange,
    };
    let response = handled.await;
    *open.sent.lock() = SystemTime::now();
    let result = response.extensions().get().copied();
    open.result = Some((
        result.unwrap_or(RequestResult::Done(None)),
        response.status(),
    ));
    if let Some(exchange) = &open.exchange {
        exchange.answered();
    }
    let open = Arc::new(open);
    response.map(|body| Body::new(TrackedBody { body, open }))
}

/// A request until its response is delivered. If it is dropped without a response, or with the connection broken, the request was
/// abandoned: the caller disconnected, or this process stops.
struct OpenRequest {
    app: App,
    route: Route,
    span: ServerSpan,
    clock: Clock,
    result: Option<(RequestResult, StatusCode)>,
    /// When the response, or the last chunk of it so far, was handed to the connection. The span ends then: delivery takes the caller's
    /// time, whose own span may end before the connection reports completion.
    sent: Mutex<SystemTime>,
    exchange: Option<Arc<Exchange>>,
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let connection = self.exchange.as_ref().map(|exchange| exchange.connection());
        let lost = connection.is_some_and(Handle::is_broken);
        let metrics = &self.app.metrics;
        match self.result {
            Some((result, status)) if !lost => {
                let elapsed = self.clock.elapsed();
                self.span
                    .in_scope(|| metrics.answered(self.route, status, elapsed));
                span::answered(&self.span, result, status);
                self.span.end_at(*self.sent.lock());
            }
            result => {
                metrics.abandoned();
                // A rejection has a line already.
                if !matches!(result, Some((RequestResult::Rejected(_), _))) {
                    let peer = connection.map(Handle::peer);
                    self.span
                        .in_scope(|| self.app.log.abandoned(self.clock, peer));
                }
                span::abandoned(&self.span);
            }
        }
    }
}

/// A response's body that is tracked until the caller has read it: hyper drops each chunk when it has written it, and h2 when the
/// stream's window has let it through. There is no other sign of unread data.
struct TrackedBody {
    body: Body,
    open: Arc<OpenRequest>,
}

/// A chunk of a body, which keeps the request open.
struct Chunk {
    bytes: Bytes,
    _open: Arc<OpenRequest>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            // The upstream backend has not sent its next chunk yet.
            if let Some(exchange) = &self.open.exchange {
                exchange.working();
            }
            return Poll::Pending;
        };
        let open = &self.open;
        *open.sent.lock() = SystemTime::now();
        if let Some(exchange) = &open.exchange {
            exchange.answered();
        }
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| {
                    Bytes::from_owner(Chunk {
                        bytes,
                        _open: Arc::clone(open),
                    })
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
