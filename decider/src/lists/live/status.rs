//! How current the live lists are.

use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use importguard_lists::LoggedCauses;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::{LiveSettings, OnStale};
use crate::timestamp::rfc3339;

/// How current the live lists are. Clones share the same state.
#[derive(Clone, Debug)]
pub struct Status(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_age: Duration,
    on_stale: OnStale,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The names of the policy's live lists.
    needed: BTreeSet<String>,
    confirmed: Option<Confirmed>,
    /// Why the lists are not confirmed.
    cause: Option<String>,
    /// The causes that were logged since the lists were last current.
    logged: LoggedCauses,
    reading: Option<Reading>,
    /// Whether the bucket is missing.
    missing: bool,
    changes: u64,
    rereads: u64,
}

/// When the lists were last known to be complete.
#[derive(Clone, Copy, Debug)]
struct Confirmed {
    at: SystemTime,
    /// The same time on the monotonic clock; `None` if the time comes from a snapshot, or the lists may have been wrong since.
    now: Option<Instant>,
}

/// A list that lost entries.
pub(super) struct Loss {
    pub(super) list: String,
    /// The number of active entries that evaluations see.
    pub(super) before: usize,
    /// The number of active entries in the bucket.
    pub(super) now: usize,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { list, before, now } = self;
        write!(f, "{now} of the {before} entries in use of {list}")
    }
}

/// The progress of reading all lists.
#[derive(Clone, Copy, Debug)]
struct Reading {
    read: u64,
    of: u64,
}

impl Status {
    pub(super) fn new(settings: &LiveSettings) -> Self {
        Self(Arc::new(Shared {
            max_age: settings.lists_max_age,
            on_stale: settings.on_stale_lists,
            state: Mutex::default(),
        }))
    }

    /// Whether the lists have every change that NATS had acknowledged at some time within the last `IMPORTGUARD_LISTS_MAX_AGE`. `true` if
    /// the policy has no live lists.
    pub fn is_current(&self) -> bool {
        let state = self.state();
        state.needed.is_empty() || self.confirmed_recently(&state)
    }

    /// Whether the decider should receive requests: `false` only while the lists are not current and `IMPORTGUARD_ON_STALE_LISTS` is
    /// `not-ready`.
    pub fn is_ready(&self) -> bool {
        self.0.on_stale == OnStale::Continue || self.is_current()
    }

    /// Whether startup need not wait any longer: the lists are current, or the bucket is missing.
    pub(super) fn is_settled(&self) -> bool {
        self.is_current() || self.state().missing
    }

    /// Whether the entries were ever read, from NATS or from a snapshot, or there is no bucket.
    pub(super) fn is_known(&self) -> bool {
        let state = self.state();
        state.confirmed.is_some() || state.missing
    }

    /// Why the lists are not current.
    pub(super) fn cause(&self) -> String {
        self.state().cause().to_owned()
    }

    /// Sets whether the bucket is missing.
    pub(super) fn missing(&self, missing: bool) {
        self.state().missing = missing;
    }

