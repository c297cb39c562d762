//! The handlers, one per kind of callback.

mod after_import;
mod before_import;
mod pass_through;

use importguard_core::EventId;
use importguard_telemetry::propagation;

pub(crate) use self::{
    after_import::after_import, before_import::before_import, pass_through::pass_through,
};
use crate::{
    decide::OnFailure,
    events::{Event, EventContext, Subject},
    request::{
        Clock,
        log::unrecorded,
        span::{publish_span, published},
    },
    state::App,
};

/// Records an event. Fails with the operator's fallback if that is impossible. Must complete before the callback is answered.
async fn publish(
    app: &App,
    (id, subject): (EventId, Subject),
    replaced_operation_id: Option<String>,
    clock: Clock,
    event: impl FnOnce(EventContext) -> Event,
) -> Result<(), OnFailure> {
    let span = publish_span(subject.as_str(), id, app.recorder.server());
    let event = event(EventContext {
        id,
        headers: span.in_scope(propagation::message_headers),
        max_payload: app.recorder.max_payload(),
        replaced_operation_id,
    });
    let recorded = app.recorder.record(event, clock.deadline).await;
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
