use std::{fmt, sync::Mutex};

use serde::Serialize;

use super::state::State;
use crate::spool::{SpoolStatus, lock};

/// The recorder's status, for readiness and the start banner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecorderStatus {
    /// Where events go.
    pub state: State,
    /// `host:port` of the NATS servers in the settings, comma-separated.
    pub nats: String,
    /// Events in the spool, not yet in NATS.
    pub spooled_events: usize,
    /// Bytes of the spool's file that are in use; some even where there is no event.
    pub spool_bytes: u64,
    /// Bytes of it that may be in use.
    pub spool_max_bytes: u64,
    /// How the spool is.
    pub spool: SpoolStatus,
    /// What went wrong last with NATS; absent while all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl fmt::Display for RecorderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            state,
            nats,
            spooled_events: spooled,
            last_error,
            ..
        } = self;
        match state {
            State::Streaming | State::Draining if *spooled == 0 => {
                write!(f, "streaming to NATS at {nats}")
            }
            State::Streaming | State::Draining => {
                write!(
                    f,
                    "streaming to NATS at {nats}; publishing {spooled} events from the spool"
                )
            }
            State::Spooling => {
                let why = last_error.as_deref().unwrap_or("not connected yet");
                write!(
                    f,
                    "{why}; buffering in the spool ({spooled} events) for NATS at {nats}, will publish automatically"
                )
            }
        }
    }
}

/// The last error from NATS.
#[derive(Debug, Default)]
pub(super) struct LastError(Mutex<Option<String>>);

impl LastError {
    /// Stores `error`. Returns whether it differs from the last one, and so should be logged.
    pub(super) fn note(&self, error: &str) -> bool {
        let mut last = lock(&self.0);
        let changed = last.as_deref() != Some(error);
        if changed {
            *last = Some(error.to_owned());
        }
        changed
    }

    pub(super) fn clear(&self) {
        *lock(&self.0) = None;
    }

    pub(super) fn last(&self) -> Option<String> {
        lock(&self.0).clone()
    }
}
