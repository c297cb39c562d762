//! The extractor of an import callback. A callback is first received completely, then waits for a permit of the concurrency limit, and is
//! parsed only then.

use std::{mem, sync::Arc};

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use importguard_core::{Dialect, ImportRequest};
use tokio::time::{Instant, timeout_at};

use crate::{
    limit::Permit,
    openim::{Callback, Command, Rejection, acceptable, parse},
    request::{Clock, RequestHead},
    response::unrecorded_overload,
    state::App,
};

/// A complete and valid import callback whose turn it is.
pub(crate) struct Import {
    pub(crate) head: Arc<RequestHead>,
    pub(crate) dialect: Dialect,
    pub(crate) request: ImportRequest,
    /// Held until the callback is handled. If the concurrency limit left none, `None`: the handler applies IMPORTGUARD_ON_OVERLOAD.
    pub(crate) permit: Option<Permit>,
}

impl FromRequest<App> for Import {
    type Rejection = Response;

    /// The fallback of IMPORTGUARD_ON_OVERLOAD is for overload only. Callers must not be able to choose it: whoever sends too slowly or
    /// does not read responses is rejected. Beyond IMPORTGUARD_OVERLOAD_EVENTS per second, the handler is not called.
    fn from_request(
        request: Request,
        app: &App,
    ) -> impl Future<Output = Result<Self, Response>> + Send {
        // Only what is needed: thousands may wait, without their headers.
        let arriving = arriving(request, app);
        async move {
            let (head, command, body) = arriving?;
            admit(app, head, command, body).await
        }
    }
}

/// A callback whose body arrives, if its head is valid.
fn arriving(request: Request, app: &App) -> Result<(Arc<RequestHead>, Command, Body), Rejection> {
    let (parts, body) = request.into_parts();
    let head = parts.extensions.get::<Arc<RequestHead>>();
    let head = head.ok_or(Rejection::Internal)?;
    let Callback::Ours(command) = head.target.callback else {
        return Err(Rejection::Internal);
    };
    if !acceptable(&parts.headers) {
        return Err(Rejection::UnsupportedMediaType);
    }
    if let Err(rejection) = &head.operation_id {
        return Err(rejection.clone());
    }
    let max = app.settings.http.max_body_bytes;
    // That of the header Content-Length.
    if body.size_hint().lower() > max as u64 {
        return Err(too_large(max));
    }
    Ok((Arc::clone(head), command, body))
}

async fn admit(
    app: &App,
    head: Arc<RequestHead>,
    command: Command,
    body: Body,
) -> Result<Import, Response> {
    let decide_by = decide_by(app, head.clock);
    let body = collect(app, &head, body, decide_by).await?;
    let Some(body) = body else {
        app.limit.overloaded(false);
        return Err(unrecorded_overload(app, &head));
    };
    let permit = app.limit.acquire(&head.exchange, decide_by).await?;
    let recordable = matches!(command, Command::BeforeImport(_));
    if permit.is_none() && !app.limit.overloaded(recordable) {
        return Err(unrecorded_overload(app, &head));
    }
    let operation_id = head.operation_id.clone()?;
    let max_friends = app.settings.http.max_friends;
    Ok(Import {
        request: parse(command, operation_id, &body, max_friends)?,
        dialect: command.dialect(),
        head,
        permit,
    })
}

/// When a decision must begin: then all of the decider's time is left, or half of the budget if that is less, so that a caller
/// cannot cause a decider's timeout by sending its last byte late.
fn decide_by(app: &App, clock: Clock) -> Instant {
    let decider_timeout = app.settings.decide.decider_timeout;
    clock.deadline - decider_timeout.min(app.settings.http.request_budget / 2)
}

/// The complete body; `None` if IMPORTGUARD_MAX_BYTES_IN_FLIGHT left no room for it in time.
async fn collect(
    app: &App,
    head: &RequestHead,
    mut body: Body,
    decide_by: Instant,
) -> Result<Option<Bytes>, Rejection> {
    let settings = &app.settings.http;
    let mut due = decide_by.min(head.clock.arrived + settings.body_read_timeout);
    let mut collected = Collected::default();
    loop {
        let frame = timeout_at(due, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Rejection::TooSlow)? else {
            return Ok(Some(collected.into_bytes()));
        };
        let frame = frame.map_err(|error| {
            Rejection::Malformed(format!("the body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if collected.len() + data.len() > settings.max_body_bytes {
            return Err(too_large(settings.max_body_bytes));
        }
        let began = Instant::now();
        let reserved = timeout_at(decide_by, head.exchange.reserve(data.len())).await;
        if reserved.is_err() {
            return Ok(None);
        }
        // Meanwhile nothing was read, which is not the caller's fault.
        due = decide_by.min(due + began.elapsed());
        collected.push(data);
    }
}

fn too_large(max: usize) -> Rejection {
    Rejection::TooLarge {
        what: "the body",
        max,
        unit: "bytes",
    }
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
