//! A callback's answer, byte for byte as OpenIM's page "Callback Before Importing Friends" and open-im-server's source have it.

use bytes::Bytes;
use importguard_proto::{UserId, UserIds, event::Dialect};
use serde::{Serialize, Serializer};

use super::{ImportRequest, Rejection};

/// What OpenIM is told.
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
        /// Ascending indexes into its friends; at least one.
        kept: &'a [u32],
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
                friend_user_ids: Some(Friends::Kept(&request.friends, kept)),
                ..Wire::go_on(dialect)
            },
        };
        // Writing strings and numbers to memory cannot fail; were it to, an empty body is read as a failure, not as consent.
        Bytes::from(serde_json::to_vec(&wire).unwrap_or_default())
    }
}

/// The body of the answer to a request that was not decided upon.
pub(crate) fn encode_rejection(rejection: &Rejection) -> Bytes {
    Answer::Refuse {
        code: rejection.reason.code(),
        message: rejection.reason.message(),
        detail: &rejection.reason.to_string(),
        request: None,
    }
    .encode(rejection.dialect)
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
    All(&'a UserIds),
    Kept(&'a UserIds, &'a [u32]),
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
    use importguard_proto::OperationId;

    use super::*;
    use crate::callback::Reason;

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
            kept: &[1],
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
            kept: &[0],
        };
        assert_eq!(
            text(modify, Dialect::Server),
            r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0,"ownerUserID":"user123","friendUserIDs":["user456"]}"#
        );
    }

    #[test]
    fn a_rejection_refuses_in_both_dialects() {
        let rejected = |dialect| {
            let rejection = Rejection {
                dialect,
                reason: Reason::MethodNotAllowed,
            };
            String::from_utf8(encode_rejection(&rejection).to_vec()).unwrap()
        };
        assert_eq!(
            rejected(Dialect::Server),
            r#"{"actionCode":0,"errCode":5900,"errMsg":"method not allowed","errDlt":"callbacks are sent with POST","nextCode":1}"#
        );
        assert_eq!(
            rejected(Dialect::Documented),
            r#"{"actionCode":1,"errCode":5900,"errMsg":"method not allowed","errDlt":"callbacks are sent with POST","nextCode":"1"}"#
        );
    }
}
