//! The values in the bucket: who added or removed an ID, when, why, and until when.

use std::borrow::Cow;

use importguard_core::EventId;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Maximum length of an author and of a reason, in bytes.
pub const MAX_TEXT_BYTES: usize = 256;

/// An author: 1 to [`MAX_TEXT_BYTES`] bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Author(String);

/// A reason: 1 to [`MAX_TEXT_BYTES`] bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Reason(String);

/// Why a string cannot be an author or a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The string is empty.
    #[error("it is empty")]
    Empty,
    /// The string is longer than [`MAX_TEXT_BYTES`].
    #[error("it has {bytes} bytes; the maximum is {MAX_TEXT_BYTES}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The string has a control character, which could affect a terminal.
    #[error("it has a control character")]
    Control,
}

fn check(text: &str) -> Result<String, TextError> {
    let text = text.trim();
    if text.is_empty() {
        Err(TextError::Empty)
    } else if text.len() > MAX_TEXT_BYTES {
        Err(TextError::TooLong { bytes: text.len() })
    } else if text.chars().any(char::is_control) {
        Err(TextError::Control)
    } else {
        Ok(text.to_owned())
    }
}

macro_rules! text {
    ($name:ident) => {
        impl $name {
            /// Parses a string. Surrounding white space is removed.
            ///
            /// # Errors
            /// If the string is empty, too long, or has control characters.
            pub fn parse(text: &str) -> Result<Self, TextError> {
                check(text).map(Self)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, TextError> {
                Self::parse(text)
            }
        }
    };
}

text!(Author);
text!(Reason);

/// The value at a key, as importguard writes it: an entry of the list, or the record of its removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Who added or removed the ID.
    pub by: Author,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// When the ID was added or removed.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// When the entry expires; absent if never.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub until: Option<OffsetDateTime>,
    /// Whether the ID was removed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// The ID of the event about this change.
    pub event: EventId,
    /// The ID of the event about the value that this one replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<EventId>,
}

impl Entry {
    /// Serialises the entry as the value in the bucket.
    ///
    /// # Errors
    /// If a time is after the year 9999.
    pub fn to_value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

/// A borrowed value, as read from the bucket. Other programs write to the bucket as well, so every field may be missing.
///
/// Any value makes its key an entry, so that `nats kv put IMPORTGUARD_LISTS blocked.user1 ''` also blocks: an unreadable value is an entry
/// without an author, a reason or an end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brief<'v> {
    /// Who added or removed the ID; empty if unknown.
    pub by: Cow<'v, str>,
    /// Why; empty if unknown.
    pub reason: Cow<'v, str>,
    /// When the entry expires, in Unix seconds, rounded up; `None` if never.
    pub until: Option<u64>,
    /// Whether the ID was removed.
    pub removed: bool,
    /// When the value was written, according to its author.
    pub at: Option<OffsetDateTime>,
    /// The ID of the event about this change.
    pub event: Option<EventId>,
    /// The ID of the event about the value that this one replaced.
    pub replaces: Option<EventId>,
}

#[derive(Deserialize)]
struct Raw<'v> {
    #[serde(borrow, default)]
    by: Option<Cow<'v, str>>,
    #[serde(borrow, default)]
    reason: Option<Cow<'v, str>>,
    #[serde(borrow, default)]
    at: Option<Cow<'v, str>>,
    #[serde(borrow, default)]
    until: Option<Cow<'v, str>>,
    #[serde(default)]
    removed: Option<bool>,
    #[serde(borrow, default)]
    event: Option<Cow<'v, str>>,
    #[serde(borrow, default)]
    replaces: Option<Cow<'v, str>>,
}

impl<'v> Brief<'v> {
    /// Reads a value. Never fails: a value that is not valid JSON of this form reads as empty, a time or ID that is invalid as missing.
    pub fn read(value: &'v [u8]) -> Self {
        let Ok(raw) = serde_json::from_slice::<Raw<'v>>(value) else {
            return Self::default();
        };
        let id = |text: Option<Cow<'v, str>>| EventId::parse(&text?).ok();
        Self {
            by: raw.by.map(clip).unwrap_or_default(),
            reason: raw.reason.map(clip).unwrap_or_default(),
            until: raw.until.and_then(|text| unix(&text)),
            removed: raw.removed.unwrap_or_default(),
            at: raw
                .at
                .and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok()),
            event: id(raw.event),
            replaces: id(raw.replaces),
        }
    }

    /// When the entry expires; `None` if never, or after the year 9999.
    pub fn expires(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(i64::try_from(self.until?).ok()?).ok()
    }

    /// Whether the entry is removed, or has expired at `now`, in Unix seconds.
    pub fn is_dead(&self, now: u64) -> bool {
        self.removed || self.until.is_some_and(|until| until <= now)
    }
}

/// Truncates a text to at most [`MAX_TEXT_BYTES`], because other programs may write longer ones.
fn clip(text: Cow<'_, str>) -> Cow<'_, str> {
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

/// Converts an RFC 3339 time to Unix seconds, rounded up so that an entry does not expire early.
fn unix(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let up = i64::from(time.nanosecond() > 0);
    Some(u64::try_from(time.unix_timestamp() + up).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            by: Author::parse("alice").unwrap(),
            reason: Some(Reason::parse("case \"4711\"").unwrap()),
            at: OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap(),
            until: Some(OffsetDateTime::from_unix_timestamp(1_700_003_600).unwrap()),
            removed: false,
            event: EventId::new(),
            replaces: Some(EventId::new()),
        }
    }

    #[test]
    fn a_value_is_read_as_it_was_written() {
        let entry = entry();
        let value = entry.to_value().unwrap();
        let brief = Brief::read(&value);
        assert_eq!(brief.by, "alice");
        assert_eq!(brief.reason, "case \"4711\"");
        assert_eq!(brief.until, Some(1_700_003_600));
        assert_eq!(brief.at, Some(entry.at));
        assert_eq!(
            (brief.event, brief.replaces),
            (Some(entry.event), entry.replaces)
        );
        assert!(!brief.removed);
    }

    #[test]
    fn it_counts_until_its_end() {
        let value = entry().to_value().unwrap();
        let brief = Brief::read(&value);
        assert!(!brief.is_dead(1_700_003_599));
        assert!(brief.is_dead(1_700_003_600));
        let removed = Entry {
            removed: true,
            until: None,
            ..entry()
        }
        .to_value()
        .unwrap();
        assert!(Brief::read(&removed).is_dead(0));
    }

    #[test]
    fn what_cannot_be_read_is_an_entry_without_an_end() {
        for value in [
            "",
            "spam",
            "[1]",
            "{\"until\": 5}",
            "{\"until\": \"soon\"}",
            "{}",
        ] {
            let brief = Brief::read(value.as_bytes());
            assert!(!brief.is_dead(u64::MAX - 1), "{value}");
        }
    }

    #[test]
    fn longer_texts_of_others_are_clipped() {
        let value = format!("{{\"reason\": \"{}\"}}", "ü".repeat(200));
        assert_eq!(Brief::read(value.as_bytes()).reason, "ü".repeat(128));
    }

    #[test]
    fn an_author_and_a_reason_are_one_short_line() {
        assert_eq!(Author::parse("  "), Err(TextError::Empty));
        assert_eq!(Reason::parse("a\nb"), Err(TextError::Control));
        assert_eq!(
            Reason::parse(&"x".repeat(257)),
            Err(TextError::TooLong { bytes: 257 })
        );
        assert_eq!(Author::parse(" bob ").unwrap().as_str(), "bob");
    }
}
