//! Puts owners on lists.

use importguard_core::EventId;
use importguard_lists::{Added, Addition, Author, Brief, BucketError, Key, Reason, Writer};
use time::OffsetDateTime;

use crate::{engine::Detection, rules::Rule};

/// Who changes the lists.
pub(crate) const AUTHOR: &str = "detector";

/// What became of a detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The owner was put on the list, with this revision.
    Added(u64),
    /// The owner had been put on the list for this event before.
    Repeated,
    /// The owner is on the list anyway, until then or for ever.
    Listed(Option<OffsetDateTime>),
    /// Somebody removed the owner within the time that the rule looks at.
    Removed,
    /// Somebody changed the entry after the event that was one too many.
    Superseded,
    /// The entry would have ended already.
    Expired,
}

impl Outcome {
    /// For metrics and logs.
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

/// What the bucket says about an owner.
struct Known {
    event: Option<EventId>,
    removed: bool,
    at: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
    dead: bool,
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
        }
    }
}

/// Puts the owner on the rule's list, once for each detection, and publishes the event about it.
///
/// # Errors
/// If NATS does not answer or refuses. It can be repeated.
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
            return Ok(Outcome::Listed(known.until));
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
