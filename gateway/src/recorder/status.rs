use std::{fmt, sync::Mutex};

use serde::Serialize;

use super::state::State;
use crate::spool::lock;

/// How recording stands, for readiness, the start banner and people.
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
                    "streaming to NATS at {nats}; {spooled} from the spool follow"
                )
            }
            State::Spooling => {
                let why = last_error.as_deref().unwrap_or("no word from NATS yet");
                write!(
                    f,
                    "{why}: {spooled} events wait on disk for NATS at {nats} and follow by themselves"
                )
            }
        }
    }
}

/// The last trouble with NATS.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<Option<String>>);

impl Troubles {
    /// True if it is another one than the last, and so worth a line in the log.
    pub(super) fn note(&self, trouble: &str) -> bool {
        let mut last = lock(&self.0);
        let news = last.as_deref() != Some(trouble);
        if news {
            *last = Some(trouble.to_owned());
        }
        news
    }

    pub(super) fn clear(&self) {
        *lock(&self.0) = None;
    }

    pub(super) fn last(&self) -> Option<String> {
        lock(&self.0).clone()
    }
}
