//! The IDs of operations, users and events.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a string cannot be an ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// It has no characters.
    #[error("it is empty")]
    Empty,
    /// It has more bytes than [`OperationId::MAX_BYTES`].
    #[error("it has {bytes} bytes and may have {}", OperationId::MAX_BYTES)]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// It holds something other than visible ASCII.
    #[error("it holds something other than visible ASCII")]
    NotVisibleAscii,
}

/// OpenIM's `operationID`: 1 to 256 bytes of visible ASCII, so that it fits in an HTTP header, gRPC metadata, baggage and a NATS
/// header as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String")]
pub struct OperationId(
    #[cfg_attr(
        feature = "schema",
        schemars(length(min = 1, max = 256), regex(pattern = "^[!-~]+$"))
    )]
    String,
);

impl OperationId {
    /// Four times the longest one seen from OpenIM's own clients, and small enough for a header and a baggage entry.
    pub const MAX_BYTES: usize = 256;

    /// Takes `text` as an operation ID if it is usable as one.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidId> {
        let text = text.into();
        if text.is_empty() {
            Err(InvalidId::Empty)
        } else if text.len() > Self::MAX_BYTES {
            Err(InvalidId::TooLong { bytes: text.len() })
        } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
            Err(InvalidId::NotVisibleAscii)
        } else {
            Ok(Self(text))
        }
    }

    /// The ID as it stood in the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for OperationId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(text)
    }
}

/// A user's ID as OpenIM knows it: any string that is not empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String")]
pub struct UserId(#[cfg_attr(feature = "schema", schemars(length(min = 1)))] String);

impl UserId {
    /// What a callback may hold: OpenIM's column takes 64 characters, each of up to four bytes in UTF-8.
    pub const MAX_BYTES: usize = 256;

    /// Takes `text` as a user ID unless it is empty.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidId> {
        let text = text.into();
        if text.is_empty() {
            Err(InvalidId::Empty)
        } else {
            Ok(Self(text))
        }
    }

    /// What an event carries instead of the ID of a user who is not to be recognised: `pn_` and `text`.
    pub fn pseudonym(text: &str) -> Self {
        Self(format!("pn_{text}"))
    }

    /// The ID as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for UserId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UserId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(text)
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> Self {
        id.0
    }
}

/// An event's ID: a UUID v7, so that IDs sort by the time they were made, within a process in the order they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

/// Why a string is no event ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no UUID: {0}")]
pub struct InvalidEventId(#[from] uuid::Error);

impl EventId {
    /// A new one, of now.
    #[expect(clippy::new_without_default, reason = "every call is another ID")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Reads one as [`Display`](fmt::Display) writes it.
    pub fn parse(text: &str) -> Result<Self, InvalidEventId> {
        Ok(Self(Uuid::try_parse(text)?))
    }

    /// When it was made, in Unix milliseconds; 0 where it came from elsewhere and doesn't say.
    pub fn unix_ms(self) -> i64 {
        self.0.get_timestamp().map_or(0, |timestamp| {
            let (seconds, nanos) = timestamp.to_unix();
            let milliseconds = seconds * 1000 + u64::from(nanos) / 1_000_000;
            i64::try_from(milliseconds).unwrap_or(i64::MAX)
        })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn an_operation_id_is_up_to_256_visible_ascii_bytes() {
        assert!(OperationId::parse("1646445464564").is_ok());
        assert!(OperationId::parse("x".repeat(256)).is_ok());
        assert_eq!(OperationId::parse(""), Err(InvalidId::Empty));
        assert_eq!(
            OperationId::parse("x".repeat(257)),
            Err(InvalidId::TooLong { bytes: 257 })
        );
        for bad in ["a b", "a\nb", "ä", "\u{7f}"] {
            assert_eq!(OperationId::parse(bad), Err(InvalidId::NotVisibleAscii));
        }
    }

    #[test]
    fn a_user_id_is_never_empty() {
        assert_eq!(UserId::parse(""), Err(InvalidId::Empty));
        assert!(serde_json::from_str::<UserId>("\"\"").is_err());
        assert!(serde_json::from_str::<UserId>("\"ü 1\"").is_ok());
    }

    #[test]
    fn event_ids_sort_as_they_were_made_and_say_when() {
        let ids: Vec<_> = (0..10_000).map(|_| EventId::new()).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().map(EventId::to_string).is_sorted());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_ms = i64::try_from(now.unwrap().as_millis()).unwrap();
        let age = now_ms.abs_diff(ids[0].unix_ms());
        assert!(age < 60_000, "{age} ms");
    }

    #[test]
    fn an_event_id_is_read_as_it_is_written() {
        let id = EventId::new();
        assert_eq!(EventId::parse(&id.to_string()), Ok(id));
        assert!(EventId::parse("1646445464564").is_err());
    }
}
