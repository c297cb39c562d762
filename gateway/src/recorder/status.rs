use std::sync::Mutex;

use serde::Serialize;

use super::state::State;
use crate::spool::{SpoolStatus, lock};

/// The recorder's status, for `/readyz` and the start banner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecorderStatus {
    /// Where events go.
    pub state: State,
    /// `host:port` of the NATS servers in the settings, comma-separated.
    pub nats: String,
    /// Events in the spool, not yet in NATS.
    pub spooled_events: usize,
    /// Of these, what NATS refuses while it takes other events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parked: Vec<ParkedStatus>,
    /// Settings of the stream that weaken what is promised, each with its remedy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stream_deviations: Vec<String>,
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

/// Events that NATS refuses for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParkedStatus {
    /// The reason, as in metrics.
    pub reason: &'static str,
    /// How many they are.
    pub events: usize,
    /// What was refused last, and what to do; absent until NATS has refused one in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A number of events, in words.
pub(super) fn events(count: usize) -> String {
    match count {
        1 => "1 event".to_owned(),
        count => format!("{count} events"),
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
