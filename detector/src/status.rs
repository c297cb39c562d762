//! How far the detector is, for `/readyz` and `/metrics`.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

/// Shared by its clones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    reading: bool,
    /// Why it does not read.
    cause: Option<String>,
    pending: u64,
    /// Every event that was stored until then was handled.
    handled: SystemTime,
    owners: Vec<(String, usize, u64)>,
}

/// What can be said now.
pub(crate) struct Now {
    pub(crate) reading: bool,
    pub(crate) pending: u64,
    pub(crate) lag: Duration,
    /// For each rule its ID, the number of owners, and how many were forgotten.
    pub(crate) owners: Vec<(String, usize, u64)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            reading: false,
            cause: Some("connecting to NATS".to_owned()),
            pending: 0,
            handled: SystemTime::now(),
            owners: Vec::new(),
        }
    }
}

impl Status {
    /// Reading begins, with so many events to read.
    pub(crate) fn reading(&self, pending: u64) {
        let mut state = self.state();
        (state.reading, state.cause, state.pending) = (true, None, pending);
    }

    /// Reading is interrupted. Returns whether that is news.
    pub(crate) fn interrupted(&self, cause: &str) -> bool {
        let mut state = self.state();
        state.settle();
        state.reading = false;
        let news = state.cause.as_deref() != Some(cause);
        state.cause = Some(cause.to_owned());
        news
    }

    /// What was interrupted for this cause goes on; it was reading if `reading`.
    pub(crate) fn resumed(&self, cause: &str, reading: bool) {
        let mut state = self.state();
        // Another cause has not ended.
        if state.cause.as_deref() == Some(cause) {
            (state.reading, state.cause) = (reading, None);
        }
    }

    /// Why it does not read, if it does not.
    pub(crate) fn cause(&self) -> Option<String> {
        self.state().cause.clone()
    }

    /// The event that was stored at `stored` is handled now; `pending` are behind it.
    pub(crate) fn handling(&self, stored: SystemTime, pending: u64) {
        let mut state = self.state();
        state.pending = pending + 1;
        state.handled = stored;
    }

    /// It was handled.
    pub(crate) fn handled(&self, pending: u64) {
        self.state().pending = pending;
    }

    /// For each rule its ID, the number of owners, and how many were forgotten.
    pub(crate) fn owners(&self, owners: Vec<(String, usize, u64)>) {
        self.state().owners = owners;
    }

    /// Whether it reads.
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

    /// For `/readyz`.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn settle(&mut self) {
        if self.reading && self.pending == 0 {
            self.handled = SystemTime::now();
        }
    }
}
