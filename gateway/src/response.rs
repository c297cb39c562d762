//! The response to a decision.

use axum::response::{IntoResponse, Response};
use importguard_core::{Cause, Decision, Dialect, ImportRequest, Verdict};

use crate::{
    decide::{OnFailure, fallback},
    openim::{Answer, AnswerBody, Callback, Command, Rejection},
    request::{RequestHead, RequestResult},
    state::App,
};

/// Answers a callback with `decision`. `cause` is that of a failure, if there was one. The request is `None` if it was not parsed: then
/// nothing can be modified.
pub(crate) fn answer(
    app: &App,
    dialect: Dialect,
    request: Option<&ImportRequest>,
    decision: &Decision,
    cause: Option<Cause>,
) -> Response {
    let answer = match (decision.verdict(), request) {
        (Verdict::Modify(kept), Some(request)) => Answer::Modify { request, kept },
        (Verdict::Allow | Verdict::Modify(_), _) => Answer::Allow,
        (Verdict::Refuse(refusal), request) => Answer::Refuse {
            code: refusal.code,
            message: &refusal.message,
            detail: &refusal.detail,
            request,
        },
    };
    let mut response =
        AnswerBody(answer.encode(dialect, app.settings.http.refusals)).into_response();
    let result = RequestResult::Decided(decision.verdict().kind().as_str(), cause);
    response.extensions_mut().insert(result);
    response
}

/// Answers a callback without parsing or recording it, during overload. Allows it only if the operator also allows unrecorded
/// decisions.
pub(crate) fn unrecorded_overload(app: &App, request_head: &RequestHead) -> Response {
    let Callback::Ours(Command::BeforeImport(dialect)) = request_head.target.callback else {
        // An after-import callback needs no verdict.
        return Rejection::Overloaded.into_response();
    };
    let settings = &app.settings.fallback;
    let (cause, chosen) = match (settings.on_overload, settings.on_unrecordable) {
        (OnFailure::Allow, OnFailure::Refuse) => (Cause::Unrecordable, OnFailure::Refuse),
        (chosen, _) => (Cause::Overloaded, chosen),
    };
    let decision = fallback(cause, chosen);
    app.metrics.decided(&decision);
    answer(app, dialect, None, &decision, Some(cause))
}
