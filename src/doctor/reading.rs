//! How each version of open-im-server reads an answer.

use std::str::FromStr;

use importguard_runtime::ADMIN_LISTENER;
use serde_json::Value;
use strum::{EnumIter, IntoStaticStr};

/// The families of open-im-server that read answers differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, EnumIter)]
#[strum(const_into_str)]
pub(super) enum OpenIm {
    /// 3.4.2 to 3.5.1.
    #[strum(to_string = "3.5")]
    UpTo35,
    /// 3.6.0 and 3.6.1-beta.0.
    #[strum(to_string = "3.6")]
    V36,
    /// 3.7.0 and later.
    #[strum(to_string = "3.7+")]
    From37,
}

/// Why a string is not a version of open-im-server with a callback for imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum VersionError {
    #[error("must be a version of open-im-server, for example 3.8.3")]
    Unknown,
    #[error("open-im-server has a callback for imports only since 3.4.2")]
    TooOld,
}

impl FromStr for OpenIm {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut numbers = text.trim_start_matches('v').split(['.', '-', '+']);
        let mut number = || numbers.next().and_then(|number| number.parse::<u32>().ok());
        let (Some(major), Some(minor)) = (number(), number()) else {
            return Err(VersionError::Unknown);
        };
        match (major, minor, number()) {
            (3, 4, Some(2..)) | (3, 5, _) => Ok(Self::UpTo35),
            (3, 6, _) => Ok(Self::V36),
            (3, 7.., _) | (4.., _, _) => Ok(Self::From37),
            _ => Err(VersionError::TooOld),
        }
    }
}

impl OpenIm {
    /// What it does when it receives this answer.
    pub(super) fn read(self, answer: &Answer) -> Effect {
        let fields = match &answer.as_server {
            Ok(fields) => fields,
            Err(reason) => return Effect::Fails(reason.clone()),
        };
        let refused = match self {
            Self::UpTo35 => fields.action_code != 0 || fields.next_code == 1,
            Self::V36 => false,
            Self::From37 => fields.action_code == 0 && fields.next_code == 1,
        };
        if refused {
            Effect::Refuses(fields.err_code)
        } else if fields.friends.is_empty() {
            Effect::ImportsAll
        } else {
            Effect::ImportsOnly(fields.friends.clone())
        }
    }
}

/// What a caller does when it receives an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It imports all requested friends.
    ImportsAll,
    /// It imports these friends.
    ImportsOnly(Vec<String>),
    /// It imports nobody, and its API returns this code.
    Refuses(i32),
    /// It cannot read the answer, for this reason.
    Fails(String),
}

/// What importguard intends with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Import all.
    Allow,
    /// Import these.
    Shorten(Vec<String>),
    /// Import nobody.
    Refuse,
}

/// An answer's body, read in several ways.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// As open-im-server reads it, with Go's `encoding/json` into typed fields.
    as_server: Result<Fields, String>,
    /// Its meaning, if it is a callback answer in either format.
    pub(super) meaning: Option<Meaning>,
    /// Its `errCode`.
    pub(super) code: i32,
    /// Its `errMsg` and `errDlt`.
    pub(super) text: String,
    /// Whether importguard's admin listener gave it.
    pub(super) is_admin: bool,
    /// Whether it is a JSON object, which OpenIM treats as consent unless it has `nextCode: 1`.
    pub(super) is_object: bool,
}

#[derive(Clone, Debug, Default)]
struct Fields {
    action_code: i32,
    next_code: i32,
    err_code: i32,
    friends: Vec<String>,
}

