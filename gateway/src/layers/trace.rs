//! The outermost layer: what a request asks for, its span, its log line, its metrics, and that its response is a callback answer.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
use importguard_runtime::Exchange;
use importguard_telemetry::span::ServerSpan;

use super::{
    Clock, log,
    span::{self, End, Seen},
};
use crate::{
    app::App,
    openim::{Asked, Target, complete, operation_id},
};

/// Follows a request from its head until its caller has taken the response, or is gone.
pub(crate) async fn trace(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let clock = Clock::start(app.request_budget);
    let uri = request.uri().clone();
    let asked = Arc::new(Asked {
        target: Target::of(&app.base_path, uri.path(), uri.query()),
        operation_id: operation_id(request.headers(), app.on_missing_operation_id),
        uri,
    });
    let exchange = request.extensions().get::<Arc<Exchange>>().cloned();
    let seen = Seen {
        method: request.method().clone(),
        scheme: app.scheme,
        asked: Arc::clone(&asked),
    };
    let span = seen.start(request.headers());
    *request.uri_mut() = Uri::from_static(asked.target.route().path());
    request.extensions_mut().insert(Arc::clone(&asked));
    request.extensions_mut().insert(clock);

    let peer = exchange.as_ref();
    let peer = peer.map(|exchange| exchange.connection().peer());
    let handled = span.instrument(async {
        let response = next.run(request).await;
        let (mut response, rejection) = complete(response, &asked.target);
        if let Some(rejection) = rejection {
            app.metrics.rejected(&rejection);
            app.rejections.rejected(&rejection, peer);
            response
                .extensions_mut()
                .insert(End::Rejected(rejection.code()));
        }
        response
    });
    let mut open = Open {
        app: app.clone(),
        seen,
        span,
        clock,
        ended: None,
        sent: Mutex::new(SystemTime::now()),
        exchange,
    };
    let response = handled.await;
    *open.sent() = SystemTime::now();
    let end = response.extensions().get().copied();
    open.ended = Some((end.unwrap_or(End::Done(None)), response.status()));
    if let Some(exchange) = &open.exchange {
        exchange.answered();
    }
    let open = Arc::new(open);
    response.map(|body| Body::new(Taken { body, open }))
}

/// A request whose response has not been taken yet. Dropped before there is one, or with the connection broken, it was
/// abandoned: its caller hung up, or this process ends.
struct Open {
    app: App,
    seen: Seen,
    span: ServerSpan,
    clock: Clock,
    ended: Option<(End, StatusCode)>,
    /// When the response, or the last piece of it so far, was handed to the connection: what it takes from there on is the
    /// caller's time too, whose own span may end before the connection says that it is done.
    sent: Mutex<SystemTime>,
    exchange: Option<Arc<Exchange>>,
}

impl Open {
    fn sent(&self) -> MutexGuard<'_, SystemTime> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let exchange = self.exchange.as_ref();
        let lost = exchange.is_some_and(|exchange| exchange.connection().is_broken());
        let metrics = &self.app.metrics;
        match self.ended.filter(|_| !lost) {
            Some((end, status)) => {
                let route = self.seen.asked.target.route();
                let elapsed = self.clock.elapsed();
                self.span
                    .in_scope(|| metrics.answered(route, status, elapsed));
                span::answered(&self.span, end, status);
                self.span.end_at(*self.sent());
            }
            None => {
                metrics.abandoned();
                self.span.in_scope(|| log::abandoned(self.clock));
                span::abandoned(&self.span);
            }
        }
    }
}

/// A response's body that knows when it is taken: hyper drops each piece when that is written, and h2 when its stream's window
/// let it through, so that what is left unread is seen here and nowhere else.
struct Taken {
    body: Body,
    open: Arc<Open>,
}

/// A piece of a body.
struct Piece {
    bytes: Bytes,
    _open: Arc<Open>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Taken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            // The backend's next piece is still to come.
            if let Some(exchange) = &self.open.exchange {
                exchange.working();
            }
            return Poll::Pending;
        };
        let open = &self.open;
        *open.sent() = SystemTime::now();
        if let Some(exchange) = &open.exchange {
            exchange.answered();
        }
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| {
                    Bytes::from_owner(Piece {
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
