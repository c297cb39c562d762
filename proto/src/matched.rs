//! Conversions of the matches that made rules act.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use importguard_core::{Alternatives, ListHit, Match, MatchedPart};

use crate::decider::{self as wire, r#match::Part};

impl From<Match> for wire::Match {
    fn from(matched: Match) -> Self {
        Self {
            part: Some(matched.part.into()),
            friends: matched.friends,
            count: matched.count,
        }
    }
}

impl From<MatchedPart> for Part {
    fn from(part: MatchedPart) -> Self {
        match part {
            MatchedPart::List(hit) => Self::List(wire::ListHit {
                list: hit.list,
                entry: hit.entry.unwrap_or_default(),
                reason: hit.reason.unwrap_or_default(),
                until: hit.until.map(seconds),
            }),
            MatchedPart::NotInList(list) => Self::NotInList(list),
            MatchedPart::Prefix(text) => Self::Prefix(text),
            MatchedPart::Suffix(text) => Self::Suffix(text),
            MatchedPart::Pattern(text) => Self::Pattern(text),
            MatchedPart::NoneOf(alternatives) => Self::NoneOf(
                match alternatives {
                    Alternatives::Prefixes => wire::Alternatives::Prefixes,
                    Alternatives::Suffixes => wire::Alternatives::Suffixes,
                    Alternatives::Patterns => wire::Alternatives::Patterns,
                }
                .into(),
            ),
            MatchedPart::Limit(max) => Self::Limit(max),
            MatchedPart::Expression(source) => Self::Expression(source),
        }
    }
}

/// Converts a match; returns `None` if this version does not know its part.
pub(crate) fn into_match(matched: wire::Match) -> Option<Match> {
    Some(Match {
        part: into_part(matched.part?)?,
        friends: matched.friends,
        count: matched.count,
    })
}

fn into_part(part: Part) -> Option<MatchedPart> {
    Some(match part {
        Part::List(hit) => MatchedPart::List(ListHit {
            list: hit.list,
            entry: some(hit.entry),
            reason: some(hit.reason),
            until: hit.until.and_then(time),
        }),
        Part::NotInList(list) => MatchedPart::NotInList(list),
        Part::Prefix(text) => MatchedPart::Prefix(text),
        Part::Suffix(text) => MatchedPart::Suffix(text),
        Part::Pattern(text) => MatchedPart::Pattern(text),
        Part::NoneOf(alternatives) => MatchedPart::NoneOf(match alternatives.try_into().ok()? {
            wire::Alternatives::Prefixes => Alternatives::Prefixes,
            wire::Alternatives::Suffixes => Alternatives::Suffixes,
            wire::Alternatives::Patterns => Alternatives::Patterns,
            wire::Alternatives::Unspecified => return None,
        }),
        Part::Limit(max) => MatchedPart::Limit(max),
        Part::Expression(source) => MatchedPart::Expression(source),
    })
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
