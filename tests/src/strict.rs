use importguard_core::Dialect;
use serde_json::{Map, Value};

/// The families of open-im-server that read answers differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerVersion {
    /// 3.4.2 to 3.5.1
    UpTo35,
    /// 3.6.0 and 3.6.1-beta.0, which ignore refusals
    V36,
    /// 3.7.0 and later
    From37,
}

impl ServerVersion {
    /// The families that heed refusals.
    pub const ALL: [Self; 2] = [Self::UpTo35, Self::From37];
}

/// How a caller interprets an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It imports the requested friends, or those that the answer names.
    Imports {
        /// The list that replaces the one asked for.
        instead: Option<Vec<String>>,
    },
    /// It refuses, and returns the error to its own caller.
    Refuses {
        /// `errCode`
        code: i32,
        /// `errMsg`
        message: String,
        /// `errDlt`
        detail: String,
    },
    /// It can't read the answer. Up to 3.6, an operator's `failedContinue` then lets the import through.
    Fails(String),
}

/// Reads an answer's body as open-im-server does: Go's `encoding/json` into typed fields. Unknown fields are skipped,
/// names match in any case, `null` leaves the zero value, and a wrong type fails.
pub fn read_as_server(version: ServerVersion, body: &[u8]) -> Reading {
    let fields = match Fields::read(Dialect::Server, body) {
        Ok(fields) => fields,
        Err(why) => return Reading::Fails(why),
    };
    let refused = match version {
        ServerVersion::UpTo35 => fields.action_code != 0 || fields.next_code == "1",
        ServerVersion::V36 => false,
        ServerVersion::From37 => fields.action_code == 0 && fields.next_code == "1",
    };
    fields.reading(refused)
}

/// Reads an answer's body by the documentation only: every field of it in its type, and a verdict in
/// which `actionCode` and `nextCode` agree.
pub fn read_as_documented(body: &[u8]) -> Reading {
    let fields = match Fields::read(Dialect::Documented, body) {
        Ok(fields) => fields,
        Err(why) => return Reading::Fails(why),
    };
    match (fields.action_code, fields.next_code.as_str()) {
        (0, "0") if fields.err_code == 0 => fields.reading(false),
        (1, "1") if (5000..=9999).contains(&fields.err_code) => fields.reading(true),
        _ => Reading::Fails(format!("no documented verdict: {fields:?}")),
    }
}

/// The answer's fields in their types; `nextCode` as text whatever its type in the dialect.
#[derive(Debug, Default)]
struct Fields {
    action_code: i32,
    err_code: i32,
    err_msg: String,
    err_dlt: String,
    next_code: String,
    friend_user_ids: Vec<String>,
}

