use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use importguard_core::{Cause, Dialect, EventId};
use importguard_telemetry::propagation;
use tracing::info;

use super::publish;
use crate::{
    app::App,
    events::{EventContext, Subject},
    layers::{Clock, Outcome, Overloaded, publish_span},
    openim::{Answer, Answered, Import, Rejection},
};

/// An import took place: it is recorded, and OpenIM goes on whatever becomes of that, as the friends are stored.
pub(crate) async fn after_import(
    State(app): State<App>,
    Extension(clock): Extension<Clock>,
    overloaded: Option<Extension<Overloaded>>,
    import: Import,
) -> Result<Response, Rejection> {
    if overloaded.is_some() {
        return Err(Rejection::Overloaded);
    }
    let request = import.request;
    let id = EventId::new();
    let span = publish_span(Subject::Imported.as_str(), id, app.recorder.server());
    let context = EventContext {
        id,
        headers: span.in_scope(propagation::message_headers),
        max_payload: app.recorder.max_payload(),
    };
    let event = app.origin.imported(context, &request);
    let published = publish(&app, event, span, clock).await;
    info!(friends = request.friends.len(), "import reported as done");
    let mut response = Answered(Answer::Allow.encode(Dialect::Server)).into_response();
    let end = Outcome::Done(published.err().map(|_| Cause::Unrecordable));
    response.extensions_mut().insert(end);
    Ok(response)
}
