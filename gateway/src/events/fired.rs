//! What rules did, as events have it.

use std::{borrow::Cow, time::UNIX_EPOCH};

use importguard_core::{FiredRule, ListHit, Match, MatchedPart, Mode, Outcome};
use importguard_telemetry::span;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339, serde::rfc3339};

use super::Pseudonyms;

/// A rule that fired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "FiredRule"))]
pub struct Fired<'a> {
    /// The rule's ID.
    pub id: Cow<'a, str>,
    /// Whether it was enforced.
    pub mode: Mode,
    /// What it did, or would have done.
    pub outcome: Outcome,
    /// Why its expression failed, without user IDs; only with the outcome `error`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Cow<'a, str>>,
    /// What made it act: at most 16 parts of the rule. Absent for the built-in rules.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub matched: Vec<Matched<'a>>,
    /// How many more friends it acted on, by parts that `matched` leaves out.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub unlisted: u32,
}

impl<'a> Fired<'a> {
    /// The rule as events with these pseudonyms have it.
    pub(super) fn of(rule: &'a FiredRule, pseudonyms: &Pseudonyms) -> Self {
        let matched = rule.matched.iter();
        Self {
            id: Cow::Borrowed(&rule.id),
            mode: rule.mode,
            outcome: rule.outcome,
            reason: rule.reason.as_deref().map(Cow::Borrowed),
            matched: matched.map(|it| Matched::of(it, pseudonyms)).collect(),
            unlisted: rule.unlisted,
        }
    }

    /// Adds an event to the current span for each entry of a list that made the rule act, with what the list says of it.
    pub(super) fn trace(&self) {
        for matched in &self.matched {
            let Some(list) = &matched.list else {
                continue;
            };
            if matched.reason.is_none() && matched.until.is_none() {
                continue;
            }
            let until = matched.until.and_then(|until| until.format(&Rfc3339).ok());
            let attributes = [
                ("importguard.rule.id", Some(&*self.id)),
                ("importguard.rule.mode", Some(self.mode.into_str())),
                ("importguard.list.name", Some(&**list)),
                ("importguard.list.reason", matched.reason.as_deref()),
                ("importguard.list.until", until.as_deref()),
            ];
            let there = attributes.into_iter();
            let there = there.filter_map(|(name, value)| Some((name, value?)));
            span::event("importguard.list", &there.collect::<Vec<_>>());
        }
    }
}

/// A part of a rule that made it act, named by one of `list` to `expression`, and the friends that it applied to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Matched<'a> {
    /// The list that has the ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Cow<'a, str>>,
    /// The entry of `list`, or its pseudonym, if it differs from the ID: the list ignores case or white space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<Cow<'a, str>>,
    /// Why the entry is on `list`, if that is known and events have no pseudonyms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    /// When the entry of `list` expires, if it does.
    #[serde(skip_serializing_if = "Option::is_none", with = "rfc3339::option")]
    #[cfg_attr(test, schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub until: Option<OffsetDateTime>,
    /// The list that does not have the ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_in_list: Option<Cow<'a, str>>,
    /// The ID starts with this; `redacted` where events have pseudonyms, as are `suffix`, `pattern` and `expression`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Cow<'a, str>>,
    /// The ID ends with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<Cow<'a, str>>,
    /// The ID matches this regular expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Cow<'a, str>>,
    /// The ID fits none of the rule's `prefixes`, `suffixes` or `patterns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none_of: Option<Cow<'a, str>>,
    /// More friends were left than this: `count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// This expression is true; cut after 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<Cow<'a, str>>,
    /// The first 20 friends that it applied to, as ascending indexes into `friendUserIDs`. Absent if it applied to the owner or to
    /// the import as a whole, and with `friendUserIDs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub friends: Vec<u32>,
    /// How many friends it applied to; with `limit`, how many were left when it was checked. Absent if it applied to the owner
    /// or to the import as a whole.
    #[serde(skip_serializing_if = "is_zero")]
    pub count: u32,
}

impl<'a> Matched<'a> {
    fn of(matched: &'a Match, pseudonyms: &Pseudonyms) -> Self {
        let this = Self {
            friends: matched.friends.clone(),
            count: matched.count,
            ..Self::default()
        };
        let text = |text: &'a str| Some(pseudonyms.of_free_text(text));
        match &matched.part {
            MatchedPart::List(hit) => Self {
                list: Some(Cow::Borrowed(&hit.list)),
                entry: hit.entry.as_deref().map(|entry| pseudonyms.of_text(entry)),
                reason: match pseudonyms {
                    Pseudonyms::Off => hit.reason.as_deref().map(Cow::Borrowed),
                    Pseudonyms::Keyed(_) | Pseudonyms::Redacted => None,
                },
                until: expiry(hit),
                ..this
            },
            MatchedPart::NotInList(list) => Self {
                not_in_list: Some(Cow::Borrowed(list)),
                ..this
            },
            MatchedPart::Prefix(prefix) => Self {
                prefix: text(prefix),
                ..this
            },
            MatchedPart::Suffix(suffix) => Self {
                suffix: text(suffix),
                ..this
            },
            MatchedPart::Pattern(pattern) => Self {
                pattern: text(pattern),
                ..this
            },
            MatchedPart::NoneOf(alternatives) => Self {
                none_of: Some(Cow::Borrowed(alternatives.into_str())),
                ..this
            },
            MatchedPart::Limit(limit) => Self {
                limit: Some(*limit),
                ..this
            },
            MatchedPart::Expression(source) => Self {
                expression: text(source),
                ..this
            },
        }
    }
}

/// When an entry expires. None if that is beyond the year 9999.
pub(crate) fn expiry(hit: &ListHit) -> Option<OffsetDateTime> {
    let since = hit.until?.duration_since(UNIX_EPOCH).ok()?;
    OffsetDateTime::from_unix_timestamp(i64::try_from(since.as_secs()).ok()?).ok()
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}
