//! The names of lists, and the keys of entries in the bucket.

use std::{fmt, str::FromStr};

use importguard_core::UserId;

/// The name of a list in the bucket: up to 64 letters, digits, `_` and `-`, starting with a letter or digit. Names that start with `_`
/// are reserved for importguard.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListName(String);

/// Why a string cannot be the name of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "use up to {} letters, digits, _ and -, starting with a letter or digit",
    ListName::MAX_BYTES
)]
pub struct NameError;

impl ListName {
    /// Maximum length in bytes: that of a list's name in a policy.
    pub const MAX_BYTES: usize = 64;

    /// Parses a name.
    ///
    /// # Errors
    /// If the string does not have this form.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let starts = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if starts && rest && text.len() <= Self::MAX_BYTES {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError)
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ListName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of an entry: a list and a user ID.
///
/// In the bucket, it is written `<list>.<id>`. Letters, digits, `_` and `-` of the ID stay as they are; every other byte becomes `=` and
/// two upper-case hex digits. So a key can hold any ID, each ID has exactly one key, and usual IDs are readable in `nats kv ls`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The list.
    pub list: ListName,
    /// The user. At most [`UserId::MAX_BYTES`] long.
    pub id: UserId,
}

/// Why an ID cannot be part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The ID is empty.
    #[error("the ID is empty")]
    Empty,
    /// The ID is longer than [`UserId::MAX_BYTES`]. OpenIM has no such user, and NATS limits the length of subjects.
    #[error("the ID has {bytes} bytes; the maximum is {}", UserId::MAX_BYTES)]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
}

impl Key {
    /// Creates the key of `id` in `list`.
    ///
    /// # Errors
    /// If the ID is empty or too long.
    pub fn new(list: ListName, id: &str) -> Result<Self, KeyError> {
        if id.len() > UserId::MAX_BYTES {
            return Err(KeyError::TooLong { bytes: id.len() });
        }
        let id = UserId::parse(id).map_err(|_| KeyError::Empty)?;
        Ok(Self { list, id })
    }

    /// Parses a key in the bucket. Returns `None` if [`Display`](fmt::Display) would not write it this way.
    pub fn parse(key: &str) -> Option<Self> {
        let (list, encoded) = key.split_once('.')?;
        Self::new(ListName::parse(list).ok()?, &decode(encoded)?).ok()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.list)?;
        for byte in self.id.as_str().bytes() {
            if is_plain(byte) {
                fmt::Write::write_char(f, char::from(byte))?;
            } else {
                write!(f, "={byte:02X}")?;
            }
        }
        Ok(())
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Decodes the ID in a key; `None` if the encoding is invalid.
fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'=' {
            bytes.push(is_plain(byte).then_some(byte)?);
            continue;
        }
        let escaped = hex(rest.next()?)? << 4 | hex(rest.next()?)?;
        // An escaped plain byte is invalid: the ID would have several keys.
        bytes.push((!is_plain(escaped)).then_some(escaped)?);
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: &str) -> Key {
        Key::new(ListName::parse("blocked").unwrap(), id).unwrap()
    }

    #[test]
    fn usual_ids_are_readable_and_others_are_escaped() {
        for (id, encoded) in [
            ("user_123-a", "blocked.user_123-a"),
            ("a.b", "blocked.a=2Eb"),
            ("a b*>", "blocked.a=20b=2A=3E"),
            ("=", "blocked.=3D"),
            ("用", "blocked.=E7=94=A8"),
        ] {
            assert_eq!(key(id).to_string(), encoded);
            assert_eq!(Key::parse(encoded), Some(key(id)));
        }
    }

    #[test]
    fn each_id_has_one_key() {
        for other in [
            "blocked.=61",
            "blocked.=3d",
            "blocked.=3",
            "blocked.",
            "blocked",
            "_x.a",
            "blocked.a.b",
            "blocked.=FF",
        ] {
            assert_eq!(Key::parse(other), None, "{other}");
        }
    }

    #[test]
    fn an_id_is_neither_empty_nor_longer_than_openims() {
        let list = ListName::parse("blocked").unwrap();
        assert_eq!(Key::new(list.clone(), ""), Err(KeyError::Empty));
        assert_eq!(
            Key::new(list.clone(), &"x".repeat(257)),
            Err(KeyError::TooLong { bytes: 257 })
        );
        assert!(Key::new(list, &"x".repeat(256)).is_ok());
    }

    #[test]
    fn a_lists_name_is_a_token_of_a_subject() {
        for good in ["blocked", "9", "a_b-c"] {
            assert!(ListName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "_own", "-a", "a.b", "a b", "a*", "ü", &"x".repeat(65)] {
            assert_eq!(ListName::parse(bad), Err(NameError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_id_fits_and_is_read_as_it_was_written(id in "\\PC{1,60}|[ -~\\n\\t]{1,200}") {
            let key = key(&id);
            let text = key.to_string();
            prop_assert!(text.bytes().all(|b| is_plain(b) || matches!(b, b'.' | b'=')), "{text}");
            prop_assert_eq!(Key::parse(&text), Some(key));
        }
    }
}
