use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::super::{diagnostic::quoted, matcher::Part};
use crate::lists::{Fold, Hit, View};

/// Why a rule refused an import or removed a friend. Its `Display` is a predicate such as "is in blocked".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason<'p> {
    /// The ID is the owner's.
    IsOwner,
    /// The ID occurs earlier in the request.
    Repeated,
    /// The ID is in a list.
    In {
        /// The list's name.
        list: &'p str,
        /// Which differences the list ignores.
        fold: Fold,
        /// The details of the ID's entry in the list.
        hit: Hit,
    },
    /// The ID is not in this list.
    NotIn(&'p str),
    /// The ID starts with this.
    Prefix(&'p str),
    /// The ID ends with this.
    Suffix(&'p str),
    /// The ID matches this regular expression.
    Pattern(&'p str),
    /// The ID starts with none of these.
    NoPrefix(&'p [String]),
    /// The ID ends with none of these.
    NoSuffix(&'p [String]),
    /// The ID matches none of these regular expressions.
    NoPattern(&'p [String]),
    /// More friends remain than the limit.
    Over {
        /// How many remain.
        left: usize,
        /// The limit.
        max: usize,
    },
    /// This expression is true.
    Expression(&'p str),
    /// The rule refuses because its expression failed with this error.
    Failed(String),
}

impl<'p> Reason<'p> {
    /// The reason for which a rule with this part matched `id`.
    pub(super) fn of(part: Part<'p>, id: &str, view: View<'_>) -> Self {
        match part {
            Part::In(list) => Self::In {
                list: &list.name,
                fold: list.ids.fold(),
                hit: part.hit(id, view),
            },
            Part::NotIn(list) => Self::NotIn(&list.name),
            Part::Prefix(text) => Self::Prefix(text),
            Part::Suffix(text) => Self::Suffix(text),
            Part::Pattern(text) => Self::Pattern(text),
            Part::NoPrefix(texts) => Self::NoPrefix(texts),
            Part::NoSuffix(texts) => Self::NoSuffix(texts),
            Part::NoPattern(texts) => Self::NoPattern(texts),
        }
    }

    /// Whether it is a predicate about an ID, which is then its subject.
    pub(super) fn is_of_an_id(&self) -> bool {
        !matches!(
            self,
            Self::Over { .. } | Self::Expression(_) | Self::Failed(_)
        )
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsOwner => f.write_str("is the owner"),
            Self::Repeated => f.write_str("is a duplicate"),
            Self::In { list, fold, hit } => {
                write!(f, "is in {list}")?;
                if let Some(entry) = &hit.entry {
                    write!(f, " as {} (fold: {fold})", quoted(entry))?;
                }
                let until = hit.until.and_then(rfc3339);
                match (&hit.reason, until) {
                    (Some(reason), Some(until)) => write!(f, ": {reason}, until {until}"),
                    (Some(reason), None) => write!(f, ": {reason}"),
                    (None, Some(until)) => write!(f, " until {until}"),
                    (None, None) => Ok(()),
                }
            }
            Self::NotIn(list) => write!(f, "is not in {list}"),
            Self::Prefix(prefix) => write!(f, "starts with \"{prefix}\""),
            Self::Suffix(suffix) => write!(f, "ends with \"{suffix}\""),
            Self::Pattern(pattern) => write!(f, "matches \"{pattern}\""),
            Self::NoPrefix(prefixes) => write!(f, "does not start with {}", alternatives(prefixes)),
            Self::NoSuffix(suffixes) => write!(f, "does not end with {}", alternatives(suffixes)),
            Self::NoPattern(patterns) => write!(f, "does not match {}", alternatives(patterns)),
            Self::Over { left, max } => write!(f, "{left} friends, at most {max}"),
            Self::Expression(source) => write!(f, "{source} is true"),
            Self::Failed(why) => write!(f, "the expression failed: {why}"),
        }
    }
}

/// Formats a time in whole seconds. Returns `None` before 1970 and beyond the year 9999.
fn rfc3339(time: SystemTime) -> Option<String> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(since.as_secs()).ok()?);
    time.ok()?.format(&Rfc3339).ok()
}

/// Maximum number of alternatives that are named.
const MAX_ALTERNATIVES: usize = 3;

fn alternatives(texts: &[String]) -> String {
    let named = texts.iter().take(MAX_ALTERNATIVES);
    let mut named: Vec<_> = named.map(|text| format!("\"{text}\"")).collect();
    if let Some(more @ 1..) = texts.len().checked_sub(MAX_ALTERNATIVES) {
        named.push(format!("{more} more"));
    }
    named.join(" or ")
}
