//! What NATS does not take at present: told once, and not tried with every event.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_nats::{Event, ServerError};

use super::refusal::Refusal;
use crate::spool::{ParkReason, lock};

/// Subjects that NATS refuses, and the last refusal of each kind.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    subjects: Mutex<BTreeMap<String, Refusal>>,
    /// How many they are, for those who ask at every event.
    count: AtomicUsize,
    details: Mutex<BTreeMap<ParkReason, String>>,
}

impl Blocked {
    /// Why events on `subject` are parked without being published first; nothing where they are not.
    pub(super) fn reason(&self, subject: &str) -> Option<ParkReason> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let subjects = lock(&self.subjects);
        subjects.get(subject).map(|refusal| refusal.reason)
    }

    /// An event on `subject` was refused. Logged if that is news.
    pub(super) fn refused(&self, subject: &str, refusal: &Refusal) {
        let Refusal { reason, detail } = refusal;
        let told = lock(&self.details).insert(*reason, detail.clone());
        let is_known = if reason.is_about_the_subject() {
            let mut subjects = lock(&self.subjects);
            let before = subjects.insert(subject.to_owned(), refusal.clone());
            self.count.store(subjects.len(), Ordering::Release);
            before.as_ref() == Some(refusal)
        } else {
            told.as_ref() == Some(detail)
        };
        if !is_known {
            tracing::warn!(
                subject,
                reason = reason.as_str(),
                "NATS refuses events, which are parked in the spool and tried again: {detail}"
            );
        }
    }

    /// NATS takes events on all subjects but those that `is_refused` names.
    pub(super) fn keep(&self, is_refused: impl Fn(&str) -> bool) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut subjects = lock(&self.subjects);
        subjects.retain(|subject, _| {
            let is_refused = is_refused(subject);
            if !is_refused {
                tracing::info!(subject = &**subject, "NATS takes events on a subject again");
            }
            is_refused
        });
        self.count.store(subjects.len(), Ordering::Release);
    }

    /// The last refusal for this `reason` since the start.
    pub(super) fn detail(&self, reason: ParkReason) -> Option<String> {
        lock(&self.details).get(&reason).cloned()
    }

    /// Nothing is parked any more for this `reason`.
    pub(super) fn forget(&self, reason: ParkReason) {
        lock(&self.details).remove(&reason);
    }
}

/// Counts the publications that the server has denied by subject: it sends no ack for them, but an error apart.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<HashMap<String, u64>>);

impl Denials {
    /// Counts the denial that `event` tells of, if it does.
    pub(super) fn note(&self, event: &Event) {
        if let Some(subject) = denied_subject(event) {
            *lock(&self.0).entry(subject.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn of(&self, subject: &str) -> u64 {
        lock(&self.0).get(subject).copied().unwrap_or(0)
    }
}

/// The subject that the server does not let this client publish to.
pub(super) fn denied_subject(event: &Event) -> Option<&str> {
    let Event::ServerError(ServerError::Other(text)) = event else {
        return None;
    };
    text.strip_prefix("Permissions Violation for Publish to \"")?
        .strip_suffix('"')
}