impl Answer {
    pub(super) fn read(body: &[u8]) -> Self {
        let value = serde_json::from_slice::<Value>(body);
        let object = value.as_ref().ok().and_then(Value::as_object);
        let text = |name: &str| {
            let field = object.and_then(|object| object.get(name));
            field.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let code = object.and_then(|object| object.get("errCode"));
        Self {
            as_server: match &value {
                Ok(value) => Fields::read(value),
                Err(_) if body.is_empty() => Err("its body is empty".to_owned()),
                Err(error) => Err(format!("it is not JSON ({error})")),
            },
            meaning: object.and_then(meaning),
            code: code.and_then(int32).unwrap_or_default(),
            text: [text("errMsg"), text("errDlt")].join(": "),
            is_admin: body == ADMIN_LISTENER.as_bytes(),
            is_object: object.is_some(),
        }
    }
}

/// What importguard intends with the answer `object`; `None` if importguard sends no such answer.
fn meaning(object: &serde_json::Map<String, Value>) -> Option<Meaning> {
    let complete = ["actionCode", "errCode", "errMsg", "errDlt", "nextCode"];
    if !complete.iter().all(|name| object.contains_key(*name)) {
        return None;
    }
    let friends = object.get("friendUserIDs").and_then(strings);
    match (object.get("nextCode")?, friends) {
        (next, _) if *next == 1 || *next == "1" => Some(Meaning::Refuse),
        (next, None) if *next == 0 || *next == "0" => Some(Meaning::Allow),
        (next, Some(friends)) if *next == 0 || *next == "0" => Some(Meaning::Shorten(friends)),
        _ => None,
    }
}

impl Fields {
    /// Reads the fields as Go does: names match in any case, `null` leaves the zero value, unknown fields are skipped, and a wrong type is
    /// an error.
    fn read(value: &Value) -> Result<Self, String> {
        let mut fields = Self::default();
        let object = match value {
            Value::Object(object) => object,
            Value::Null => return Ok(fields),
            _ => return Err("it is not a JSON object".to_owned()),
        };
        for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let number = || int32(value).ok_or_else(|| format!("{name} must be an integer"));
            match name.to_ascii_lowercase().as_str() {
                "actioncode" => fields.action_code = number()?,
                "errcode" => fields.err_code = number()?,
                "nextcode" => fields.next_code = number()?,
                "errmsg" | "errdlt" if !value.is_string() => {
                    return Err(format!("{name} must be a string"));
                }
                "frienduserids" => {
                    fields.friends = strings(value)
                        .ok_or_else(|| format!("{name} must be an array of strings"))?;
                }
                _ => {}
            }
        }
        Ok(fields)
    }
}

fn int32(value: &Value) -> Option<i32> {
    i32::try_from(value.as_i64()?).ok()
}

fn strings(value: &Value) -> Option<Vec<String>> {
    let strings = value.as_array()?.iter();
    strings
        .map(|value| value.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    fn effects(body: &str) -> Vec<Effect> {
        let answer = Answer::read(body.as_bytes());
        let versions = OpenIm::iter();
        versions.map(|version| version.read(&answer)).collect()
    }

    #[test]
    fn a_refusal_is_ignored_by_3_6_only() {
        let body = r#"{"actionCode":0,"errCode":5001,"errMsg":"no","errDlt":"","nextCode":1}"#;
        assert_eq!(
            effects(body),
            [
                Effect::Refuses(5001),
                Effect::ImportsAll,
                Effect::Refuses(5001)
            ]
        );
        assert_eq!(Answer::read(body.as_bytes()).meaning, Some(Meaning::Refuse));
    }

    #[test]
    fn an_unreadable_refusal_fails_everywhere_and_still_means_a_refusal() {
        let body = r#"{"actionCode":0,"errCode":5001,"errMsg":"no","errDlt":"","nextCode":"1"}"#;
        for effect in effects(body) {
            assert_eq!(
                effect,
                Effect::Fails("nextCode must be an integer".to_owned())
            );
        }
        assert_eq!(Answer::read(body.as_bytes()).meaning, Some(Meaning::Refuse));
    }

    #[test]
    fn an_object_of_another_program_imports_all() {
        let body = r#"{"error":"unauthorized"}"#;
        for effect in effects(body) {
            assert_eq!(effect, Effect::ImportsAll);
        }
        assert_eq!(Answer::read(body.as_bytes()).meaning, None);
    }

    #[test]
    fn versions_belong_to_the_family_that_reads_alike() {
        for (text, family) in [
            ("3.4.2", Ok(OpenIm::UpTo35)),
            ("v3.5.1", Ok(OpenIm::UpTo35)),
            ("3.6.0", Ok(OpenIm::V36)),
            ("3.6.1-beta.0", Ok(OpenIm::V36)),
            ("3.7.0", Ok(OpenIm::From37)),
            ("v3.8.3-patch.16", Ok(OpenIm::From37)),
            ("4.0.0", Ok(OpenIm::From37)),
            ("3.4.1", Err(VersionError::TooOld)),
            ("2.9", Err(VersionError::TooOld)),
            ("main", Err(VersionError::Unknown)),
        ] {
            assert_eq!(text.parse(), family, "{text}");
        }
    }
}
