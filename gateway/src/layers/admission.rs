//! Admission: a callback is first received completely, then waits for a permit of the concurrency limit.

use std::{mem, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header, request::Parts};
use http_body_util::BodyExt;
use importguard_runtime::Exchange;
use tokio::time::{Instant, timeout_at};

use crate::{
    limit::{Denied, Overloaded},
    openim::{Callback, Command, Rejection, RequestHead, acceptable},
    request::Clock,
    response::unrecorded_overload,
    state::App,
};

/// Passes a callback on to its handler if its head is valid and its body arrives in time. If the concurrency limit leaves no permit,
/// the handler applies IMPORTGUARD_ON_OVERLOAD; beyond IMPORTGUARD_OVERLOAD_EVENTS per second, it is not called.
///
/// The fallback is for overload only. Callers must not be able to choose it: whoever sends too slowly or does not read responses is
/// rejected.
pub(crate) async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let (Some(clock), Some(request_head)) = (
        head.extensions.get::<Clock>().copied(),
        head.extensions.get::<Arc<RequestHead>>().cloned(),
    ) else {
        return Rejection::Internal.into_response();
    };
    let decide_by = decide_by(&app, clock);
    let body = match collect(&app, &head, &request_head, body, clock.arrived, decide_by).await {
        Ok(body) => Body::from(body),
        Err(Uncollected::Rejected(rejection)) => return rejection.into_response(),
        Err(Uncollected::NoMemory) => {
            app.limit.overloaded(false);
            return unrecorded_overload(&app, &request_head);
        }
    };
    let exchange = head.extensions.get::<Arc<Exchange>>();
    let permit = app.limit.acquire(exchange, decide_by).await;
    match &permit {
        Ok(_) => {}
        Err(Denied::NoSlot) => return Rejection::UnreadResponses.into_response(),
        Err(Denied::NoPermit) => {
            let recordable = matches!(
                request_head.target.callback,
                Callback::Ours(Command::BeforeImport(_))
            );
            if !app.limit.overloaded(recordable) {
                return unrecorded_overload(&app, &request_head);
            }
            head.extensions.insert(Overloaded);
        }
    }
    next.run(Request::from_parts(head, body)).await
}

/// When a decision must begin: then all of the decider's time is left, or half of the budget if that is less, so that a caller
/// cannot cause a decider's timeout by sending its last byte late.
fn decide_by(app: &App, clock: Clock) -> Instant {
    let decider_timeout = app.settings.decide.decider_timeout;
    clock.deadline - decider_timeout.min(app.settings.http.request_budget / 2)
}

/// Why there is no complete body.
enum Uncollected {
    Rejected(Rejection),
    /// IMPORTGUARD_MAX_BYTES_IN_FLIGHT left no room for it in time.
    NoMemory,
}

impl From<Rejection> for Uncollected {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

async fn collect(
    app: &App,
    head: &Parts,
    request_head: &RequestHead,
    mut body: Body,
    arrived: Instant,
    decide_by: Instant,
) -> Result<Bytes, Uncollected> {
    if !acceptable(&head.headers) {
        return Err(Rejection::UnsupportedMediaType.into());
    }
    if let Err(rejection) = &request_head.operation_id {
        return Err(rejection.clone().into());
    }
    let max = app.settings.http.max_body_bytes;
    let too_large = || Rejection::TooLarge {
        what: "the body",
        max,
        unit: "bytes",
    };
    if content_length(&head.headers).is_some_and(|bytes| bytes > max) {
        return Err(too_large().into());
    }
    let mut due = decide_by.min(arrived + app.settings.http.body_read_timeout);
    let exchange = head.extensions.get::<Arc<Exchange>>();
    let mut collected = Collected::default();
    loop {
        let frame = timeout_at(due, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Rejection::TooSlow)? else {
            return Ok(collected.into_bytes());
        };
        let frame = frame.map_err(|error| {
            Rejection::Malformed(format!("the body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if collected.len() + data.len() > max {
            return Err(too_large().into());
        }
        if let Some(exchange) = exchange {
            let began = Instant::now();
            let reserved = timeout_at(decide_by, exchange.reserve(data.len())).await;
            reserved.map_err(|_| Uncollected::NoMemory)?;
            // Meanwhile nothing was read, which is not the caller's fault.
            due = decide_by.min(due + began.elapsed());
        }
        collected.push(data);
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// The received part of a body. The first chunk, usually the only one, is not copied.
#[derive(Default)]
struct Collected {
    first: Bytes,
    more: BytesMut,
}

impl Collected {
    fn len(&self) -> usize {
        self.first.len().max(self.more.len())
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            let first = mem::take(&mut self.first);
            // Not more: over HTTP/2 a thousand friends arrive in two chunks, and may then wait in the queue.
            self.more.reserve(first.len() + data.len());
            self.more.extend_from_slice(&first);
        }
        self.more.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.more.is_empty() {
            self.first
        } else {
            self.more.freeze()
        }
    }
}
