use axum::{Extension, extract::State, response::Response};
use importguard_core::{Cause, Decision, Dialect, EventId, ImportRequest};
use importguard_telemetry::span;
use tokio::time::Instant;

use super::publish;
use crate::{
    decide::OnFailure,
    events::{Subject, Timings},
    limit::Overloaded,
    openim::Import,
    request::{
        Clock,
        log::{decided, undecided},
    },
    response::{answer, fallback},
    state::App,
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
        Some(_) => fallback(Cause::Overloaded, app.settings.fallback.on_overload),
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
    let published = publish(&app, (id, subject), replaced.clone(), clock, event).await;
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
    answer(&app, dialect, Some(&request), &decision, cause)
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
