//! Responses: the answer to a decision, and what every other response becomes.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, header};
use importguard_core::{Cause, Decision, Dialect, ImportRequest, Verdict};

use crate::{
    app::App,
    decide::{OnFailure, fallback},
    openim::{Answer, Callback, Command, Refusals, Rejection, Target},
    request::{RequestHead, RequestResult},
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
    let result = RequestResult::Decided(decision.verdict().kind().into_str(), cause);
    respond(app, dialect, answer, result)
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

/// Answers a callback that was handled with `result`.
pub(crate) fn respond(
    app: &App,
    dialect: Dialect,
    answer: Answer<'_>,
    result: RequestResult,
) -> Response {
    let mut response = json(answer.encode(dialect, app.settings.http.refusals));
    response.extensions_mut().insert(result);
    response
}

fn json(body: Bytes) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], Body::from(body)).into_response()
}

/// Turns a response that has no [`RequestResult`] into a callback answer: into a refusal, with the reason if it is a [`Rejection`]. An
/// after-import callback gets an allowing answer with status 200 instead, since OpenIM up to 3.5 would report the completed import as
/// failed; but not if it is unauthenticated. A refusal is written as `refusals` says, unless it answers an after-callback.
pub(crate) fn complete(
    mut response: Response,
    target: &Target,
    refusals: Refusals,
) -> (Response, RequestResult) {
    if let Some(result) = response.extensions_mut().remove() {
        return (response, result);
    }
    let rejection = response.extensions_mut().remove::<Rejection>();
    let rejection = rejection.unwrap_or_else(|| Rejection::of(response.status()));
    if target.is_after && rejection.allows_after() {
        let allowed = json(Answer::Allow.encode(target.dialect, refusals));
        return (allowed, RequestResult::Rejected(rejection));
    }
    // Unreadable, it would make OpenIM 3.6 report the completed import as failed.
    let refusals = match target.is_after {
        true => Refusals::Readable,
        false => refusals,
    };
    let refusal = Answer::Refuse {
        code: rejection.code(),
        message: rejection.message(),
        detail: &rejection.to_string(),
        request: None,
    };
    let mut refused = json(refusal.encode(target.dialect, refusals));
    *refused.status_mut() = rejection.status();
    for name in [header::ALLOW, header::WWW_AUTHENTICATE] {
        for value in response.headers().get_all(&name) {
            refused.headers_mut().append(name.clone(), value.clone());
        }
    }
    (refused, RequestResult::Rejected(rejection))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http::StatusCode;
    use http_body_util::BodyExt;

    use super::*;

    fn completed(response: Response, path: &str, query: Option<&str>) -> (StatusCode, String) {
        let target = Target::of(&"/".parse().unwrap(), path, query);
        let (response, _) = complete(response, &target, Refusals::Readable);
        let status = response.status();
        let body = response.into_body().collect().now_or_never();
        let body = body.unwrap().unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn a_rejection_refuses_in_both_dialects() {
        let rejected = |query| completed(Rejection::MethodNotAllowed.into_response(), "/", query).1;
        assert_eq!(
            rejected(None),
            r#"{"actionCode":0,"errCode":5900,"errMsg":"method not allowed","errDlt":"callbacks must use POST","nextCode":1}"#
        );
        assert_eq!(
            rejected(Some("command=ImportFriendReqBeforeCommand")),
            r#"{"actionCode":1,"errCode":5900,"errMsg":"method not allowed","errDlt":"callbacks must use POST","nextCode":"1"}"#
        );
    }

    #[test]
    fn any_other_response_becomes_a_refusal() {
        for (status, becomes, code) in [
            (StatusCode::OK, 500, 5915),
            (StatusCode::BAD_REQUEST, 500, 5915),
            (StatusCode::METHOD_NOT_ALLOWED, 405, 5900),
            (StatusCode::NOT_FOUND, 404, 5901),
        ] {
            let response = (status, r#"{"error":"something"}"#).into_response();
            let (status, body) = completed(response, "/x", None);
            assert_eq!(status, becomes);
            assert!(body.contains(&format!("\"errCode\":{code}")), "{body}");
        }
    }

    #[test]
    fn an_after_import_callback_is_only_refused_if_it_is_unauthenticated() {
        let report = |rejection: Rejection| {
            let path = "/callbackAfterImportFriendsCommand";
            completed(rejection.into_response(), path, None)
        };
        for rejection in [
            Rejection::Internal,
            Rejection::Overloaded,
            Rejection::TooSlow,
        ] {
            let (status, body) = report(rejection);
            assert_eq!(
                (status.as_u16(), body.contains("\"nextCode\":0")),
                (200, true)
            );
        }
        let (status, body) = report(Rejection::Unauthorised);
        assert_eq!(
            (status.as_u16(), body.contains("\"nextCode\":1")),
            (401, true)
        );
    }
}
