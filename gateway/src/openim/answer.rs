//! Callback answers, exactly as OpenIM's page "Callback Before Importing Friends" and open-im-server's source define them.

use bytes::Bytes;
use clap::ValueEnum;
use importguard_core::{Dialect, ImportRequest, Kept, UserId};
use serde::Serialize;

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
}