    /// Returns the number of applied changes, and how often all lists were read again.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.changes, state.rereads)
    }

    /// When the lists were last confirmed, in Unix seconds; `None` if never.
    pub(super) fn confirmed_at(&self) -> Option<f64> {
        let confirmed = self.state().confirmed?;
        let since = confirmed.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(since.as_secs_f64())
    }

    pub(super) fn need(&self, lists: BTreeSet<String>) {
        self.state().needed = lists;
    }

    /// The names of the policy's live lists.
    pub(super) fn needed(&self) -> BTreeSet<String> {
        self.state().needed.clone()
    }

    /// Records that every change that the bucket had at `asked` is applied.
    pub(super) fn confirm(&self, asked: Instant) {
        let mut state = self.state();
        let newer = state.confirmed.and_then(|confirmed| confirmed.now) < Some(asked);
        if newer {
            let at = SystemTime::now() - asked.elapsed();
            state.confirmed = Some(Confirmed {
                at,
                now: Some(asked),
            });
        }
        state.logged.clear();
        if state.cause.take().is_some() {
            tracing::info!("live lists are current");
        }
        state.reading = None;
    }

    /// Records that the lists come from a snapshot that was confirmed at that time.
    pub(super) fn loaded(&self, at: Option<SystemTime>) {
        self.state().confirmed = at.map(|at| Confirmed { at, now: None });
    }

    /// When the lists were last confirmed, for a snapshot.
    pub(super) fn confirmed(&self) -> Option<SystemTime> {
        Some(self.state().confirmed?.at)
    }

    /// Records that the known lists may be wrong, so that all lists are about to be read again.
    pub(super) fn doubt(&self, cause: String) {
        let mut state = self.state();
        if let Some(confirmed) = &mut state.confirmed {
            confirmed.now = None;
        }
        state.rereads += 1;
        tracing::warn!("reading all live lists anew: {cause}");
        state.cause = Some(cause);
    }

    /// Records that the watch was interrupted. Logs each cause once until the lists are current.
    pub(super) fn interrupted(&self, cause: String) {
        let mut state = self.state();
        if state.logged.add(&cause) {
            tracing::warn!("live lists are not watched: {cause}; retrying");
        }
        state.cause = Some(cause);
    }

    /// Records that the bucket was read and lacks entries that evaluations see, which stay.
    pub(super) fn held_back(&self, losses: &[Loss], is_logged: bool) {
        let losses: Vec<_> = losses.iter().map(Loss::to_string).collect();
        let cause = format!(
            "held back, because the bucket has {}: restore it, or import the lists again; SIGHUP takes it as it is",
            losses.join(" and ")
        );
        if !is_logged {
            tracing::error!("live lists are {cause}");
        }
        let mut state = self.state();
        state.cause = Some(cause);
        state.reading = None;
    }

    pub(super) fn reading(&self, read: u64, of: u64) {
        self.state().reading = Some(Reading { read, of });
    }

    pub(super) fn applied(&self, changes: u64) {
        self.state().changes += changes;
    }

    /// Describes the status for `/readyz`, with the revision and the number of entries of the lists.
    pub fn describe(&self, revision: u64, entries: u64) -> Value {
        let current = self.is_current();
        let state = self.state();
        let mut described = json!({
            "current": current,
            "revision": revision,
            "entries": entries,
        });
        if let Some(confirmed) = state.confirmed {
            described["confirmed"] = rfc3339(confirmed.at).into();
            described["ageSeconds"] = confirmed.age().as_secs().into();
        }
        if !current {
            if let Some(Reading { read, of }) = state.reading {
                described["reading"] = json!({ "read": read, "of": of });
            }
            described["error"] = state.cause().into();
        }
        described
    }

    fn confirmed_recently(&self, state: &State) -> bool {
        let confirmed = state.confirmed.and_then(|confirmed| confirmed.now);
        confirmed.is_some_and(|at| at.elapsed() <= self.0.max_age)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

impl State {
    fn cause(&self) -> &str {
        match &self.cause {
            Some(cause) => cause,
            None if self.confirmed.is_none() => "not read yet",
            None => "NATS does not confirm that there are no changes",
        }
    }
}

impl Confirmed {
    fn age(self) -> Duration {
        match self.now {
            Some(at) => at.elapsed(),
            None => self.at.elapsed().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(on_stale_lists: OnStale) -> Status {
        let status = Status::new(&LiveSettings {
            lists_snapshot: None,
            lists_max_age: Duration::from_secs(60),
            on_stale_lists,
        });
        status.need(BTreeSet::from(["bad".to_owned()]));
        status
    }

    #[test]
    fn lists_are_current_for_a_while_after_a_confirmation() {
        let status = status(OnStale::NotReady);
        assert!(!status.is_current() && !status.is_ready());
        status.confirm(Instant::now());
        assert!(status.is_current() && status.is_ready());
        let long_ago = Instant::now().checked_sub(Duration::from_secs(61)).unwrap();
        status.confirm(long_ago);
        assert!(status.is_current(), "an older confirmation changes nothing");
        let late = self::status(OnStale::NotReady);
        late.confirm(long_ago);
        assert!(!late.is_current() && !late.is_ready());
    }

    #[test]
    fn lists_that_may_be_wrong_are_not_current() {
        let status = status(OnStale::Continue);
        status.confirm(Instant::now());
        status.doubt("the bucket was created anew".to_owned());
        assert!(!status.is_current() && status.is_ready());
        let described = status.describe(7, 3);
        assert_eq!(described["current"], false);
        assert_eq!(described["error"], "the bucket was created anew");
    }

    #[test]
    fn lists_that_are_held_back_are_no_longer_being_read() {
        let status = status(OnStale::Continue);
        status.doubt("the bucket was created anew".to_owned());
        status.reading(0, 3);
        assert_eq!(status.describe(7, 9)["reading"]["of"], 3);
        let loss = Loss {
            list: "bad".to_owned(),
            before: 9,
            now: 3,
        };
        status.held_back(&[loss], false);
        assert!(status.describe(7, 9)["reading"].is_null());
    }

    #[test]
    fn a_snapshot_says_how_old_it_is_and_is_not_current() {
        let status = status(OnStale::Continue);
        status.loaded(Some(SystemTime::now() - Duration::from_secs(90)));
        assert!(!status.is_current());
        let age = status.describe(7, 3)["ageSeconds"].as_u64().unwrap();
        assert!((90..100).contains(&age), "{age}");
    }

    #[test]
    fn without_live_lists_there_is_nothing_to_wait_for() {
        let status = status(OnStale::NotReady);
        status.need(BTreeSet::new());
        assert!(status.is_current() && status.is_ready());
    }
}
