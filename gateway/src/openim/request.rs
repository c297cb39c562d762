//! Parses the body of a callback.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, header};
use importguard_core::{ImportRequest, OperationId, UserId};
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

use super::{Command, Rejection, command::MAX_QUOTED};

/// Parses the body of `command`, with at most `max_friends` IDs in `friendUserIDs`. Ignores unknown fields. A list of `null` counts as empty: Go's `encoding/json` writes a nil slice so.
pub fn parse(
    command: Command,
    operation_id: OperationId,
    body: &[u8],
    max_friends: usize,
) -> Result<ImportRequest, Rejection> {
    match body.trim_ascii_start().first() {
        None => return Err(Rejection::Malformed("the body is empty".to_owned())),
        // serde would take its elements for the fields.
        Some(b'[') => {
            return Err(Rejection::Malformed(
                "the body is a JSON array, expected an object with callbackCommand, ownerUserID and friendUserIDs".to_owned(),
            ));
        }
        Some(_) => {}
    }
    let body = Body::read(body).map_err(|error| Rejection::Malformed(explain(&error)))?;
    if body.callback_command != command.name() {
        return Err(Rejection::CommandMismatch {
            expected: command.name(),
            found: body.callback_command.chars().take(MAX_QUOTED).collect(),
        });
    }
    if body.friend_user_ids.len() > max_friends {
        return Err(Rejection::TooLarge {
            what: "friendUserIDs",
            max: max_friends,
            unit: "IDs",
        });
    }
    let longest = body
        .friend_user_ids
        .iter()
        .chain([&body.owner_user_id])
        .map(|id| id.as_str().len())
        .max();
    if longest > Some(UserId::MAX_BYTES) {
        return Err(Rejection::TooLarge {
            what: "an ID",
            max: UserId::MAX_BYTES,
            unit: "bytes",
        });
    }
    Ok(ImportRequest {
        operation_id,
        owner: body.owner_user_id,
        friends: body.friend_user_ids,
    })
}

/// Whether the headers allow the body to be parsed: JSON or no `Content-Type`, and not compressed. Every occurrence of a repeated
/// header must be valid.
pub fn acceptable(headers: &HeaderMap) -> bool {
    let all = |name, fits: fn(&str) -> bool| {
        let mut values = headers.get_all(name).iter();
        values.all(|value| value.to_str().is_ok_and(fits))
    };
    all(header::CONTENT_TYPE, is_json) && all(header::CONTENT_ENCODING, is_plain)
}

fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let media_type = media_type.to_ascii_lowercase();
    media_type == "application/json" || media_type == "text/json" || media_type.ends_with("+json")
}

fn is_plain(content_encoding: &str) -> bool {
    content_encoding.is_empty() || content_encoding.eq_ignore_ascii_case("identity")
}

// The fields' comments are the descriptions in docs/openapi.json.
/// A callback of OpenIM about an import. Other fields are ignored.
#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    expecting = "an object with callbackCommand, ownerUserID and friendUserIDs"
)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Body<'a> {
    /// The callback's name, as in the request line
    #[serde(borrow)]
    callback_command: Cow<'a, str>,
    /// The user who imports, in at most 256 bytes
    #[serde(rename = "ownerUserID", deserialize_with = "owner")]
    #[cfg_attr(test, schemars(with = "UserId"))]
    owner_user_id: UserId,
    /// The friends to import, each in at most 256 bytes, and at most IMPORTGUARD_MAX_FRIENDS (10,000). null is an empty list: Go writes it so
    #[serde(rename = "friendUserIDs", deserialize_with = "friends")]
    #[cfg_attr(test, schemars(with = "Option<Vec<UserId>>", required))]
    friend_user_ids: Vec<UserId>,
}

impl<'a> Body<'a> {
    fn read(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        match str::from_utf8(body) {
            // All of it is UTF-8, so that serde need not validate each ID.
            Ok(body) => serde_json::from_str(body),
            // Reports the position of the invalid UTF-8, or ignores it in an unknown field.
            Err(_) => serde_json::from_slice(body),
        }
    }
}

/// The fields with IDs, in errors.
const OWNER: &str = "ownerUserID";
const FRIENDS: &str = "friendUserIDs";

/// An ID whose errors begin with its field's name.
fn owner<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UserId, D::Error> {
    UserId::deserialize(deserializer)
        .map_err(|error| de::Error::custom(format!("{OWNER}: {error}")))
}

