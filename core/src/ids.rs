//! The IDs of operations, users and events.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Why a string cannot be an ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It has more bytes than [`OperationId::MAX_BYTES`] or [`UserId::MAX_BYTES`], which are the same.
    #[error("it has {bytes} bytes; the maximum is {}", OperationId::MAX_BYTES)]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It has a character that is not visible ASCII.
    #[error("it has a character that is not visible ASCII")]
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
    /// Maximum length in bytes: four times the longest one seen from OpenIM's own clients.
    pub const MAX_BYTES: usize = 256;

    /// Parses an operation ID.
    pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        if text.is_empty() {
            Err(IdError::Empty)
        } else if text.len() > Self::MAX_BYTES {
            Err(IdError::TooLong { bytes: text.len() })
        } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
            Err(IdError::NotVisibleAscii)
        } else {
            Ok(Self(text))
        }
    }

    /// The ID as received.
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
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl From<OperationId> for String {
    fn from(id: OperationId) -> Self {
        id.0
    }
}

/// A user's ID as OpenIM knows it: any string that is not empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String")]
pub struct UserId(#[cfg_attr(feature = "schema", schemars(length(min = 1)))] String);

impl UserId {
    /// Maximum length in a callback, in bytes: OpenIM's column holds 64 characters, each of up to four bytes in UTF-8.
    pub const MAX_BYTES: usize = 256;

    /// Parses a user ID.
    pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        if text.is_empty() {
            Err(IdError::Empty)
        } else {
            Ok(Self(text))
        }
    }

    /// Parses the ID of a user in a callback, which has at most [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn parse_in_callback(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        match text.len() {
            bytes if bytes > Self::MAX_BYTES => Err(IdError::TooLong { bytes }),
            _ => Self::parse(text),
        }
    }

    /// The pseudonym that an event carries instead of a user's ID: `pn_` and `text`. A user's ID may look the same.
    pub fn pseudonym(text: &str) -> Self {
        Self(format!("pn_{text}"))
    }

    /// The ID as received.
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
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> Self {
        id.0
    }
}

/// An event's ID: a UUID v7, which sorts by creation time, and within a process in the order of creation; or a UUID v8 that is
/// [derived](EventId::derived) from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

/// A string that is not an event ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID: {0}")]
pub struct EventIdError(#[from] uuid::Error);

impl EventId {
    /// A new ID with the current time.
    #[expect(
        clippy::new_without_default,
        reason = "every call returns a different ID"
    )]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Derives the ID of the event that follows from the event `cause` for `purpose`: a UUID v8 of the SHA-256 of both. All processes that
    /// draw the same conclusion from the same event therefore use the same ID.
    pub fn derived(purpose: &str, cause: Self) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(purpose.as_bytes());
        hasher.update([0]);
        hasher.update(cause.0.as_bytes());
        let mut bytes = [0; 16];
        for (byte, hashed) in bytes.iter_mut().zip(hasher.finalize()) {
            *byte = hashed;
        }
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Parses an ID as written by [`Display`](fmt::Display).
    pub fn parse(text: &str) -> Result<Self, EventIdError> {
        Ok(Self(Uuid::try_parse(text)?))
    }

    /// Creation time in Unix milliseconds; 0 for an ID without a timestamp, which is derived or foreign.
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

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_derived_id_depends_on_the_purpose_and_the_cause_and_on_nothing_else() {
        let cause = EventId::parse("019ad3f4-0000-7000-8000-000000000001").unwrap();
        let derived = EventId::derived("detector hammering", cause);
        assert_eq!(derived.to_string(), "09126bd9-be50-8c5c-8232-fc19ccb092e9");
        assert_eq!(EventId::parse(&derived.to_string()), Ok(derived));
        assert_ne!(EventId::derived("detector wide", cause), derived);
        assert_ne!(EventId::derived("detector hammering", derived), derived);
    }

    #[test]
    fn an_operation_id_is_up_to_256_visible_ascii_bytes() {
        assert!(OperationId::parse("1646445464564").is_ok());
        assert!(OperationId::parse("x".repeat(256)).is_ok());
        assert_eq!(OperationId::parse(""), Err(IdError::Empty));
        assert_eq!(
            OperationId::parse("x".repeat(257)),
            Err(IdError::TooLong { bytes: 257 })
        );
        for bad in ["a b", "a\nb", "ä", "\u{7f}"] {
            assert_eq!(OperationId::parse(bad), Err(IdError::NotVisibleAscii));
        }
    }

    #[test]
    fn a_user_id_is_never_empty() {
        assert_eq!(UserId::parse(""), Err(IdError::Empty));
        assert!(serde_json::from_str::<UserId>("\"\"").is_err());
        assert!(serde_json::from_str::<UserId>("\"ü 1\"").is_ok());
    }

    #[test]
    fn a_user_id_in_a_callback_has_up_to_256_bytes() {
        assert!(UserId::parse_in_callback("ü".repeat(128)).is_ok());
        assert_eq!(
            UserId::parse_in_callback("ü".repeat(128) + "1"),
            Err(IdError::TooLong { bytes: 257 })
        );
        assert_eq!(UserId::parse_in_callback(""), Err(IdError::Empty));
    }

    #[test]
    fn event_ids_sort_by_creation_and_hold_their_time() {
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
