//! The handlers, one per kind of callback.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use importguard_core::{Cause, Decision, Dialect, EventId, ImportRequest};
use importguard_telemetry::{metrics::Label, propagation, span};
use tokio::time::Instant;
use tracing::{error, info};

use crate::{
    admission::{Import, collect},
    app::App,
    decide::{OnFailure, fallback},
    events::{Event, EventContext, Subject, Timings},
    openim::{Answer, Callback, Rejection},
    request::{
        Clock, RequestHead, RequestResult,
        log::{decided, undecided, unrecorded},
        span::{publish_span, published},
    },
    response::{answer, respond},
    upstream::UpstreamError,
};

/// Decides on an import, records the decision and answers.
pub(crate) async fn before_import(
    State(app): State<App>,
    Import {
        head,
        dialect,
        request,
        permit,
    }: Import,
) -> Response {
    let clock = head.clock;
    let replaced = head.replaced_operation_id.as_deref();
    let id = EventId::new();
    let began = Instant::now();
    let decision = match permit {
        Some(_) => decide(&app, id, &request, clock).await,
        None => fallback(Cause::Overloaded, app.settings.fallback.on_overload),
    };
    let timings = Timings {
        decide: began.elapsed(),
        total: clock.elapsed(),
    };
    let subject = Subject::from(decision.verdict());
    let event = |context| {
        app.origin
            .decision(context, &request, dialect, &decision, timings)
    };
    let published = publish(&app, (id, subject), &head, event).await;
    if span::sampled() {
        app.origin.trace(&decision);
    }
    let (decision, cause) = recorded(decision, published);
    app.metrics.decided(&decision);
    if permit.is_some() {
        decided(&request, replaced, &decision, clock);
    }
    if dialect == Dialect::Server {
        app.overridden_verdicts
            .answered(&request, decision.verdict().kind());
    }
    answer(&app, dialect, Some(&request), &decision, cause)
}

/// Records a completed import. The answer allows whatever the result, as the friends are already stored.
pub(crate) async fn after_import(
    State(app): State<App>,
    Import {
        head,
        request,
        permit: _held,
        ..
    }: Import,
) -> Response {
    if let Some(verdict) = app.overridden_verdicts.contradicted(&request) {
        app.metrics.verdicts_ignored.get(Label(verdict)).inc();
        error!(
            verdict = verdict.into_str(),
            friends = request.friends.len(),
            "OpenIM reports an import as done that this gateway had refused or shortened: OpenIM 3.6.0 ignores refusals (set IMPORTGUARD_REFUSALS=unreadable), or something between OpenIM and importguard changes answers"
        );
    }
    let id = EventId::new();
    let event = |context| app.origin.imported(context, &request);
    let imported = (id, Subject::Imported);
    let published = publish(&app, imported, &head, event).await;
    info!(
        friends = request.friends.len(),
        replaced_operation_id = head.replaced_operation_id,
        "import reported as done"
    );
    let result = RequestResult::Done(published.err().map(|_| Cause::Unrecordable));
    respond(&app, Dialect::Server, Answer::Allow, result)
}

/// Handles requests without a route: forwards OpenIM's other callbacks to the upstream backend, if one is set, and its responses back
/// unchanged. Rejects everything else. A request is received first, so that slow callers hold up no others.
pub(crate) async fn pass_through(
    State(app): State<App>,
    Extension(request_head): Extension<Arc<RequestHead>>,
    request: Request,
) -> Result<Response, Rejection> {
    let (head, body) = request.into_parts();
    let upstream = match (&request_head.target.callback, &app.upstream) {
        (Callback::Other, Some(upstream)) => upstream,
        (Callback::Other, None) => return Err(Rejection::NoUpstream),
        (Callback::Rejected(rejection), _) => return Err(rejection.clone()),
        (Callback::Ours(_), _) => return Err(Rejection::UnknownCommand),
    };
    let below = request_head
        .target
        .below(request_head.url.path())
        .unwrap_or_default();
    let body = collect(&app, &request_head, body, request_head.clock.deadline).await?;
    let body = body.ok_or(Rejection::Overloaded)?;
    let forwarded = upstream.forward(below, request_head.url.query(), &head, body);
    let mut response = forwarded.await.map_err(|error| {
        app.log.not_forwarded(&error);
        match error {
            UpstreamError::Unavailable(_) | UpstreamError::Loop => Rejection::UpstreamUnavailable,
            UpstreamError::Timeout(_) => Rejection::UpstreamTimeout,
            UpstreamError::Overloaded => Rejection::Overloaded,
        }
    })?;
    response.extensions_mut().insert(RequestResult::Done(None));
    Ok(response)
}

/// A decider's verdict within the deadline, or the operator's fallback.
async fn decide(app: &App, id: EventId, request: &ImportRequest, clock: Clock) -> Decision {
    let began = Instant::now();
    let within = app.settings.decide.decider_timeout.min(clock.left());
    let decision = match app.deciders.decide(id, request, within).await {
        Ok((evaluation, decider)) => Decision::Policy {
            evaluation,
            decider,
        },
        Err(error) => {
            let cause = error.cause();
            let answer = app.settings.fallback.on(cause);
            undecided(&error, answer);
            fallback(cause, answer)
        }
    };
    app.metrics
        .decider_called(decision.cause(), began.elapsed());
    decision
}

/// The decision to answer with once its event was recorded or not, and the cause of a failure up to then.
fn recorded(decision: Decision, published: Result<(), OnFailure>) -> (Decision, Option<Cause>) {
    match published {
        Ok(()) => {
            let cause = decision.cause();
            (decision, cause)
        }
        Err(OnFailure::Allow) => (decision, Some(Cause::Unrecordable)),
        Err(OnFailure::Refuse) => {
            let refused = fallback(Cause::Unrecordable, OnFailure::Refuse);
            (refused, Some(Cause::Unrecordable))
        }
    }
}

/// Records an event. Fails with the operator's fallback if that is impossible. Must complete before the callback is answered.
async fn publish(
    app: &App,
    (id, subject): (EventId, Subject),
    head: &RequestHead,
    event: impl FnOnce(EventContext) -> Event,
) -> Result<(), OnFailure> {
    let span = publish_span(subject.into_str(), id, app.recorder.server());
    let event = event(EventContext {
        id,
        headers: span.in_scope(propagation::message_headers),
        max_payload: app.recorder.max_payload(),
        replaced_operation_id: head.replaced_operation_id.clone(),
    });
    // Boxed, as thousands of callbacks that wait for a permit would have the bytes of this future, too.
    let recorded = Box::pin(app.recorder.record(event, head.clock.deadline)).await;
    span.in_scope(|| published(&recorded));
    match recorded {
        Ok(_) => Ok(()),
        Err(error) => {
            let answer = app.settings.fallback.on_unrecordable;
            unrecorded(&error, answer);
            Err(answer)
        }
    }
}
