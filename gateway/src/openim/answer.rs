//! A callback's answer, byte for byte as OpenIM's page "Callback Before Importing Friends" and open-im-server's source have it.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, header};
use importguard_core::{Dialect, ImportRequest, Kept, UserId};
use serde::{Serialize, Serializer};

use super::{Rejection, Target};

/// The response to OpenIM.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// Go on.
    Allow,
    /// Do not go on.
    Refuse {
        /// `errCode`, 5000–9999.
        code: i32,
        /// `errMsg`: short.
        message: &'a str,
        /// `errDlt`: more.
        detail: &'a str,
        /// The request, where it could be read: the documented dialect repeats it.
        request: Option<&'a ImportRequest>,
    },
    /// Go on with these only.
    Modify {
        /// The request.
        request: &'a ImportRequest,
        /// Its friends that are left.
        kept: &'a Kept,
    },
}

impl Answer<'_> {
    /// The answer's body in `dialect`.
    pub fn encode(&self, dialect: Dialect) -> Bytes {
        let wire = match *self {
            Self::Allow => Wire::go_on(dialect),
            Self::Refuse {
                code,
                message,
                detail,
                request,
            } => Wire {
                err_code: code,
                err_msg: message,
                err_dlt: detail,
                ..Wire::stop(dialect, request)
            },
            Self::Modify { request, kept } => Wire {
                owner_user_id: Some(&request.owner),
                friend_user_ids: Some(Friends::Kept(&request.friends, kept.indexes())),
                ..Wire::go_on(dialect)
            },
        };
        // Writing strings and numbers to memory cannot fail; were it to, an empty body is read as a failure, not as consent.
        Bytes::from(serde_json::to_vec(&wire).unwrap_or_default())
    }
}

/// An answer's body, ready to be sent. Whatever else a handler or a layer responds with is replaced by a refusal.
#[derive(Clone, Debug)]
pub(crate) struct Answered(pub(crate) Bytes);

/// Marks a response as a callback answer.
#[derive(Clone, Copy, Debug)]
struct Complete;

impl IntoResponse for Answered {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.0));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response.extensions_mut().insert(Complete);
        response
    }
}

/// Makes a callback answer of whatever a handler or a layer responded with. What is none yet refuses, and says why if it is a
/// [`Rejection`]. A report of something done gets "go on" and 200 all the same: OpenIM up to 3.5 would call the deed failed. But
/// who may not ask is told so.
pub(crate) fn complete(response: Response, target: &Target) -> (Response, Option<Rejection>) {
    let extensions = response.extensions();
    if extensions.get::<Complete>().is_some() || extensions.get::<PassedOn>().is_some() {
        return (response, None);
    }
    let rejection = extensions.get::<Rejection>().cloned();
    let rejection = rejection.unwrap_or_else(|| Rejection::of(response.status()));
    let excused = target.is_report && rejection.excuses_reports();
    let answer = if excused {
        Answer::Allow.encode(target.dialect)
    } else {
        encode_rejection(&rejection, target.dialect)
    };
    let mut completed = Answered(answer).into_response();
    if !excused {
        *completed.status_mut() = rejection.status();
        for name in [header::ALLOW, header::WWW_AUTHENTICATE] {
            for value in response.headers().get_all(&name) {
                completed.headers_mut().append(name.clone(), value.clone());
            }
        }
    }
    (completed, Some(rejection))
}

/// Marks a response that is the operator's backend's, and none of importguard's business.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassedOn;

fn encode_rejection(rejection: &Rejection, dialect: Dialect) -> Bytes {
    Answer::Refuse {
        code: rejection.code(),
        message: rejection.message(),
        detail: &rejection.to_string(),
        request: None,
    }
    .encode(dialect)
}

/// The fields in the documentation's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    action_code: i32,
    err_code: i32,
    err_msg: &'a str,
    err_dlt: &'a str,
    next_code: NextCode,
    #[serde(rename = "ownerUserID", skip_serializing_if = "Option::is_none")]
    owner_user_id: Option<&'a UserId>,
    #[serde(rename = "friendUserIDs", skip_serializing_if = "Option::is_none")]
    friend_user_ids: Option<Friends<'a>>,
}

impl<'a> Wire<'a> {
    fn go_on(dialect: Dialect) -> Self {
        Self {
            action_code: 0,
            err_code: 0,
            err_msg: "",
            err_dlt: "",
            next_code: NextCode { dialect, code: 0 },
            owner_user_id: None,
            friend_user_ids: None,
        }
    }

    /// In the server's dialect `actionCode` stays 0: since 3.7.0 a server that reads 1 there imports everybody.
    fn stop(dialect: Dialect, request: Option<&'a ImportRequest>) -> Self {
        let repeated = request.filter(|_| dialect == Dialect::Documented);
        Self {
            action_code: match dialect {
                Dialect::Documented => 1,
                Dialect::Server => 0,
            },
            next_code: NextCode { dialect, code: 1 },
            owner_user_id: repeated.map(|request| &request.owner),
            friend_user_ids: repeated.map(|request| Friends::All(&request.friends)),
            ..Self::go_on(dialect)
        }
    }
}

/// `nextCode`: a string in the documentation, an integer in the server's source.
struct NextCode {
    dialect: Dialect,
    code: u8,
}

impl Serialize for NextCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.dialect, self.code) {
            (Dialect::Documented, 0) => serializer.serialize_str("0"),
            (Dialect::Documented, _) => serializer.serialize_str("1"),
            (Dialect::Server, code) => serializer.serialize_u8(code),
        }
    }
}

enum Friends<'a> {
    All(&'a [UserId]),
    Kept(&'a [UserId], &'a [u32]),
}

impl Serialize for Friends<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(friends) => friends.serialize(serializer),
            Self::Kept(friends, kept) => {
                serializer.collect_seq(kept.iter().filter_map(|&index| friends.get(index as usize)))
            }
        }
    }
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
        String::from_utf8(answer.encode(dialect).to_vec()).unwrap()
    }

    #[test]
    fn speaks_the_documented_dialect_byte_for_byte() {
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
    fn speaks_the_servers_dialect_byte_for_byte() {
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

    fn completed(response: Response, path: &str, query: Option<&str>) -> (StatusCode, String) {
        let target = Target::of(&"/".parse().unwrap(), path, query);
        let (response, _) = complete(response, &target);
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
    fn whatever_a_library_responds_with_becomes_a_refusal() {
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
    fn a_report_is_never_refused_but_to_who_may_not_make_one() {
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
