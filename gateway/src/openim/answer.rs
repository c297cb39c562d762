//! Callback answers, exactly as OpenIM's page "Callback Before Importing Friends" and open-im-server's source define them.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use clap::ValueEnum;
use http::{HeaderValue, header};
use importguard_core::{Dialect, ImportRequest, Kept, UserId};
use serde::Serialize;

use super::{Rejection, Target};

/// A callback's answer.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// The import may proceed.
    Allow,
    /// The import must not proceed.
    Refuse {
        /// `errCode`, 5000–9999.
        code: i32,
        /// `errMsg`: a short message.
        message: &'a str,
        /// `errDlt`: the details.
        detail: &'a str,
        /// The request, if it was parsed: the documented dialect repeats it.
        request: Option<&'a ImportRequest>,
    },
    /// The import may proceed with these friends only.
    Modify {
        /// The request.
        request: &'a ImportRequest,
        /// The friends that are kept.
        kept: &'a Kept,
    },
}

/// How refusals in open-im-server's dialect are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Refusals {
    /// As OpenIM expects them; its API returns errCode, errMsg and errDlt. OpenIM 3.6.0 and 3.6.1-beta.0 log them and import anyway
    #[default]
    Readable,
    /// With a nextCode that OpenIM cannot parse, so that the import fails with 90007, on 3.6.0 too. Up to 3.6, failedContinue must be
    /// false in OpenIM
    Unreadable,
}

impl Answer<'_> {
    /// The answer's body in `dialect`; a refusal in the server's dialect is written as `refusals` says.
    pub fn encode(&self, dialect: Dialect, refusals: Refusals) -> Bytes {
        let wire = match *self {
            Self::Allow => Wire::allow(dialect),
            Self::Refuse {
                code,
                message,
                detail,
                request,
            } => Wire {
                err_code: code,
                err_msg: message,
                err_dlt: detail,
                ..Wire::refuse(dialect, refusals, request)
            },
            Self::Modify { request, kept } => Wire {
                owner_user_id: Some(&request.owner),
                friend_user_ids: Some(
                    kept.indexes()
                        .iter()
                        .filter_map(|&index| request.friends.get(index as usize))
                        .collect(),
                ),
                ..Wire::allow(dialect)
            },
        };
        // Serialising strings and numbers to memory cannot fail. OpenIM would read an empty body as an error, not as consent.
        Bytes::from(serde_json::to_vec(&wire).unwrap_or_default())
    }
}

/// The body of an answer. [`complete`] replaces any other response by a refusal.
#[derive(Clone, Debug)]
pub(crate) struct AnswerBody(pub(crate) Bytes);

/// A response extension: the response is a callback answer.
#[derive(Clone, Copy, Debug)]
struct IsAnswer;

impl IntoResponse for AnswerBody {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.0));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response.extensions_mut().insert(IsAnswer);
        response
    }
}

/// Turns a response into a callback answer, unless it is one or was forwarded: into a refusal, with the reason if it is a
/// [`Rejection`]. An after-import callback gets an allowing answer with status 200 instead, since OpenIM up to 3.5 would report the
/// completed import as failed; but not if it is unauthenticated. A refusal is written as `refusals` says, unless it answers an
/// after-callback.
pub(crate) fn complete(
    response: Response,
    target: &Target,
    refusals: Refusals,
) -> (Response, Option<Rejection>) {
    let extensions = response.extensions();
    if extensions.get::<IsAnswer>().is_some() || extensions.get::<Forwarded>().is_some() {
        return (response, None);
    }
    let rejection = extensions.get::<Rejection>().cloned();
    let rejection = rejection.unwrap_or_else(|| Rejection::of(response.status()));
    let allowed = target.is_after && rejection.allows_after();
    let answer = if allowed {
        Answer::Allow.encode(target.dialect, refusals)
    } else {
        // Unreadable, it would make OpenIM 3.6 report the completed import as failed.
        let refusals = match target.is_after {
            true => Refusals::Readable,
            false => refusals,
        };
        encode_rejection(&rejection, target.dialect, refusals)
    };
    let mut completed = AnswerBody(answer).into_response();
    if !allowed {
        *completed.status_mut() = rejection.status();
        for name in [header::ALLOW, header::WWW_AUTHENTICATE] {
            for value in response.headers().get_all(&name) {
                completed.headers_mut().append(name.clone(), value.clone());
            }
        }
    }
    (completed, Some(rejection))
}

/// A response extension: the response is the upstream backend's and must not be changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarded;

fn encode_rejection(rejection: &Rejection, dialect: Dialect, refusals: Refusals) -> Bytes {
    Answer::Refuse {
        code: rejection.code(),
        message: rejection.message(),
        detail: &rejection.to_string(),
        request: None,
    }
    .encode(dialect, refusals)
}

// The fields are in the documentation's order; their comments are the descriptions in docs/openapi.json.
/// A callback answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Wire<'a> {
    /// In the documented dialect, 1 in a refusal. In the server's it is always 0: OpenIM 3.7 and later import if it is not
    action_code: i32,
    /// 0, or why the import is refused: 5900 to 5999 are importguard's own reasons, the rest of 5000 to 9999 the policy's. OpenIM's API
    /// returns it to its caller
    err_code: i32,
    /// A short reason, which OpenIM's API returns to its caller
    err_msg: &'a str,
    /// The reason in detail, which OpenIM's API returns to its caller
    err_dlt: &'a str,
    /// What to do: 0 to import, 1 to refuse. A number in the server's dialect, a string in the documented one
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    next_code: NextCode,
    /// The owner, as in the request. OpenIM ignores it
    #[serde(rename = "ownerUserID", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "UserId"))]
    owner_user_id: Option<&'a UserId>,
    /// In an answer that allows, the friends to import instead of those in the request. In a refusal, those in the request
    #[serde(rename = "friendUserIDs", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Vec<UserId>"))]
    friend_user_ids: Option<Vec<&'a UserId>>,
}

