use std::fmt;

use uuid::{Uuid, fmt::Hyphenated};

/// An event's id: a UUID v7, so that ids sort by the time they were made, within a process in the order they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

/// Why a text is no event id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no UUID: {0}")]
pub struct InvalidEventId(#[from] uuid::Error);

impl EventId {
    /// A new one, of now.
    #[expect(clippy::new_without_default, reason = "every call is another id")]
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

    /// Room for [`encoded`](Self::encoded).
    pub(crate) const fn buffer() -> [u8; Hyphenated::LENGTH] {
        [0; Hyphenated::LENGTH]
    }

    /// The id as text, without an allocation.
    pub(crate) fn encoded<'a>(&self, buffer: &'a mut [u8; Hyphenated::LENGTH]) -> &'a str {
        self.0.hyphenated().encode_lower(buffer)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_as_they_were_made_and_tell_when() {
        let ids: Vec<_> = (0..10_000).map(|_| EventId::new()).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().map(EventId::to_string).is_sorted());
        let age = crate::record::spool::unix_ms().abs_diff(ids[0].unix_ms());
        assert!(age < 60_000, "{age} ms");
    }

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = EventId::new();
        assert_eq!(EventId::parse(&id.to_string()), Ok(id));
        assert_eq!(id.encoded(&mut EventId::buffer()), id.to_string());
        assert!(EventId::parse("1646445464564").is_err());
    }
}