/// A list of IDs, or `null`; an error in an ID begins with its index: `friendUserIDs[3]`.
fn friends<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<UserId>, D::Error> {
    struct Friends;

    impl<'de> Visitor<'de> for Friends {
        type Value = Vec<UserId>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of strings in {FRIENDS}")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Self::Value, A::Error> {
            let mut friends = Vec::new();
            loop {
                match ids.next_element() {
                    Ok(Some(id)) => friends.push(id),
                    Ok(None) => return Ok(friends),
                    Err(error) => {
                        let index = friends.len();
                        let error = format!("{FRIENDS}[{index}]: {error}");
                        return Err(de::Error::custom(error));
                    }
                }
            }
        }
    }

    deserializer.deserialize_any(Friends)
}

/// The error without the unexpected value, which serde repeats in full: it may be a user's ID or a megabyte, and this is logged.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (field, text) = match text.split_once(": ") {
        Some((field, rest)) if field == OWNER || field.starts_with(FRIENDS) => (field, rest),
        _ => ("", &*text),
    };
    let (what, expected) = match (text.split_once(": "), text.rfind(", expected ")) {
        // A syntax error within a field is reported as one of its data.
        (Some((what, _)), Some(expected)) if error.is_data() => (what, &text[expected..]),
        _ => (text, ""),
    };
    let what = match (field, what.strip_prefix("it ")) {
        ("", _) => what.to_owned(),
        (field, Some(predicate)) => format!("{field} {predicate}"),
        (field, None) => format!("{field}: {what}"),
    };
    format!("the body cannot be read as the callback's JSON: {what}{expected}")
}

#[cfg(test)]
mod tests {
    use importguard_core::Dialect;

    use super::*;

    const DOCUMENTED: Command = Command::BeforeImport(Dialect::Documented);
    const MAX_FRIENDS: usize = 3;

    fn parse(body: &str) -> Result<ImportRequest, Rejection> {
        let id = OperationId::parse("1").unwrap();
        super::parse(DOCUMENTED, id, body.as_bytes(), MAX_FRIENDS)
    }

    fn friends(body: &str) -> Vec<String> {
        let request = parse(body).unwrap();
        request.friends.into_iter().map(String::from).collect()
    }

