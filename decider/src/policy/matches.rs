//! The matches that made a rule act. Their size is limited: friends are counted per part of the rule, and only the first ones are listed.

use importguard_core::{Alternatives, ListHit, Match, MatchedPart};

use super::matcher::Part;
use crate::lists::{Hit, View};

/// Maximum number of listed parts of a rule. List entries are separate parts if they have details, such as a spelling or a reason.
const MAX_OF_RULE: usize = 16;

/// Maximum number of listed parts of all rules, in addition to the first of each rule.
const MAX_OF_REQUEST: usize = 64;

/// The maximum length of a string from the policy in a match, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// The matches that made a rule act. Allocates only if there are any.
#[derive(Debug, Default)]
pub(super) struct Matches<'p> {
    groups: Vec<Group<'p>>,
    unlisted: u32,
}

#[derive(Debug)]
struct Group<'p> {
    part: Part<'p>,
    hit: Hit,
    friends: Vec<u32>,
    count: u32,
}

impl<'p> Matches<'p> {
    /// The owner matched this part.
    pub(super) fn owner(part: Part<'p>, owner: &str, view: View<'_>) -> Self {
        Self::once(part, part.hit(owner, view), 0)
    }

    /// More friends remained than the limit allows.
    pub(super) fn limit(max: usize, left: usize) -> Self {
        let count = u32::try_from(left).unwrap_or(u32::MAX);
        Self::once(Part::Limit { max, left }, Hit::default(), count)
    }

    /// The expression is true for the request.
    pub(super) fn expression(source: &'p str) -> Self {
        Self::once(Part::Expression(source), Hit::default(), 0)
    }

    fn once(part: Part<'p>, hit: Hit, count: u32) -> Self {
        Self {
            groups: vec![Group {
                part,
                hit,
                friends: Vec::new(),
                count,
            }],
            unlisted: 0,
        }
    }

    /// The friend with this index matched this part. Indexes ascend.
    #[inline(never)]
    pub(super) fn add(&mut self, part: Part<'p>, (friend, index): (&str, u32), view: View<'_>) {
        let hit = part.hit(friend, view);
        // Friends of an import tend to match the same part, so the latest groups are tried first.
        let mut groups = self.groups.iter_mut().rev();
        if let Some(group) = groups.find(|group| group.part.is(part) && group.hit == hit) {
            group.count = group.count.saturating_add(1);
            if group.friends.len() < Match::MAX_FRIENDS {
                group.friends.push(index);
            }
        } else if self.groups.len() < MAX_OF_RULE {
            self.groups.push(Group {
                part,
                hit,
                friends: vec![index],
                count: 1,
            });
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }
}

impl Group<'_> {
    fn into_match(self) -> Match {
        Match {
            part: self.part.named(self.hit),
            friends: self.friends,
            count: self.count,
        }
    }
}

impl Part<'_> {
    fn named(self, hit: Hit) -> MatchedPart {
        match self {
            Self::In(list) => MatchedPart::List(ListHit {
                list: list.name.clone(),
                entry: hit.entry,
                reason: hit.reason.as_deref().map(str::to_owned),
                until: hit.until,
            }),
            Self::NotIn(list) => MatchedPart::NotInList(list.name.clone()),
            Self::Prefix(text) => MatchedPart::Prefix(cut(text)),
            Self::Suffix(text) => MatchedPart::Suffix(cut(text)),
            Self::Pattern(text) => MatchedPart::Pattern(cut(text)),
            Self::NoPrefix(_) => MatchedPart::NoneOf(Alternatives::Prefixes),
            Self::NoSuffix(_) => MatchedPart::NoneOf(Alternatives::Suffixes),
            Self::NoPattern(_) => MatchedPart::NoneOf(Alternatives::Patterns),
            Self::Limit { max, .. } => MatchedPart::Limit(max as u64),
            Self::Expression(source) => MatchedPart::Expression(cut(source)),
        }
    }
}

fn cut(text: &str) -> String {
    if text.len() <= MAX_TEXT_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    let (begin, _) = text.split_at(end);
    format!("{begin}…")
}

/// How many more matches of a request may be listed.
pub(super) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MAX_OF_REQUEST)
    }
}

impl Room {
    /// Returns the matches of a rule that fit, and the number of friends that the others applied to.
    pub(super) fn list(&mut self, matches: Matches<'_>) -> (Vec<Match>, u32) {
        let Matches {
            groups,
            mut unlisted,
        } = matches;
        let mut listed = Vec::with_capacity(groups.len());
        for group in groups {
            if listed.is_empty() {
                listed.push(group.into_match());
            } else if let Some(rest) = self.0.checked_sub(1) {
                self.0 = rest;
                listed.push(group.into_match());
            } else {
                unlisted = unlisted.saturating_add(group.count);
            }
        }
        (listed, unlisted)
    }
}
