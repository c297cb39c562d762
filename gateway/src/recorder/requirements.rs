//! Checks whether a stream that an operator created or changed supports importguard's guarantees.

use std::time::Duration;

use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType,
};
use parking_lot::Mutex;

use strum::IntoEnumIterator;

use super::{settings::STREAM, stream::SUBJECTS};
use crate::events::Subject;

/// Minimum duplicate window, which is also NATS's default. A shorter one leaves hardly any time between a lost ack and the second
/// attempt.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2 * 60);

/// Room for the lookups of several gateways, the detector's two consumers, those of teams, and one for each `tail`, `stats` and `why`.
const CONSUMERS: i32 = 20;

/// The remedy for a setting that NATS never changes.
const ANEW: &str = "`nats stream rm IMPORTGUARD` deletes it with its events, and a gateway that runs creates it again with the same limits \
    and replicas";

/// A setting with which the stream stores no events or does not acknowledge those that it has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error(
        "the stream {STREAM} is sealed and takes no events for ever: copy it if you need it, then {ANEW}"
    )]
    Sealed,
    #[error(
        "the stream {STREAM} is a mirror and takes no events of its own: mirror under another name, then {ANEW}"
    )]
    Mirror,
    #[error(
        "the stream {STREAM} has no_ack set, so NATS never says that it has an event: `nats stream edit {STREAM} --ack`"
    )]
    NoAck,
    #[error(
        "the stream {STREAM} has `persist_mode: async`, so NATS acknowledges events before it has written them, and loses them if it is killed: {ANEW}"
    )]
    PersistedLater,
    #[error("the stream {STREAM} is a counter (allow_msg_counter) and takes no events: {ANEW}")]
    Counter,
}

/// Returns why no event can be recorded in this stream, or `None` if events can.
pub(super) fn unfit(config: &Config) -> Option<Unfit> {
    [
        (config.sealed, Unfit::Sealed),
        (config.mirror.is_some(), Unfit::Mirror),
        (config.no_ack, Unfit::NoAck),
        (
            config.persist_mode == Some(PersistenceMode::Async),
            Unfit::PersistedLater,
        ),
        (config.allow_message_counter, Unfit::Counter),
    ]
    .into_iter()
    .find_map(|(is, unfit)| is.then_some(unfit))
}

/// Returns whether a stream with these `patterns` has `subject`.
pub(super) fn takes(patterns: &[String], subject: &str) -> bool {
    patterns.iter().any(|pattern| overlaps(pattern, subject))
}

/// Returns whether a subject can match both patterns.
fn overlaps(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(token), Some(same)) if token == same => {}
            _ => return false,
        }
    }
}

