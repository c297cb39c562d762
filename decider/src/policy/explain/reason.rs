use std::fmt;

use super::super::{diagnostic::quoted, matcher::Part};
use crate::{
    lists::{Hit, View},
    timestamp::rfc3339,
};

/// Why a rule refused an import or removed a friend. Its `Display` is a predicate such as "is in blocked".
#[derive(Clone, Debug)]
pub enum Reason<'p> {
    /// The ID is the owner's.
    IsOwner,
    /// The ID occurs earlier in the request.
    Repeated,
    /// The rule refuses because its expression failed with this error.
    Failed(String),
    /// This part of the rule matched.
    Matched {
        /// The part.
        part: Part<'p>,
        /// The details of the ID's entry, if the part is a list.
        hit: Hit,
    },
}

impl<'p> Reason<'p> {
    /// The reason for which a rule with this part matched `id`.
    pub(super) fn of(part: Part<'p>, id: &str, view: View<'_>) -> Self {
        Self::Matched {
            part,
            hit: part.hit(id, view),
        }
    }

    /// Whether it is a predicate about an ID, which is then its subject.
    pub(super) fn is_of_an_id(&self) -> bool {
        match self {
            Self::Failed(_) => false,
            Self::Matched { part, .. } => !matches!(part, Part::Limit { .. } | Part::Expression(_)),
            Self::IsOwner | Self::Repeated => true,
        }
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsOwner => f.write_str("is the owner"),
            Self::Repeated => f.write_str("is a duplicate"),
            Self::Failed(why) => write!(f, "the expression failed: {why}"),
            Self::Matched { part, hit } => describe(*part, hit, f),
        }
    }
}

fn describe(part: Part<'_>, hit: &Hit, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match part {
        Part::In(list) => {
            write!(f, "is in {}", list.name)?;
            if let Some(entry) = &hit.entry {
                let fold = list.ids.fold();
                write!(f, " as {} (fold: {fold})", quoted(entry))?;
            }
            let until = hit.until.map(rfc3339);
            match (&hit.reason, until) {
                (Some(reason), Some(until)) => write!(f, ": {reason}, until {until}"),
                (Some(reason), None) => write!(f, ": {reason}"),
                (None, Some(until)) => write!(f, " until {until}"),
                (None, None) => Ok(()),
            }
        }
        Part::NotIn(list) => write!(f, "is not in {}", list.name),
        Part::Prefix(prefix) => write!(f, "starts with \"{prefix}\""),
        Part::Suffix(suffix) => write!(f, "ends with \"{suffix}\""),
        Part::Pattern(pattern) => write!(f, "matches \"{pattern}\""),
        Part::NoPrefix(prefixes) => write!(f, "does not start with {}", alternatives(prefixes)),
        Part::NoSuffix(suffixes) => write!(f, "does not end with {}", alternatives(suffixes)),
        Part::NoPattern(patterns) => write!(f, "does not match {}", alternatives(patterns)),
        Part::Limit { max, left } => write!(f, "{left} friends, at most {max}"),
        Part::Expression(source) => write!(f, "{source} is true"),
    }
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
