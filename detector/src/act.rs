//! Adds owners to lists.

use importguard_lists::{Added, Addition, Author, Brief, BucketError, Key, Reason, Writer};
use strum::IntoStaticStr;
use time::OffsetDateTime;

use crate::{engine::Detection, rules::Rule};

/// The author of the detector's entries.
pub(crate) const AUTHOR: &str = "detector";

/// The result of acting on a detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "camelCase", const_into_str)]
pub(crate) enum Outcome {
    /// The owner was added to the list, with this revision.
    Added(u64),
    /// The owner had already been added to the list for this event. The entry's revision, if its event has only been published now.
    Repeated(Option<u64>),
    /// The owner is already on the list. If a detector added them, until then; `None` if somebody else did.
    Listed(Option<OffsetDateTime>),
    /// The owner was removed from the list after the rule's window began.
    Removed,
    /// The entry has the same or a later time than the event that reached the threshold.
    Superseded,
    /// The entry would already have expired.
    Expired,
}

impl Outcome {
    /// When the detector's entry that the owner is on the list by expires; `None` if there is none. While on the list by what a person
    /// decided, who goes on counts: that entry may be removed at any time.
    pub(crate) const fn listed_until(self, detection: &Detection) -> Option<OffsetDateTime> {
        match self {
            Self::Added(_) | Self::Repeated(_) => Some(detection.until),
            Self::Listed(until) => until,
            Self::Removed | Self::Superseded | Self::Expired => None,
        }
    }
}

/// Adds the owner to the rule's list, once per detection, and publishes the event about the change.
///
/// # Errors
/// If NATS does not answer, or refuses a request. A retry is harmless.
pub(crate) async fn act(
    writer: &Writer,
    rule: &Rule,
    detection: &Detection,
) -> Result<Outcome, BucketError> {
    let refused = |error: &dyn std::fmt::Display| BucketError::Refused(error.to_string());
    let key = Key::new(rule.list.clone(), detection.owner.as_str());
    let key = key.map_err(|error| refused(&error))?;
    let kept = |known: &Brief<'_>| kept(known, rule, detection);
    if let Some(Some(outcome)) = writer.bucket().look_up(&key, kept).await? {
        return Ok(outcome);
    }
    let addition = Addition {
        by: Author::parse(AUTHOR).map_err(|error| refused(&error))?,
        reason: Some(Reason::parse(&rule.evidence()).map_err(|error| refused(&error))?),
        at: detection.at,
        until: Some(detection.until),
        removed: false,
        event: detection.event,
    };
    Ok(match writer.add_once(&key, &addition).await? {
        Added::Now(revision) => Outcome::Added(revision),
        Added::Before(revision) => Outcome::Repeated(revision),
        Added::Superseded => Outcome::Superseded,
        Added::Expired => Outcome::Expired,
    })
}

/// Why the owner's value in the bucket is kept; `None` if it is replaced.
fn kept(known: &Brief<'_>, rule: &Rule, detection: &Detection) -> Option<Outcome> {
    if known.event == Some(detection.event) {
        return None;
    }
    let begin = detection.at - rule.within;
    if known.removed && known.at.is_some_and(|at| at > begin) {
        return Some(Outcome::Removed);
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let is_dead = known.is_dead(u64::try_from(now).unwrap_or_default());
    let until = known.expires();
    let outlasts = until.is_none_or(|until| until >= detection.until);
    if !is_dead && (outlasts || !rule.prolong) {
        return Some(Outcome::Listed(until.filter(|_| known.by == AUTHOR)));
    }
    None
}
