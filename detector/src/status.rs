//! The detector's progress, for `/readyz` and `/metrics`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use importguard_lists::LoggedCauses;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

/// The detector's progress. Clones share the same state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    reading: bool,
    /// Why the detector is not reading; `None` if it is.
    cause: Option<String>,
    /// The causes that were logged since the detector last resumed reading.
    logged: LoggedCauses,
    pending: u64,
    /// Every event that was stored before this time was handled.
    handled: SystemTime,
    owners: Vec<(String, usize, u64)>,
}

/// The progress at one moment.
pub(crate) struct Now {
    pub(crate) reading: bool,
    pub(crate) pending: u64,
    pub(crate) lag: Duration,
    /// For each rule, its ID, the number of owners, and how many owners were forgotten.
    pub(crate) owners: Vec<(String, usize, u64)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            reading: false,
            cause: Some("connecting to NATS".to_owned()),
            logged: LoggedCauses::default(),
            pending: 0,
            handled: SystemTime::now(),
            owners: Vec::new(),
        }
    }
}

impl Status {
    /// Records that reading begins, with `pending` events to read.
    pub(crate) fn reading(&self, pending: u64) {
        let mut state = self.state();
        (state.reading, state.cause, state.pending) = (true, None, pending);
        state.logged.clear();
    }

    /// Records that reading is interrupted. Returns whether the cause must be logged.
    pub(crate) fn interrupted(&self, cause: &str) -> bool {
        let mut state = self.state();
        state.settle();
        state.reading = false;
        state.cause = Some(cause.to_owned());
        state.logged.add(cause)
    }

    /// Records that an interruption with this cause is over. `reading` tells whether the detector was reading before it.
    pub(crate) fn resumed(&self, cause: &str, reading: bool) {
        let mut state = self.state();
        // An interruption with another cause is not over.
        if state.cause.as_deref() == Some(cause) {
            (state.reading, state.cause) = (reading, None);
            state.logged.clear();
        }
    }

    /// Returns why the detector is not reading; `None` if it is.
    pub(crate) fn cause(&self) -> Option<String> {
        self.state().cause.clone()
    }

    /// Records that the event stored at `stored` is being handled, and that `pending` events follow it.
    pub(crate) fn handling(&self, stored: SystemTime, pending: u64) {
        let mut state = self.state();
        state.pending = pending + 1;
        state.handled = stored;
    }

    /// Records that the event was handled, and that `pending` events follow it.
    pub(crate) fn handled(&self, pending: u64) {
        self.state().pending = pending;
    }

    /// Sets, for each rule, its ID, the number of owners, and how many owners were forgotten.
    pub(crate) fn owners(&self, owners: Vec<(String, usize, u64)>) {
        self.state().owners = owners;
    }

    /// Whether the detector is reading.
    pub(crate) fn is_reading(&self) -> bool {
        self.state().reading
    }

    pub(crate) fn read(&self) -> Now {
        let mut state = self.state();
        state.settle();
        Now {
            reading: state.reading,
            pending: state.pending,
            lag: state.handled.elapsed().unwrap_or_default(),
            owners: state.owners.clone(),
        }
    }

    /// Describes the progress for `/readyz`.
    pub(crate) fn describe(&self) -> Value {
        let now = self.read();
        let mut described = json!({
            "reading": now.reading,
            "pending": now.pending,
            "lagSeconds": now.lag.as_secs(),
        });
        if let Some(cause) = &self.state().cause {
            described["error"] = cause.as_str().into();
        }
        described
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn settle(&mut self) {
        if self.reading && self.pending == 0 {
            self.handled = SystemTime::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_that_alternate_are_logged_once_until_it_reads_again() {
        let status = Status::default();
        let causes = ["NATS is unreachable", "NATS does not answer"];
        let logged = |status: &Status| causes.map(|cause| status.interrupted(cause));
        assert_eq!(logged(&status), [true, true]);
        assert_eq!(logged(&status), [false, false]);
        assert_eq!(status.cause().as_deref(), Some("NATS does not answer"));
        status.reading(0);
        assert_eq!(logged(&status), [true, true]);
        status.resumed("NATS is unreachable", true);
        assert_eq!(logged(&status), [false, false]);
        status.resumed("NATS does not answer", true);
        assert_eq!(logged(&status), [true, true]);
    }
}
