use std::{fmt::Write as _, net::SocketAddr};

use bytes::Bytes;

use super::Reading;

/// The operationID's width: OpenIM's are milliseconds since 1970.
const ID_DIGITS: usize = 13;

/// A callback as open-im-server sends it, and its right answer.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Up to and with the empty line; the operationID is filled in for each.
    pub(super) head: Vec<u8>,
    /// Where in `head` the operationID begins.
    pub(super) id_at: usize,
    pub(super) body: Bytes,
    expected: Bytes,
}

/// What is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Allow,
    /// `blocked_user` is asked for beside the others and dropped.
    Modify,
    /// `blocked_user` asks.
    Refuse,
}

const ALLOW: &str = r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0"#;

/// An overload's code, as the gateway writes it.
const OVERLOADED: &str = r#""errCode":5913,"#;

/// The shipped policy lets 1,000 friends pass, and from this owner any number.
const TRUSTED_OVER: usize = 1_000;
const TRUSTED: &str = "svc_migration";

impl Question {
    /// An import of `friends` friends, put to `address`, that the shipped policy answers with `expected`.
    pub(crate) fn new(address: SocketAddr, friends: usize, expected: Expected) -> Self {
        let owner = match expected {
            Expected::Refuse => "blocked_user",
            Expected::Allow | Expected::Modify if friends > TRUSTED_OVER => TRUSTED,
            Expected::Allow | Expected::Modify => "user123",
        };
        let list = ids(friends);
        let blocked = match expected {
            Expected::Modify => r#","blocked_user""#,
            Expected::Allow | Expected::Refuse => "",
        };
        // With the line feed that Go's encoder writes.
        let body = format!(
            "{{\"callbackCommand\":\"callbackBeforeImportFriendsCommand\",\"ownerUserID\":\"{owner}\",\"friendUserIDs\":[{list}{blocked}]}}\n"
        );
        let mut head = format!(
            "POST /callbackBeforeImportFriendsCommand?contenttype=json HTTP/1.1\r\n\
             Host: {address}\r\n\
             User-Agent: Go-http-client/1.1\r\n\
             Content-Length: {}\r\n\
             Content-Type: application/json; charset=utf-8\r\n\
             Accept-Encoding: gzip\r\n\
             Operationid: ",
            body.len()
        );
        let id_at = head.len();
        head.extend(std::iter::repeat_n('0', ID_DIGITS));
        head.push_str("\r\n\r\n");
        let expected = match expected {
            Expected::Allow => format!("{ALLOW}}}"),
            Expected::Modify => format!("{ALLOW},\"ownerUserID\":\"{owner}\",\"friendUserIDs\":[{list}]}}"),
            Expected::Refuse => r#"{"actionCode":0,"errCode":5001,"errMsg":"User not allowed to import friends","errDlt":"The user does not meet the criteria for importing friends","nextCode":1}"#.to_owned(),
        };
        Self {
            head: head.into_bytes(),
            id_at,
            body: Bytes::from(body),
            expected: Bytes::from(expected),
        }
    }

    /// The JSON body.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// All of a request, with an operationID of its own.
    pub(crate) fn bytes(&self, number: u64) -> Vec<u8> {
        let mut bytes = self.head.clone();
        self.stamp(&mut bytes, number);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// A head with an operationID of its own.
    pub(super) fn stamp(&self, head: &mut [u8], mut number: u64) {
        for digit in head[self.id_at..self.id_at + ID_DIGITS].iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
        }
    }

    /// Compares an answer with the right one.
    pub(super) fn read(&self, status: u16, body: &[u8]) -> Result<Reading, String> {
        if status == 200 && body == self.expected {
            return Ok(Reading::Right);
        }
        let text = String::from_utf8_lossy(body);
        if status == 200 && text.contains(r#""errCode":591"#) && text.contains(r#""nextCode":1"#) {
            return Ok(match text.contains(OVERLOADED) {
                true => Reading::Overloaded,
                false => Reading::Fallback,
            });
        }
        // Where there is no room for its bytes.
        if status == 503 && text.contains(OVERLOADED) {
            return Ok(Reading::Overloaded);
        }
        let expected = String::from_utf8_lossy(&self.expected);
        Err(format!(
            "a wrong answer: {status} {text:.300}\nexpected: 200 {expected:.300}"
        ))
    }
}

/// Ids of 16 bytes, of which the shipped policy objects to none.
fn ids(count: usize) -> String {
    let mut list = String::with_capacity(count * 19);
    for number in 0..count {
        let comma = if number == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(list, "{comma}\"friend{number:010}\"");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(expected: Expected) -> Question {
        Question::new(SocketAddr::from(([127, 0, 0, 1], 8080)), 2, expected)
    }

    #[test]
    fn each_question_has_an_operation_id_of_its_own() {
        let question = question(Expected::Allow);
        let mut head = question.head.clone();
        question.stamp(&mut head, 1_646_445_464_564);
        let text = String::from_utf8(head).unwrap();
        assert!(text.ends_with("Operationid: 1646445464564\r\n\r\n"));
    }

    #[test]
    fn only_the_right_answer_is_right() {
        let allow = question(Expected::Allow);
        let yes = br#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}"#;
        assert_eq!(allow.read(200, yes), Ok(Reading::Right));
        assert!(allow.read(503, yes).is_err());
        assert!(question(Expected::Modify).read(200, yes).is_err());
        let no = br#"{"actionCode":0,"errCode":5911,"errMsg":"","errDlt":"","nextCode":1}"#;
        assert_eq!(allow.read(200, no), Ok(Reading::Fallback));
        let full = br#"{"actionCode":0,"errCode":5913,"errMsg":"","errDlt":"","nextCode":1}"#;
        assert_eq!(allow.read(200, full), Ok(Reading::Overloaded));
        assert_eq!(allow.read(503, full), Ok(Reading::Overloaded));
        let refused = br#"{"actionCode":0,"errCode":5001,"errMsg":"","errDlt":"","nextCode":1}"#;
        assert!(allow.read(200, refused).is_err());
    }
}