/// Returns the settings that weaken the guarantees although the stream accepts events, each with its remedy. NATS accepts each command
/// whatever the stream's other settings are.
pub(super) fn deviations(config: &Config) -> Vec<String> {
    let edit = |flags: &str| format!("`nats stream edit {STREAM} {flags}`");
    let mut all = Vec::new();
    let mut add = |what: &str, remedy: &str| all.push(format!("{what} (remedy: {remedy})"));
    let missing: Vec<_> = Subject::iter()
        .map(Subject::into_str)
        .filter(|subject| !takes(&config.subjects, subject))
        .collect();
    if !missing.is_empty() {
        // The flag replaces all subjects, and NATS refuses those that overlap.
        let others = config.subjects.iter().map(String::as_str);
        let others = others.filter(|pattern| !overlaps(pattern, SUBJECTS));
        let subjects: Vec<_> = std::iter::once(SUBJECTS).chain(others).collect();
        add(
            &format!(
                "it lacks the subjects {}: their events stay in the spool",
                missing.join(", ")
            ),
            &edit(&format!("--subjects '{}'", subjects.join(","))),
        );
    }
    if config.subject_transform.is_some() {
        add(
            "it stores events under other subjects: subscribers, `stats`, `why` and the detector do not find them",
            &edit("--no-transform"),
        );
    }
    if config.retention != RetentionPolicy::Limits {
        add(
            "its retention is not `limits`: events that nobody waits for, or that one reader has taken, are gone",
            ANEW,
        );
    }
    if config.duplicate_window < DUPLICATE_WINDOW {
        // NATS refuses a window that is longer than the maximum age.
        let flags = match config.max_age {
            age if age.is_zero() || age >= 5 * DUPLICATE_WINDOW => "--dupe-window 10m",
            age if age >= DUPLICATE_WINDOW => "--dupe-window 2m",
            _ => "--max-age 2m --dupe-window 2m",
        };
        add(
            &format!(
                "its duplicate window is {}, less than {}: events may be stored twice after an outage",
                humantime::format_duration(config.duplicate_window),
                humantime::format_duration(DUPLICATE_WINDOW)
            ),
            &edit(flags),
        );
    }
    // Of these two, NATS accepts neither without a limit on the messages per subject, nor without the policy `new`.
    let discard_old = match config.discard_new_per_subject {
        true => "--discard old --no-discard-per-subject",
        false => "--discard old",
    };
    if config.discard != DiscardPolicy::Old && has_a_limit(config) {
        add(
            "its discard policy is `new`: when it is full it refuses events, and spools fill up",
            &edit(discard_old),
        );
    }
    if config.max_messages_per_subject > 0 {
        let flags = match config.discard_new_per_subject {
            true => format!("{discard_old} --max-msgs-per-subject=-1"),
            false => "--max-msgs-per-subject=-1".to_owned(),
        };
        add(
            &format!(
                "it keeps only {} events per subject",
                config.max_messages_per_subject
            ),
            &edit(&flags),
        );
    }
    if config.storage == StorageType::Memory {
        add(
            "its storage is memory: a restart of nats-server loses all events",
            ANEW,
        );
    }
    if (1..CONSUMERS).contains(&config.max_consumers) {
        add(
            &format!(
                "it permits only {} consumers: beyond these, gateways cannot look up what is stored, so that events may be stored twice, and \
                 nobody can read",
                config.max_consumers
            ),
            &format!(
                "{}; where NATS refuses that, {ANEW}",
                edit("--max-consumers 1000")
            ),
        );
    }
    let inactive = config.consumer_limits.as_ref();
    let inactive = inactive.map_or(Duration::ZERO, |limits| limits.inactive_threshold);
    if !inactive.is_zero() {
        add(
            &format!(
                "it deletes consumers, durable ones too, that nobody reads from for {}: subscribers lose their position, and `tail`, `stats` and \
                 `why` may be refused",
                humantime::format_duration(inactive)
            ),
            &format!("{}, and remove `consumer_limits`", edit("--interactive")),
        );
    }
    if config.subject_delete_marker_ttl.is_some() {
        add(
            "it stores markers that are no events when the last event of a subject expires",
            &edit("--subject-del-markers-ttl=0"),
        );
    }
    all
}

/// Logs a warning if a stream in a cluster is on one of its servers only.
pub(super) fn warn_of_one_replica(info: &Info) {
    let name = info.cluster.as_ref().and_then(|it| it.name.as_deref());
    if let (Some(cluster), 1) = (name, info.config.num_replicas) {
        tracing::warn!(
            "the stream {STREAM} has one replica in the cluster {cluster}: while its server is away events stay in spools, and if its disk is lost, so are all events: \
             `nats stream edit {STREAM} --replicas 3`"
        );
    }
}

fn has_a_limit(config: &Config) -> bool {
    config.max_bytes > 0 || config.max_messages > 0 || config.discard_new_per_subject
}

/// The deviations of the stream as last seen.
#[derive(Debug, Default)]
pub(super) struct Deviations(Mutex<Vec<String>>);

impl Deviations {
    /// Stores the deviations and logs the new ones.
    pub(super) fn set(&self, found: Vec<String>) {
        let mut known = self.0.lock();
        for deviation in found.iter().filter(|deviation| !known.contains(deviation)) {
            tracing::warn!("the stream {STREAM} weakens what is promised: {deviation}");
        }
        *known = found;
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests;
