use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use importguard_core::{Cause, Decision, Dialect, EventId, ImportRequest, Verdict};
use importguard_telemetry::{propagation, span};
use tokio::time::Instant;

use super::publish;
use crate::{
    app::App,
    decide::{OnFailure, verdict},
    events::{EventContext, Subject, Timings},
    layers::{Clock, Overloaded, RequestResult, decided, publish_span, undecided},
    openim::{Answer, AnswerBody, Callback, Command, Import, Rejection, RequestHead},
};

/// Decides on an import, records the decision and answers.
pub(crate) async fn before_import(
    State(app): State<App>,
    Extension(clock): Extension<Clock>,
    overloaded: Option<Extension<Overloaded>>,
    Import {
        dialect,
        request,
        replaced_operation_id: replaced,
    }: Import,
) -> Response {
    let id = EventId::new();
    let began = Instant::now();
    let decision = match overloaded {
        None => decide(&app, id, &request, clock).await,
        Some(_) => fallback(Cause::Overloaded, app.fallback.on_overload),
    };
    let timings = Timings {
        decide: began.elapsed(),
        total: clock.elapsed(),
    };
    let span = publish_span(
        Subject::from(decision.verdict()).as_str(),
        id,
        app.recorder.server(),
    );
    let context = EventContext {
        id,
        headers: span.in_scope(propagation::message_headers),
        max_payload: app.recorder.max_payload(),
        replaced_operation_id: replaced.clone(),
    };
    let event = app
        .origin
        .decision(context, &request, dialect, &decision, timings);
    let published = publish(&app, event, span, clock).await;
    if span::sampled() {
        app.origin.trace(&decision);
    }
    let (decision, cause) = recorded(decision, published);
    app.metrics.decided(&decision);
    if overloaded.is_none() {
        decided(&request, replaced.as_deref(), &decision, clock);
    }
    if dialect == Dialect::Server {
        app.overridden_verdicts
            .answered(&request, decision.verdict().kind());
    }
    answer(&app, dialect, &request, &decision, cause)
}

/// A decider's verdict within the deadline, or the operator's fallback.
async fn decide(app: &App, id: EventId, request: &ImportRequest, clock: Clock) -> Decision {
    let began = Instant::now();
    let within = app.decider_timeout.min(clock.left());
    let decision = match app.deciders.decide(id, request, within).await {
        Ok((evaluation, decider)) => Decision::Policy {
            evaluation,
            decider,
        },
        Err(error) => {
            let cause = error.cause();
            let answer = app.fallback.on(cause);
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

fn answer(
    app: &App,
    dialect: Dialect,
    request: &ImportRequest,
    decision: &Decision,
    cause: Option<Cause>,
) -> Response {
    let answer = match decision.verdict() {
        Verdict::Allow => Answer::Allow,
        Verdict::Modify(kept) => Answer::Modify { request, kept },
        Verdict::Refuse(refusal) => Answer::Refuse {
            code: refusal.code,
            message: &refusal.message,
            detail: &refusal.detail,
            request: Some(request),
        },
    };
    response(answer.encode(dialect, app.refusals), decision, cause)
}

/// Answers a callback without parsing or recording it, during overload. Allows it only if the operator also allows unrecorded
/// decisions.
pub(crate) fn unrecorded_overload(app: &App, request_head: &RequestHead) -> Response {
    let Callback::Ours(Command::BeforeImport(dialect)) = request_head.target.callback else {
        // An after-import callback needs no verdict.
        return Rejection::Overloaded.into_response();
    };
    let (cause, answer) = match (app.fallback.on_overload, app.fallback.on_unrecordable) {
        (OnFailure::Allow, OnFailure::Refuse) => (Cause::Unrecordable, OnFailure::Refuse),
        (answer, _) => (Cause::Overloaded, answer),
    };
    let decision = fallback(cause, answer);
    app.metrics.decided(&decision);
    let answer = match decision.verdict() {
        Verdict::Allow | Verdict::Modify(_) => Answer::Allow,
        Verdict::Refuse(refusal) => Answer::Refuse {
            code: refusal.code,
            message: &refusal.message,
            detail: &refusal.detail,
            request: None,
        },
    };
    response(answer.encode(dialect, app.refusals), &decision, Some(cause))
}

fn response(answer: Bytes, decision: &Decision, cause: Option<Cause>) -> Response {
    let mut response = AnswerBody(answer).into_response();
    let result = RequestResult::Decided(decision.verdict().kind().as_str(), cause);
    response.extensions_mut().insert(result);
    response
}

fn fallback(cause: Cause, answer: OnFailure) -> Decision {
    Decision::Fallback {
        verdict: verdict(cause, answer),
        cause,
    }
}
