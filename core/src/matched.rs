//! Which part of a rule made it act.

use std::time::SystemTime;

/// A part of a rule that made it act, and what it applied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The part.
    pub part: MatchedPart,
    /// Ascending indexes into the request's friends, from 0, the first [`Match::MAX_FRIENDS`] of them. Empty if the part applied to
    /// the owner or to the import as a whole.
    pub friends: Vec<u32>,
    /// How many friends it applied to; for a limit, how many were left when it was checked.
    pub count: u32,
}

impl Match {
    /// How many friends are listed; [`Match::count`] has them all.
    pub const MAX_FRIENDS: usize = 20;

    /// What it is for logs and spans, such as `list blocked`; None for an expression, which the rule's ID stands for. Names and
    /// numbers only: texts of a policy and entries of lists may have users' IDs in them.
    pub fn summary(&self) -> Option<String> {
        Some(match &self.part {
            MatchedPart::List(hit) => format!("list {}", hit.list),
            MatchedPart::NotInList(list) => format!("not on list {list}"),
            MatchedPart::Prefix(_) => "prefix".to_owned(),
            MatchedPart::Suffix(_) => "suffix".to_owned(),
            MatchedPart::Pattern(_) => "pattern".to_owned(),
            MatchedPart::NoneOf(alternatives) => format!("none of its {}", alternatives.as_str()),
            MatchedPart::Limit(max) => format!("{} friends, at most {max}", self.count),
            MatchedPart::Expression(_) => return None,
        })
    }
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchedPart {
    /// A list has the ID.
    List(ListHit),
    /// This list does not have the ID.
    NotInList(String),
    /// The ID starts with this.
    Prefix(String),
    /// The ID ends with this.
    Suffix(String),
    /// The ID matches this regular expression.
    Pattern(String),
    /// The ID fits none of the alternatives that it has to fit.
    NoneOf(Alternatives),
    /// More friends were left than this.
    Limit(u64),
    /// This expression is true.
    Expression(String),
}

/// An entry of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListHit {
    /// The list's name in the policy.
    pub list: String,
    /// The entry, if it differs from the ID: the list ignores case or white space.
    pub entry: Option<String>,
    /// Why the entry is on the list, if that is known.
    pub reason: Option<String>,
    /// When the entry expires, if it does.
    pub until: Option<SystemTime>,
}

/// What the alternatives are of which an ID has to fit one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternatives {
    /// Prefixes.
    Prefixes,
    /// Suffixes.
    Suffixes,
    /// Regular expressions.
    Patterns,
}

impl Alternatives {
    /// Its name in events and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prefixes => "prefixes",
            Self::Suffixes => "suffixes",
            Self::Patterns => "patterns",
        }
    }
}
