//! Adds owners to lists.

use importguard_core::EventId;
use importguard_lists::{Added, Addition, Author, Brief, BucketError, Key, Reason, Writer};
use time::OffsetDateTime;

use crate::{engine::Detection, rules::Rule};

/// The author of the detector's entries.
pub(crate) const AUTHOR: &str = "detector";

/// The result of acting on a detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The owner was added to the list, with this revision.
    Added(u64),
    /// The owner had already been added to the list for this event.
    Repeated,
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
    /// The outcome's name in metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Added(_) => "added",
            Self::Repeated => "repeated",
            Self::Listed(_) => "listed",
            Self::Removed => "removed",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
        }
    }
}

/// The value for an owner in the bucket.
struct Known {
    event: Option<EventId>,
    removed: bool,
    at: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
    dead: bool,
    is_detectors: bool,
}

impl Known {
    fn of(brief: &Brief<'_>) -> Self {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let until = brief.until.and_then(|until| i64::try_from(until).ok());
        Self {
            event: brief.event,
            removed: brief.removed,
            at: brief.at,
            until: until.and_then(|until| OffsetDateTime::from_unix_timestamp(until).ok()),
            dead: brief.is_dead(u64::try_from(now).unwrap_or_default()),
            is_detectors: brief.by == AUTHOR,
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
    let known = writer.bucket().look_up(&key, Known::of).await?;
    if let Some(known) = known.filter(|known| known.event != Some(detection.event)) {
        let begin = detection.at - rule.within;
        if known.removed && known.at.is_some_and(|at| at > begin) {
            return Ok(Outcome::Removed);
        }
        let outlasts = known.until.is_none_or(|until| until >= detection.until);
        if !known.dead && (outlasts || !rule.prolong) {
            return Ok(Outcome::Listed(known.until.filter(|_| known.is_detectors)));
        }
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
        Added::Before => Outcome::Repeated,
        Added::Superseded => Outcome::Superseded,
        Added::Expired => Outcome::Expired,
    })
}
