//! What the rules of a policy did and which of their parts matched, and the revisions of the policy and its lists.
//!
//! Digests identify what a verdict is based on, and are comparable between processes.

use std::{fmt::Write, time::SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use strum::{AsRefStr, EnumIter, IntoStaticStr};

/// A rule that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiredRule {
    /// The rule's ID.
    pub id: String,
    /// Whether it was enforced.
    pub mode: Mode,
    /// What it did, or would have done.
    pub outcome: Outcome,
    /// Why its expression failed, without user IDs; only with [`Outcome::Error`].
    pub reason: Option<String>,
    /// The matches that made it act, in order of the first friend that each applied to. Empty for the built-in rules, and for
    /// [`Outcome::Error`] and [`Outcome::Skipped`].
    pub matched: Vec<Match>,
    /// How many more friends it acted on that no listed match counts, because the number of matches is limited.
    pub unlisted: u32,
}

/// Whether a rule is enforced.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    IntoStaticStr,
    AsRefStr,
    EnumIter,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum Mode {
    /// It is enforced.
    Enforce,
    /// It is evaluated and reported, and changes nothing.
    Shadow,
}

impl Mode {
    /// Its name in events, logs, spans and metrics.
    pub fn into_str(self) -> &'static str {
        self.into()
    }
}

/// The outcome of a rule that fired.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    IntoStaticStr,
    AsRefStr,
    EnumIter,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum Outcome {
    /// It refused the import.
    Refuse,
    /// It removed friends.
    Remove,
    /// Its expression failed: it was skipped or, if `onError` says so, refused the import.
    Error,
    /// It is in shadow mode and was not evaluated, because that would have exceeded the cost limit of shadow rules.
    Skipped,
}

impl Outcome {
    /// Its name in events, logs, spans and metrics.
    pub fn into_str(self) -> &'static str {
        self.into()
    }
}

/// The friends that a rule removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The rule's ID.
    pub rule: String,
    /// Ascending indexes into the request's friends, from 0; at least one.
    pub friends: Vec<u32>,
}

/// The policy that a verdict is based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyRevision {
    /// Its name.
    pub name: String,
    /// SHA-256 of the file: `sha256:` and 64 hex digits.
    pub digest: String,
}

/// The content of a list that a verdict is based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListRevision {
    /// Its name in the policy.
    pub name: String,
    /// SHA-256 of its content: `sha256:` and 64 hex digits; in events with pseudonyms, an HMAC instead. Of a live list: of the file or
    /// values beside it, if there are any.
    pub digest: String,
    /// Number of distinct IDs. With a live list, its entries are counted as well, even if the file has the same IDs.
    pub size: u64,
    /// Of a live list: the revision of the bucket with the list's last change, or 0 if it never had an entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<u64>,
}

/// Returns the digest of `content` as it appears in revisions of policies and lists: `sha256:` and 64 hex digits.
pub fn digest(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}

/// Returns the digest of a policy with its lists: it covers the policy's file, and the name and content of each list, in the policy's
/// order. Two deciders with the same digest give the same verdicts, as long as the entries of their live lists are the same.
///
/// It is the digest of the line `policy DIGEST` followed by a line `list NAME DIGEST` for each list, so that a shell can compute it.
pub fn content_digest<'l>(
    policy: &PolicyRevision,
    lists: impl IntoIterator<Item = &'l ListRevision>,
) -> String {
    let mut manifest = format!("policy {}\n", policy.digest);
    for list in lists {
        // Writing into a String cannot fail.
        let _ = writeln!(manifest, "list {} {}", list.name, list.digest);
    }
    digest(manifest.as_bytes())
}

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
    /// Maximum number of friends listed in a match; [`Match::count`] counts all of them.
    pub const MAX_FRIENDS: usize = 20;

    /// Describes the part for logs and spans, such as `list blocked`. Returns `None` for an expression, which the rule's ID identifies.
    /// Contains names and numbers only, because strings in a policy and entries of lists may contain user IDs.
    pub fn summary(&self) -> Option<String> {
        Some(match &self.part {
            MatchedPart::List(hit) => format!("list {}", hit.list),
            MatchedPart::NotInList(list) => format!("not on list {list}"),
            MatchedPart::Prefix(_) => "prefix".to_owned(),
            MatchedPart::Suffix(_) => "suffix".to_owned(),
            MatchedPart::Pattern(_) => "pattern".to_owned(),
            MatchedPart::NoneOf(alternatives) => format!("none of its {}", alternatives.into_str()),
            MatchedPart::Limit(max) => format!("{} friends, at most {max}", self.count),
            MatchedPart::Expression(_) => return None,
        })
    }
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchedPart {
    /// The ID is in this list.
    List(ListHit),
    /// The ID is not in this list.
    NotInList(String),
    /// The ID starts with this.
    Prefix(String),
    /// The ID ends with this.
    Suffix(String),
    /// The ID matches this regular expression.
    Pattern(String),
    /// The ID matches none of the alternatives, at least one of which it must match.
    NoneOf(Alternatives),
    /// More friends than this remained.
    Limit(u64),
    /// This expression is true.
    Expression(String),
}

/// The entry of a list that matched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListHit {
    /// The list's name in the policy.
    pub list: String,
    /// The entry, if it differs from the ID because the list ignores case or white space.
    pub entry: Option<String>,
    /// Why the entry is in the list, if known.
    pub reason: Option<String>,
    /// When the entry expires, if it does.
    pub until: Option<SystemTime>,
}

/// The kind of alternatives of which an ID must match at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "camelCase")]
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
    pub fn into_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        assert_eq!(
            digest(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    fn content(policy: &str, lists: &[(&str, &str)]) -> String {
        let policy = PolicyRevision {
            name: "default".to_owned(),
            digest: policy.to_owned(),
        };
        let lists = lists.iter().map(|(name, digest)| ListRevision {
            name: (*name).to_owned(),
            digest: (*digest).to_owned(),
            size: 1,
            revision: None,
        });
        content_digest(&policy, &lists.collect::<Vec<_>>())
    }

    #[test]
    fn a_content_digest_is_that_of_lines_with_the_digests_of_policy_and_lists() {
        assert_eq!(
            content("sha256:1", &[("blocked", "sha256:2")]),
            digest(b"policy sha256:1\nlist blocked sha256:2\n")
        );
    }

    #[test]
    fn a_content_digest_differs_with_the_policy_and_with_each_list() {
        let digests = [
            content("1", &[]),
            content("2", &[]),
            content("1", &[("a", "1")]),
            content("1", &[("a", "2")]),
            content("1", &[("b", "1")]),
            content("1", &[("a", "1"), ("b", "1")]),
        ];
        for (position, digest) in digests.iter().enumerate() {
            assert!(!digests[..position].contains(digest), "{position}");
        }
    }
}