    #[test]
    fn parses_the_documented_body_and_ignores_unknown_fields() {
        let body = r#"{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"user123",
            "friendUserIDs":["user456","user789"],"new":{"in":[1,2]}}"#;
        let request = parse(body).unwrap();
        assert_eq!(request.owner.as_str(), "user123");
        assert_eq!(friends(body), ["user456", "user789"]);
    }

    #[test]
    fn an_error_in_an_id_names_its_field() {
        let body = |owner: &str, friends: &str| {
            let body = format!(
                r#"{{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":{owner},"friendUserIDs":{friends}}}"#
            );
            parse(&body).unwrap_err().to_string()
        };
        for (owner, friends, expected) in [
            (
                r#""""#,
                r#"["a"]"#,
                "ownerUserID is empty at line 1 column 66",
            ),
            (
                r#""u""#,
                r#"["a",""]"#,
                "friendUserIDs[1] is empty at line 1 column",
            ),
            (
                "7",
                "[]",
                "ownerUserID: invalid type, expected a string at line 1",
            ),
            (
                r#""u""#,
                "[1]",
                "friendUserIDs[0]: invalid type, expected a string",
            ),
            (
                r#""u""#,
                "7",
                "invalid type, expected a list of strings in friendUserIDs",
            ),
            (r#""u""#, r#"["a"#, "EOF while parsing a string"),
        ] {
            let error = body(owner, friends);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_error_in_the_whole_body_says_what_it_should_be() {
        for (body, expected) in [
            ("", "the body is empty"),
            (" \n", "the body is empty"),
            (
                r#" ["callbackBeforeImportFriendsCommand","u",["f"]]"#,
                "the body is a JSON array, expected an object with callbackCommand, ownerUserID and friendUserIDs",
            ),
            (
                "7",
                "JSON: invalid type, expected an object with callbackCommand, ownerUserID and friendUserIDs at line 1",
            ),
        ] {
            let error = parse(body).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }

    #[test]
    fn null_is_an_empty_list_and_a_missing_list_is_not() {
        let body = r#"{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"u","friendUserIDs":null}"#;
        assert!(friends(body).is_empty());
        let missing = r#"{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"u"}"#;
        assert!(
            matches!(parse(missing), Err(Rejection::Malformed(text)) if text.contains("friendUserIDs"))
        );
    }

    #[test]
    fn an_invalid_or_ambiguous_body_is_malformed() {
        for body in [
            "",
            "null",
            "[]",
            "{",
            r#"{"callbackCommand":"ImportFriendReqBeforeCommand","friendUserIDs":[]}"#,
            r#"{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"","friendUserIDs":[]}"#,
            r#"{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":7,"friendUserIDs":[]}"#,
            r#"{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"u","friendUserIDs":"v"}"#,
            r#"{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"u","friendUserIDs":[null]}"#,
            r#"{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"u","friendUserIDs":[""]}"#,
            r#"{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"u","ownerUserID":"v","friendUserIDs":[]}"#,
            r#"{"ownerUserID":"u","friendUserIDs":[]}"#,
        ] {
            assert!(
                matches!(parse(body), Err(Rejection::Malformed(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn invalid_utf_8_is_malformed_unless_it_is_in_an_unknown_field() {
        let parse = |unknown: &str, friend: &[u8]| {
            let mut body = format!(
                r#"{{"callbackCommand":"ImportFriendReqBeforeCommand","new":"{unknown}","ownerUserID":"u","friendUserIDs":[""#
            )
            .into_bytes();
            for byte in &mut body {
                *byte = if *byte == b'?' { 0xff } else { *byte };
            }
            body.extend([friend, br#""]}"#].concat());
            let id = OperationId::parse("1").unwrap();
            super::parse(DOCUMENTED, id, &body, MAX_FRIENDS)
        };
        assert!(parse("?", b"a").is_ok());
        for unknown in ["", "?"] {
            assert!(matches!(
                parse(unknown, b"a\xff"),
                Err(Rejection::Malformed(text)) if text.contains("invalid unicode code point")
            ));
        }
    }

    #[test]
    fn an_error_does_not_repeat_the_unexpected_value() {
        let body = r#"{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"u","friendUserIDs":"secret: a, expected b"}"#;
        let Err(Rejection::Malformed(text)) = parse(body) else {
            panic!("it was parsed");
        };
        assert!(
            text.contains("invalid type, expected a list of strings in friendUserIDs at line 1"),
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn the_bodys_command_must_agree_with_the_request_line() {
        let body = r#"{"callbackCommand":"callbackBeforeImportFriendsCommand","ownerUserID":"u","friendUserIDs":[]}"#;
        assert!(matches!(
            parse(body),
            Err(Rejection::CommandMismatch { .. })
        ));
    }

    #[test]
    fn a_list_over_the_limit_is_too_large() {
        let body = |ids: &str| {
            format!(
                r#"{{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"u","friendUserIDs":[{ids}]}}"#
            )
        };
        assert!(parse(&body(r#""a","b","c""#)).is_ok());
        assert!(matches!(
            parse(&body(r#""a","b","c","d""#)),
            Err(Rejection::TooLarge { max: 3, .. })
        ));
    }

    #[test]
    fn an_id_over_the_limit_is_too_large() {
        let (longest, longer) = ("u".repeat(256), "u".repeat(257));
        let parse = |owner: &str, friend: &str| {
            let body = format!(
                r#"{{"callbackCommand":"ImportFriendReqBeforeCommand","ownerUserID":"{owner}","friendUserIDs":["{friend}"]}}"#
            );
            parse(&body)
        };
        assert!(parse(&longest, &longest).is_ok());
        for (owner, friend) in [(&longer, &longest), (&longest, &longer)] {
            assert!(matches!(
                parse(owner, friend),
                Err(Rejection::TooLarge { max: 256, .. })
            ));
        }
    }

    #[test]
    fn only_json_or_an_undeclared_type_is_acceptable() {
        let accepts = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, http::HeaderValue::from_static(value));
            acceptable(&headers)
        };
        assert!(acceptable(&HeaderMap::new()));
        assert!(accepts("content-type", "application/json; charset=utf-8"));
        assert!(accepts("content-type", "Application/JSON"));
        assert!(accepts("content-encoding", "identity"));
        assert!(!accepts(
            "content-type",
            "application/x-www-form-urlencoded"
        ));
        assert!(!accepts("content-encoding", "gzip"));
        let mut twice = HeaderMap::new();
        for value in ["application/json", "text/plain"] {
            twice.append("content-type", http::HeaderValue::from_static(value));
        }
        assert!(!acceptable(&twice));
    }
}
