//! The extractor of an import callback. A callback is first received completely, then waits for a permit of the concurrency limit, and is
//! parsed only then.

use std::sync::Arc;

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
    response::Response,
};
use bytes::Bytes;
use importguard_core::{Dialect, ImportRequest};
use importguard_runtime::{ReceiveError, ReceiveLimits, receive};
use tokio::time::Instant;

use crate::{
    app::App,
    limit::Permit,
    openim::{Callback, Command, Rejection, acceptable, parse},
    request::{Clock, RequestHead},
    response::unrecorded_overload,
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
        let arriving = arriving(request);
        async move {
            let (head, command, body) = arriving?;
            admit(app, head, command, body).await
        }
    }
}

/// A callback whose body arrives, if its head is valid.
fn arriving(request: Request) -> Result<(Arc<RequestHead>, Command, Body), Rejection> {
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
/// cannot cause a decider's timeout by sending its last byte late. The time for recording is left, too.
fn decide_by(app: &App, clock: Clock) -> Instant {
    let decider_timeout = app.settings.decide.decider_timeout;
    clock.decide_until - decider_timeout.min(app.settings.http.request_budget / 2)
}

/// The complete body, if it arrives before `deadline`; `None` if IMPORTGUARD_MAX_BYTES_IN_FLIGHT left no room for it in time.
pub(crate) async fn collect(
    app: &App,
    head: &RequestHead,
    body: Body,
    deadline: Instant,
) -> Result<Option<Bytes>, Rejection> {
    let settings = &app.settings.http;
    let too_large = Rejection::TooLarge {
        what: "the body",
        max: settings.max_body_bytes,
        unit: "bytes",
    };
    // What the header Content-Length says.
    if body.size_hint().lower() > settings.max_body_bytes as u64 {
        return Err(too_large);
    }
    let limits = ReceiveLimits {
        max_bytes: settings.max_body_bytes,
        due: Instant::now() + settings.body_read_timeout,
        deadline,
    };
    match receive(body, &head.exchange, limits).await {
        Ok(body) => Ok(Some(body)),
        Err(ReceiveError::NoMemory) => Ok(None),
        Err(ReceiveError::TooLarge) => Err(too_large),
        Err(ReceiveError::TooSlow) => Err(Rejection::TooSlow),
        Err(error @ ReceiveError::Broken(_)) => Err(Rejection::Malformed(error.to_string())),
    }
}
