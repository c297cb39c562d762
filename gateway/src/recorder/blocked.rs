//! Subjects that NATS currently refuses. A refusal is logged once, and later events on the subject are parked without being published,
//! except one now and then, which shows whether NATS still refuses it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_nats::{Event, ServerError};
use parking_lot::Mutex;
use strum::IntoEnumIterator;
use tokio::time::Instant;

use super::refusal::Refusal;
use crate::{
    events,
    spool::{ParkReason, ParkedCounts},
};

/// How often a blocked subject is tried with an event. The callback of that event may have to wait for a refusal.
const TRY_INTERVAL: Duration = Duration::from_secs(10);

/// Subjects that NATS refuses, and the last refusal of each kind.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    subjects: Mutex<BTreeMap<String, Subject>>,
    /// Length of `subjects`, so that the check for every event needs no lock.
    count: AtomicUsize,
    details: Mutex<BTreeMap<ParkReason, String>>,
}

/// A blocked subject.
#[derive(Debug)]
struct Subject {
    refusal: Refusal,
    next_try: Instant,
}

impl Blocked {
    /// Returns why an event on `subject` is to be parked without being published first, or `None` if it is to be published: the subject is
    /// not blocked, or the event is the one that tries it.
    pub(super) fn reason_to_park(&self, subject: &str) -> Option<ParkReason> {
        if !self.any() {
            return None;
        }
        let mut subjects = self.subjects.lock();
        let Subject { refusal, next_try } = subjects.get_mut(subject)?;
        let now = Instant::now();
        if now < *next_try {
            return Some(refusal.reason);
        }
        *next_try = now + TRY_INTERVAL;
        None
    }

    /// Lets the next event on each subject try it.
    pub(super) fn try_all(&self) {
        for subject in self.subjects.lock().values_mut() {
            subject.next_try = Instant::now();
        }
    }

    /// Returns whether any subject is blocked.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Records that NATS refused an event on `subject`. Logs it if the refusal is new.
    pub(super) fn refused(&self, subject: &str, refusal: &Refusal) {
        let Refusal { reason, detail, .. } = refusal;
        let told = self.details.lock().insert(*reason, detail.clone());
        let is_known = if reason.is_about_the_subject() {
            let mut subjects = self.subjects.lock();
            let blocked = Subject {
                refusal: refusal.clone(),
                next_try: Instant::now() + TRY_INTERVAL,
            };
            let before = subjects.insert(subject.to_owned(), blocked);
            self.count.store(subjects.len(), Ordering::Release);
            before.is_some_and(|before| before.refusal == *refusal)
        } else {
            told.as_ref() == Some(detail)
        };
        if !is_known {
            tracing::warn!(
                subject,
                reason = reason.into_str(),
                "NATS refuses events, which are parked in the spool and tried again: {detail}"
            );
        }
    }

    /// Records that NATS acknowledged an event on `subject`.
    pub(super) fn accepted(&self, subject: &str) {
        if !self.any() {
            return;
        }
        let mut subjects = self.subjects.lock();
        if subjects.remove(subject).is_some() {
            self.count.store(subjects.len(), Ordering::Release);
            tracing::info!(subject, "NATS takes events on a subject again");
        }
    }

    /// Returns the detail of the last refusal for this `reason`, if there was one since the process started or
    /// [`forget_all_but`](Self::forget_all_but).
    pub(super) fn detail(&self, reason: ParkReason) -> Option<String> {
        self.details.lock().get(&reason).cloned()
    }

    /// Forgets the details for reasons for which no event is parked any more.
    pub(super) fn forget_all_but(&self, parked: ParkedCounts) {
        let mut details = self.details.lock();
        details.retain(|&reason, _| parked.of(reason) > 0);
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
    denied_subject(event)
        .is_some_and(|denied| events::Subject::iter().any(|subject| subject.into_str() == denied))
}

/// Returns the subject if `event` says that this client may not publish to it.
fn denied_subject(event: &Event) -> Option<&str> {
    let Event::ServerError(ServerError::Other(text)) = event else {
        return None;
    };
    text.strip_prefix("Permissions Violation for Publish to \"")?
        .strip_suffix('"')
}