impl Fields {
    fn read(dialect: Dialect, body: &[u8]) -> Result<Self, String> {
        // Go replaces what is no UTF-8.
        let text = String::from_utf8_lossy(body);
        let object = match serde_json::from_str(&text) {
            Ok(Value::Object(object)) => object,
            Ok(Value::Null) => Map::new(),
            Ok(other) => return Err(format!("not an object: {other}")),
            Err(error) => return Err(format!("not JSON: {error}")),
        };
        let mut fields = Self::default();
        for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let wrong = || format!("{name} has the wrong type: {value}");
            match name.to_lowercase().as_str() {
                "actioncode" => fields.action_code = int32(value).ok_or_else(wrong)?,
                "errcode" => fields.err_code = int32(value).ok_or_else(wrong)?,
                "errmsg" => fields.err_msg = string(value).ok_or_else(wrong)?,
                "errdlt" => fields.err_dlt = string(value).ok_or_else(wrong)?,
                "nextcode" => {
                    fields.next_code = match dialect {
                        Dialect::Server => int32(value).ok_or_else(wrong)?.to_string(),
                        Dialect::Documented => string(value).ok_or_else(wrong)?,
                    }
                }
                "frienduserids" => fields.friend_user_ids = strings(value).ok_or_else(wrong)?,
                // The server has no such field, so any type passes there.
                "owneruserid" if dialect == Dialect::Documented => {
                    string(value).ok_or_else(wrong)?;
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    fn reading(self, refused: bool) -> Reading {
        if refused {
            Reading::Refuses {
                code: self.err_code,
                message: self.err_msg,
                detail: self.err_dlt,
            }
        } else {
            // An empty list is ignored: all friends are imported.
            let list = self.friend_user_ids;
            Reading::Imports {
                instead: (!list.is_empty()).then_some(list),
            }
        }
    }
}

/// No fraction, no exponent, no text, 32 bits.
fn int32(value: &Value) -> Option<i32> {
    i32::try_from(value.as_i64()?).ok()
}

fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(instead: Option<&[&str]>) -> Reading {
        Reading::Imports {
            instead: instead.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect()),
        }
    }

    fn refuses(code: i32) -> Reading {
        Reading::Refuses {
            code,
            message: String::new(),
            detail: String::new(),
        }
    }

    #[test]
    fn an_object_without_next_code_1_imports_everybody() {
        for body in [
            r#"{"error":"unauthorized"}"#,
            "{}",
            "null",
            r#"{"nextCode":0}"#,
            r#"{"nextCode":null,"friendUserIDs":[]}"#,
        ] {
            for version in ServerVersion::ALL {
                let reading = read_as_server(version, body.as_bytes());
                assert_eq!(reading, imports(None), "{version:?} reads {body}");
            }
        }
    }

    #[test]
    fn action_code_1_alone_refuses_only_before_3_6() {
        let body = br#"{"actionCode":1,"errCode":5001}"#;
        assert_eq!(read_as_server(ServerVersion::UpTo35, body), refuses(5001));
        assert_eq!(read_as_server(ServerVersion::From37, body), imports(None));
    }

    #[test]
    fn version_3_6_imports_despite_a_refusal_and_fails_on_what_it_cannot_read() {
        let v36 = |body: &str| read_as_server(ServerVersion::V36, body.as_bytes());
        assert_eq!(
            v36(r#"{"actionCode":0,"errCode":5001,"nextCode":1}"#),
            imports(None)
        );
        let listed = r#"{"nextCode":1,"friendUserIDs":["a"]}"#;
        assert_eq!(v36(listed), imports(Some(&["a"])));
        assert!(matches!(v36(r#"{"nextCode":"1"}"#), Reading::Fails(_)));
    }

    #[test]
    fn next_code_1_refuses_everywhere_else_and_in_any_case_of_letters() {
        for body in [
            r#"{"actionCode":0,"errCode":5001,"nextCode":1}"#,
            r#"{"ERRCODE":5001,"NextCode":1}"#,
        ] {
            for version in ServerVersion::ALL {
                assert_eq!(read_as_server(version, body.as_bytes()), refuses(5001));
            }
        }
    }

    #[test]
    fn a_wrong_type_is_no_answer() {
        for body in [
            r#"{"nextCode":"1"}"#,
            r#"{"nextCode":1.0}"#,
            r#"{"nextCode":1,"errCode":2147483648}"#,
            r#"{"nextCode":1,"errMsg":7}"#,
            r#"{"nextCode":1,"friendUserIDs":[1]}"#,
            r#"{"nextCode":1} x"#,
            "[]",
            "Not Found",
            "",
        ] {
            for version in ServerVersion::ALL {
                let reading = read_as_server(version, body.as_bytes());
                assert!(matches!(reading, Reading::Fails(_)), "{body}: {reading:?}");
            }
        }
    }

    #[test]
    fn a_list_replaces_the_one_asked_for() {
        let body = br#"{"nextCode":0,"ownerUserID":7,"friendUserIDs":["a","b"]}"#;
        for version in ServerVersion::ALL {
            assert_eq!(read_as_server(version, body), imports(Some(&["a", "b"])));
        }
    }

    #[test]
    fn the_documented_verdicts_are_two() {
        assert_eq!(
            read_as_documented(br#"{"actionCode":0,"errCode":0,"nextCode":"0"}"#),
            imports(None)
        );
        assert_eq!(
            read_as_documented(br#"{"actionCode":1,"errCode":5001,"nextCode":"1"}"#),
            refuses(5001)
        );
        for body in [
            r#"{"actionCode":1,"errCode":5001,"nextCode":1}"#,
            r#"{"actionCode":0,"errCode":5001,"nextCode":"1"}"#,
            r#"{"actionCode":1,"errCode":5001,"nextCode":"0"}"#,
            r#"{"actionCode":1,"errCode":4999,"nextCode":"1"}"#,
            "{}",
        ] {
            let reading = read_as_documented(body.as_bytes());
            assert!(matches!(reading, Reading::Fails(_)), "{body}: {reading:?}");
        }
    }
}