impl<'a> Wire<'a> {
    fn allow(dialect: Dialect) -> Self {
        Self {
            action_code: 0,
            err_code: 0,
            err_msg: "",
            err_dlt: "",
            next_code: match dialect {
                Dialect::Documented => NextCode::Text("0"),
                Dialect::Server => NextCode::Number(0),
            },
            owner_user_id: None,
            friend_user_ids: None,
        }
    }

    /// In the server's dialect, `actionCode` stays 0: open-im-server 3.7.0 and later imports all friends if it is 1.
    fn refuse(dialect: Dialect, refusals: Refusals, request: Option<&'a ImportRequest>) -> Self {
        let repeated = request.filter(|_| dialect == Dialect::Documented);
        Self {
            action_code: match dialect {
                Dialect::Documented => 1,
                Dialect::Server => 0,
            },
            next_code: match (dialect, refusals) {
                (Dialect::Server, Refusals::Readable) => NextCode::Number(1),
                (Dialect::Documented, _) | (_, Refusals::Unreadable) => NextCode::Text("1"),
            },
            owner_user_id: repeated.map(|request| &request.owner),
            friend_user_ids: repeated.map(|request| request.friends.iter().collect()),
            ..Self::allow(dialect)
        }
    }
}

/// `nextCode`: a string in the documentation, an integer in the server's source, which cannot parse a string.
#[derive(Serialize)]
#[serde(untagged)]
enum NextCode {
    Number(u8),
    Text(&'static str),
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http::StatusCode;
    use http_body_util::BodyExt;
    use importguard_core::OperationId;

    use super::*;

    fn request() -> ImportRequest {
        ImportRequest {
            operation_id: OperationId::parse("1646445464564").unwrap(),
            owner: UserId::parse("user123").unwrap(),
            friends: ["user456", "user789"]
                .map(|id| UserId::parse(id).unwrap())
                .into_iter()
                .collect(),
        }
    }

    fn refusal(request: Option<&ImportRequest>) -> Answer<'_> {
        Answer::Refuse {
            code: 5001,
            message: "User not allowed to import friends",
            detail: "The user does not meet the criteria for importing friends",
            request,
        }
    }

    fn text(answer: Answer<'_>, dialect: Dialect) -> String {
        String::from_utf8(answer.encode(dialect, Refusals::Readable).to_vec()).unwrap()
    }

    #[test]
    fn answers_in_the_documented_dialect_are_exact() {
        let request = request();
        assert_eq!(
            text(Answer::Allow, Dialect::Documented),
            r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":"0"}"#
        );
        assert_eq!(
            text(refusal(Some(&request)), Dialect::Documented),
            r#"{"actionCode":1,"errCode":5001,"errMsg":"User not allowed to import friends","errDlt":"The user does not meet the criteria for importing friends","nextCode":"1","ownerUserID":"user123","friendUserIDs":["user456","user789"]}"#
        );
        let modify = Answer::Modify {
            request: &request,
            kept: &Kept::of(vec![1], &request).unwrap(),
        };
        assert_eq!(
            text(modify, Dialect::Documented),
            r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":"0","ownerUserID":"user123","friendUserIDs":["user789"]}"#
        );
    }

    #[test]
    fn answers_in_the_servers_dialect_are_exact() {
        let request = request();
        assert_eq!(
            text(Answer::Allow, Dialect::Server),
            r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}"#
        );
        assert_eq!(
            text(refusal(Some(&request)), Dialect::Server),
            r#"{"actionCode":0,"errCode":5001,"errMsg":"User not allowed to import friends","errDlt":"The user does not meet the criteria for importing friends","nextCode":1}"#
        );
        let modify = Answer::Modify {
            request: &request,
            kept: &Kept::of(vec![0], &request).unwrap(),
        };
        assert_eq!(
            text(modify, Dialect::Server),
            r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0,"ownerUserID":"user123","friendUserIDs":["user456"]}"#
        );
    }

    #[test]
    fn an_unreadable_refusal_differs_only_in_the_type_of_next_code() {
        let request = request();
        let unreadable = |answer: Answer<'_>, dialect| {
            String::from_utf8(answer.encode(dialect, Refusals::Unreadable).to_vec()).unwrap()
        };
        let refused = unreadable(refusal(Some(&request)), Dialect::Server);
        let readable = text(refusal(Some(&request)), Dialect::Server);
        assert_eq!(
            refused,
            readable.replace("\"nextCode\":1", "\"nextCode\":\"1\"")
        );
        assert_ne!(refused, readable);
        assert_eq!(
            unreadable(refusal(Some(&request)), Dialect::Documented),
            text(refusal(Some(&request)), Dialect::Documented)
        );
        assert_eq!(
            unreadable(Answer::Allow, Dialect::Server),
            text(Answer::Allow, Dialect::Server)
        );
    }

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
