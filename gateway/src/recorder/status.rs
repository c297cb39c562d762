use std::fmt;

use async_nats::Event;
use importguard_nats::ClosingError;
use parking_lot::Mutex;
use serde::Serialize;
use strum::IntoEnumIterator;

use super::{Inner, Recorder, refusal::AckError, state::State};
use crate::spool::{ParkReason, SpoolStatus};

/// The recorder's status, for `/readyz` and the start banner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecorderStatus {
    /// Where events go.
    pub state: State,
    /// `host:port` of the NATS servers in the settings, comma-separated.
    pub nats: String,
    /// Number of events in the spool, which NATS has not acknowledged yet. Includes parked ones.
    pub spooled_events: usize,
    /// The events among these that NATS refuses while it accepts others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parked: Vec<ParkedStatus>,
    /// Settings of the stream that weaken the guarantees, each with its remedy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stream_deviations: Vec<String>,
    /// Bytes of the spool's file that are in use. An empty spool uses some too.
    pub spool_bytes: u64,
    /// Maximum number of bytes that may be in use.
    pub spool_max_bytes: u64,
    /// Status of the spool.
    pub spool: SpoolStatus,
    /// The last error of the connection or the drain; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Number and details of the events that NATS refuses for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParkedStatus {
    /// Name of the reason, as in metrics.
    pub reason: &'static str,
    /// Number of events.
    pub events: usize,
    /// What is wrong and how to fix it, from the last refusal for this reason; absent if there was none in this process since no event was
    /// parked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Numbers of events that were drained: NATS has stored them, and they are no longer in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Those that were published from the spool.
    pub published: usize,
    /// Those that NATS had already, from an attempt whose ack was not received or from another copy of the spool.
    pub stored_before: usize,
}

impl Drained {
    /// Returns the number of all of them.
    pub const fn total(self) -> usize {
        self.published + self.stored_before
    }

    pub(super) const fn add(&mut self, other: Self) {
        self.published += other.published;
        self.stored_before += other.stored_before;
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&events(self.published))?;
        match self.stored_before {
            0 => Ok(()),
            more => write!(f, " (NATS already had {more} more)"),
        }
    }
}

impl Recorder {
    /// Returns the recorder's current status.
    pub fn status(&self) -> RecorderStatus {
        let recorder = &*self.0;
        let depth = recorder.spool.depth();
        RecorderStatus {
            state: recorder.machine.observe().state(),
            nats: recorder.publisher.servers().to_owned(),
            spooled_events: depth.events(),
            parked: parked(recorder),
            stream_deviations: recorder.deviations.texts(),
            spool_bytes: depth.used_bytes(),
            spool_max_bytes: depth.max_bytes(),
            spool: recorder.spool.health().status(),
            last_error: recorder.last_error.last(),
        }
    }
}

fn parked(recorder: &Inner) -> Vec<ParkedStatus> {
    let counts = recorder.spool.depth().parked();
    let parked = ParkReason::iter().filter_map(|reason| {
        let events = counts.of(reason);
        (events > 0).then(|| ParkedStatus {
            reason: reason.into_str(),
            events,
            detail: recorder.blocked.detail(reason),
        })
    });
    parked.collect()
}

/// Formats a number of events.
pub(super) fn events(count: usize) -> String {
    match count {
        1 => "1 event".to_owned(),
        count => format!("{count} events"),
    }
}

/// The last error of the connection or the drain.
#[derive(Debug, Default)]
pub(super) struct LastError {
    last: Mutex<Option<String>>,
    closing: ClosingError,
}

impl LastError {
    /// Notes an event of the client, before its error.
    pub(super) fn note_event(&self, event: &Event) {
        self.closing.note(event);
    }

    /// Stores `error`, unless it is the loss of a connection whose cause the server has reported. Returns whether it differs from the last
    /// error and should be logged.
    pub(super) fn note(&self, error: &str) -> bool {
        if self.closing.is_known() && error == AckError::Disconnected.to_string() {
            return false;
        }
        let mut last = self.last.lock();
        let changed = last.as_deref() != Some(error);
        if changed {
            *last = Some(error.to_owned());
        }
        changed
    }

    pub(super) fn clear(&self) {
        *self.last.lock() = None;
    }

    pub(super) fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }
}
