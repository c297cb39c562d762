use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use importguard_core::{Cause, Dialect, EventId};
use tracing::{error, info};

use super::publish;
use crate::{
    events::Subject,
    limit::Overloaded,
    openim::{Answer, AnswerBody, Import, Rejection},
    request::{Clock, RequestResult},
    state::App,
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
    let event = |context| app.origin.imported(context, &request);
    let imported = (id, Subject::Imported);
    let published = publish(&app, imported, replaced.clone(), clock, event).await;
    info!(
        friends = request.friends.len(),
        replaced_operation_id = replaced,
        "import reported as done"
    );
    let mut response =
        AnswerBody(Answer::Allow.encode(Dialect::Server, app.settings.http.refusals))
            .into_response();
    let result = RequestResult::Done(published.err().map(|_| Cause::Unrecordable));
    response.extensions_mut().insert(result);
    Ok(response)
}
