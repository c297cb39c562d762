//! Subjects that NATS currently refuses. A refusal is logged once, and later events on the subject are parked without being published.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicUsize, Ordering},
};

use async_nats::{Event, ServerError};
use parking_lot::Mutex;

use super::refusal::Refusal;
use crate::{events::Subject, spool::ParkReason};

/// Subjects that NATS refuses, and the last refusal of each kind.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    subjects: Mutex<BTreeMap<String, Refusal>>,
    /// Length of `subjects`, so that the check for every event needs no lock.
    count: AtomicUsize,
    details: Mutex<BTreeMap<ParkReason, String>>,
}

impl Blocked {
    /// Returns why events on `subject` are parked without being published first, or `None` if they are not.
    pub(super) fn reason(&self, subject: &str) -> Option<ParkReason> {
        if !self.any() {
            return None;
        }
        let subjects = self.subjects.lock();
        subjects.get(subject).map(|refusal| refusal.reason)
    }

    /// Returns whether any subject is blocked.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Returns the blocked subjects.
    pub(super) fn subjects(&self) -> BTreeSet<String> {
        self.subjects.lock().keys().cloned().collect()
    }

    /// Records that NATS refused an event on `subject`. Logs it if the refusal is new.
    pub(super) fn refused(&self, subject: &str, refusal: &Refusal) {
        let Refusal { reason, detail, .. } = refusal;
        let told = self.details.lock().insert(*reason, detail.clone());
        let is_known = if reason.is_about_the_subject() {
            let mut subjects = self.subjects.lock();
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

    /// Keeps only the blocked subjects for which `is_refused` returns `true`: NATS accepts events on the others again.
    pub(super) fn keep(&self, is_refused: impl Fn(&str) -> bool) {
        if !self.any() {
            return;
        }
        let mut subjects = self.subjects.lock();
        subjects.retain(|subject, _| {
            let is_refused = is_refused(subject);
            if !is_refused {
                tracing::info!(subject = &**subject, "NATS takes events on a subject again");
            }
            is_refused
        });
        self.count.store(subjects.len(), Ordering::Release);
    }

    /// Returns the detail of the last refusal for this `reason`, if there was one since the process started or [`forget`](Self::forget).
    pub(super) fn detail(&self, reason: ParkReason) -> Option<String> {
        self.details.lock().get(&reason).cloned()
    }

    /// Forgets the detail for this `reason`. Call it when no event is parked for it any more.
    pub(super) fn forget(&self, reason: ParkReason) {
        self.details.lock().remove(&reason);
    }
}

/// Number of publications that the server denied, by subject. A denied publication gets no ack; the server reports it in a separate
/// error.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<HashMap<String, u64>>);

impl Denials {
    /// Counts `event` if it reports a denied publication.
    pub(super) fn note(&self, event: &Event) {
        if let Some(subject) = denied_subject(event) {
            *self.0.lock().entry(subject.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn of(&self, subject: &str) -> u64 {
        self.0.lock().get(subject).copied().unwrap_or(0)
    }
}

/// Returns whether the server denies publishing to one of the subjects of events.
pub(super) fn is_about_an_event(event: &Event) -> bool {
    denied_subject(event).is_some_and(|denied| {
        Subject::ALL
            .iter()
            .any(|subject| subject.as_str() == denied)
    })
}

/// Returns the subject if `event` says that this client may not publish to it.
fn denied_subject(event: &Event) -> Option<&str> {
    let Event::ServerError(ServerError::Other(text)) = event else {
        return None;
    };
    text.strip_prefix("Permissions Violation for Publish to \"")?
        .strip_suffix('"')
}
