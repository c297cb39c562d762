//! The handlers, one per kind of callback.

mod after_import;
mod before_import;
mod overridden_verdicts;
mod pass_through;

use tracing::Span;

pub(crate) use self::{
    after_import::after_import,
    before_import::{before_import, unrecorded_overload},
    overridden_verdicts::OverriddenVerdicts,
    pass_through::pass_through,
};
use crate::{
    app::App,
    decide::OnFailure,
    events::Event,
    layers::{Clock, published, unrecorded},
};

/// Records an event. Fails with the operator's fallback if that is impossible. Must complete before the callback is answered.
async fn publish(app: &App, event: Event, span: Span, clock: Clock) -> Result<(), OnFailure> {
    let recorded = app.recorder.record(event, clock.deadline).await;
    span.in_scope(|| published(&recorded));
    match recorded {
        Ok(_) => Ok(()),
        Err(error) => {
            let answer = app.fallback.on_unrecordable;
            unrecorded(&error, answer);
            Err(answer)
        }
    }
}
