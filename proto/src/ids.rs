use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text cannot be an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidId {
    /// It has no characters.
    Empty,
    /// It has more bytes than [`OperationId::MAX_BYTES`].
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// It holds something other than visible ASCII.
    NotVisibleAscii,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong { bytes } => write!(
                f,
                "it has {bytes} bytes and may have {}",
                OperationId::MAX_BYTES
            ),
            Self::NotVisibleAscii => f.write_str("it holds something other than visible ASCII"),
        }
    }
}

impl std::error::Error for InvalidId {}

/// OpenIM's `operationID`: 1 to 256 bytes of visible ASCII, so that it fits in an HTTP header, gRPC metadata,
/// baggage and a NATS header as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "String")]
pub struct OperationId(
    #[cfg_attr(
        test,
        schemars(length(min = 1, max = 256), regex(pattern = "^[!-~]+$"))
    )]
    String,
);

impl OperationId {
    /// Four times the longest one seen from OpenIM's own clients, and small enough for a header and a baggage entry.
    pub const MAX_BYTES: usize = 256;

    /// Takes `text` as an operation id if it is usable as one.
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

    /// The id as it stood in the header.
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

impl From<OperationId> for String {
    fn from(id: OperationId) -> Self {
        id.0
    }
}

/// A user's id as OpenIM knows it: any text that is not empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "String")]
pub struct UserId(#[cfg_attr(test, schemars(length(min = 1)))] String);

impl UserId {
    /// Takes `text` as a user id unless it is empty.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidId> {
        let text = text.into();
        if text.is_empty() {
            Err(InvalidId::Empty)
        } else {
            Ok(Self(text))
        }
    }

    /// What stands in an event for the id of a user who is not to be recognised: `pn_` and `text`.
    pub fn pseudonym(text: &str) -> Self {
        Self(format!("pn_{text}"))
    }

    /// The id as it was sent.
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

#[cfg(test)]
mod tests {
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
}
