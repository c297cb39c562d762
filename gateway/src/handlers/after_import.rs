use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use importguard_core::{Cause, Dialect, EventId};
use importguard_telemetry::propagation;
use tracing::{error, info};

use super::publish;
use crate::{
    app::App,
    events::{EventContext, Subject},
    layers::{Clock, Overloaded, RequestResult, publish_span},
    openim::{Answer, AnswerBody, Import, Rejection},
};

/// Records a completed import. The answer allows whatever the result, as the friends are already stored.
pub(crate) async fn after_import(
    State(app): State<App>,
    Extension(clock): Extension<Clock>,
    overloaded: Option<Extension<Overloaded>>,
    import: Import,
) -> Result<Response, Rejection> {
    if overloaded.is_some() {
        return Err(Rejection::Overloaded);
    }
    let (request, replaced) = (import.request, import.replaced_operation_id);
    if let Some(verdict) = app.overridden_verdicts.contradicted(&request) {
        app.metrics.verdict_ignored(verdict);
        error!(
            verdict = verdict.as_str(),
            friends = request.friends.len(),
            "OpenIM reports an import as done that this gateway had refused or shortened: OpenIM 3.6.0 ignores refusals (set IMPORTGUARD_REFUSALS=unreadable), or something between OpenIM and importguard changes answers"
        );
    }
    let id = EventId::new();
    let span = publish_span(Subject::Imported.as_str(), id, app.recorder.server());
    let context = EventContext {
        id,
        headers: span.in_scope(propagation::message_headers),
        max_payload: app.recorder.max_payload(),
        replaced_operation_id: replaced.clone(),
    };
    let event = app.origin.imported(context, &request);
    let published = publish(&app, event, span, clock).await;
    info!(
        friends = request.friends.len(),
        replaced_operation_id = replaced,
        "import reported as done"
    );
    let mut response =
        AnswerBody(Answer::Allow.encode(Dialect::Server, app.refusals)).into_response();
    let result = RequestResult::Done(published.err().map(|_| Cause::Unrecordable));
    response.extensions_mut().insert(result);
    Ok(response)
}
