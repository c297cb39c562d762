use std::net::SocketAddr;

use bytes::Bytes;

use super::Reading;

/// The operationID's width: OpenIM's are milliseconds since 1970.
const ID_DIGITS: usize = 13;

/// A callback as open-im-server sends it, and its expected response.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Up to and with the empty line; the operationID is filled in for each.
    pub(super) head: Vec<u8>,
    /// Where in `head` the operationID begins.
    id_at: usize,
    pub(crate) body: Bytes,
    expected: Bytes,
}

/// The verdict of the shipped policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Allow,
    /// `blocked_user` is among the friends and dropped.
    Modify,
    /// `blocked_user` is the owner.
    Refuse,
}

const ALLOW: &str = r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0"#;

impl Question {
    /// An import of `friends` friends, sent to `address`, for which the shipped policy's verdict is `expected`.
    pub(crate) fn new(address: SocketAddr, friends: usize, expected: Expected) -> Self {
        let (owner, blocked) = match expected {
            Expected::Refuse => ("blocked_user", ""),
            Expected::Modify => ("user123", r#","blocked_user""#),
            // The shipped policy allows 1,000 friends, and any number for this owner.
            Expected::Allow if friends > 1_000 => ("svc_migration", ""),
            Expected::Allow => ("user123", ""),
        };
        // IDs of 16 bytes, none of which the shipped policy drops.
        let ids = (0..friends).map(|number| format!("\"friend{number:010}\""));
        let list = ids.collect::<Vec<_>>().join(",");
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

    /// Writes an operationID of its own into a copy of `self.head`.
    pub(super) fn stamp(&self, head: &mut [u8], mut number: u64) {
        for digit in head[self.id_at..self.id_at + ID_DIGITS].iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
        }
    }

    /// Compares a response with the expected one, byte for byte.
    pub(super) fn read(&self, status: u16, body: &[u8]) -> Result<Reading, String> {
        if status == 200 && body == self.expected {
            return Ok(Reading::Right);
        }
        let text = String::from_utf8_lossy(body);
        // 503 where `IMPORTGUARD_MAX_BYTES_IN_FLIGHT` has no room for the request.
        let code = if status == 503 { "5913," } else { "591" };
        let refused = text.contains(&format!("\"errCode\":{code}"));
        if [200, 503].contains(&status) && refused && text.contains(r#""nextCode":1"#) {
            return Ok(Reading::Fallback);
        }
        let expected = String::from_utf8_lossy(&self.expected);
        Err(format!(
            "a wrong response: {status} {text:.300}\nexpected: 200 {expected:.300}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_response_is_right() {
        let question = |expected| Question::new(([127, 0, 0, 1], 8080).into(), 2, expected);
        let allow = question(Expected::Allow);
        let yes = br#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}"#;
        assert_eq!(allow.read(200, yes), Ok(Reading::Right));
        assert!(allow.read(503, yes).is_err());
        assert!(question(Expected::Modify).read(200, yes).is_err());
        let no = br#"{"actionCode":0,"errCode":5911,"errMsg":"","errDlt":"","nextCode":1}"#;
        assert_eq!(allow.read(200, no), Ok(Reading::Fallback));
        let refused = br#"{"actionCode":0,"errCode":5001,"errMsg":"","errDlt":"","nextCode":1}"#;
        assert!(allow.read(200, refused).is_err());
        let mut head = allow.head.clone();
        allow.stamp(&mut head, 1_646_445_464_564);
        assert!(head.ends_with(b"Operationid: 1646445464564\r\n\r\n"));
    }
}
