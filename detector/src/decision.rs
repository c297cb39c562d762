//! A decision as the detector reads it: only the fields that rules and log lines use, so that events of later versions work too.

use std::borrow::Cow;

use importguard_core::{EventId, UserId};
use serde::Deserialize;
use strum::IntoStaticStr;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::rules::Filter;

/// The event of a decision.
#[derive(Debug)]
pub(crate) struct RecordedDecision {
    /// The event's ID.
    pub(crate) id: EventId,
    /// OpenIM's operationID.
    pub(crate) operation_id: Option<String>,
    /// When the gateway decided.
    pub(crate) time: OffsetDateTime,
    /// The user who imports friends.
    pub(crate) owner: UserId,
    /// The requested friends; `None` if the event was too large to name them.
    pub(crate) friends: Option<Vec<String>>,
    verdict: String,
    cause: Option<String>,
    code: Option<i64>,
    /// The rules that refused or removed friends.
    rules: Vec<String>,
}

/// Why no rule can count an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "camelCase", const_into_str)]
pub(crate) enum Unusable {
    /// The message is not an event about a decision.
    Unreadable,
    /// The event has pseudonyms, but lists need user IDs.
    Pseudonymised,
}

#[derive(Deserialize)]
struct Raw<'e> {
    #[serde(borrow)]
    id: Cow<'e, str>,
    #[serde(borrow)]
    time: Cow<'e, str>,
    #[serde(default)]
    pseudonymised: bool,
    #[serde(borrow)]
    data: RawData<'e>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawData<'e> {
    #[serde(rename = "operationID")]
    operation_id: Option<String>,
    #[serde(rename = "ownerUserID")]
    owner_user_id: String,
    #[serde(rename = "friendUserIDs")]
    friend_user_ids: Option<Vec<String>>,
    verdict: String,
    #[serde(borrow, default)]
    decided_by: Cow<'e, str>,
    cause: Option<String>,
    refusal: Option<RawRefusal>,
    #[serde(default)]
    removed: Vec<RawRemoval>,
    #[serde(default)]
    rules: Vec<RawFired>,
}

#[derive(Deserialize)]
struct RawRefusal {
    rule: Option<String>,
    code: i64,
}

#[derive(Deserialize)]
struct RawRemoval {
    rule: String,
}

#[derive(Deserialize)]
struct RawFired {
    id: String,
    mode: String,
    outcome: String,
}

impl RecordedDecision {
    /// Reads an event.
    ///
    /// # Errors
    /// If no rule can count the event.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, Unusable> {
        let raw: Raw<'_> = serde_json::from_slice(payload).map_err(|_| Unusable::Unreadable)?;
        let time = OffsetDateTime::parse(&raw.time, &Rfc3339);
        let data = raw.data;
        let id = EventId::parse(&raw.id).map_err(|_| Unusable::Unreadable)?;
        let owner = UserId::parse(data.owner_user_id).map_err(|_| Unusable::Unreadable)?;
        if owner.as_str().len() > UserId::MAX_BYTES {
            return Err(Unusable::Unreadable);
        }
        if raw.pseudonymised {
            return Err(Unusable::Pseudonymised);
        }
        let fired = data.rules.into_iter();
        let fired = fired.filter(|rule| {
            rule.mode == "enforce" && matches!(rule.outcome.as_str(), "refuse" | "remove")
        });
        let removed = data.removed.into_iter().map(|removal| removal.rule);
        let code = data.refusal.as_ref().map(|refusal| refusal.code);
        let refused = data.refusal.and_then(|refusal| refusal.rule);
        let fallback = data.decided_by == "fallback";
        Ok(Self {
            id,
            operation_id: data.operation_id,
            time: time.map_err(|_| Unusable::Unreadable)?,
            owner,
            friends: data.friend_user_ids,
            verdict: data.verdict,
            // A fallback without a cause gets an empty one, which no rule can name, so that it never counts.
            cause: data.cause.or_else(|| fallback.then(String::new)),
            code,
            rules: fired
                .map(|rule| rule.id)
                .chain(removed)
                .chain(refused)
                .collect(),
        })
    }

    /// Whether the decision matches every key of `only` and no key of `except`. A fallback matches only if `only` names its cause.
    pub(crate) fn counts(&self, only: &Filter, except: &Filter) -> bool {
        let verdict = |filter: &Filter| filter.verdicts.contains(&self.verdict.as_str());
        let rule = |filter: &Filter| self.rules.iter().any(|rule| filter.rules.contains(rule));
        let code = |filter: &Filter| self.code.is_some_and(|code| filter.codes.contains(&code));
        let cause = match &self.cause {
            Some(cause) => only.causes.contains(&cause.as_str()),
            None => only.causes.is_empty(),
        };
        cause
            && (only.verdicts.is_empty() || verdict(only))
            && (only.rules.is_empty() || rule(only))
            && (only.codes.is_empty() || code(only))
            && !(verdict(except) || rule(except) || code(except))
    }
}
