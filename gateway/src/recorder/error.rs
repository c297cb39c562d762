use importguard_nats::NatsSettingsError;

use super::{
    refusal::AckError,
    stream::{LookUpError, Unavailable},
};
use crate::spool::{SpoolError, SpoolOpenError};

/// Why an event could not be recorded. NATS may still have stored it if its ack did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// NATS is unreachable or does not accept events, and the spool is full.
    #[error(
        "NATS does not accept events and the spool is full: it may grow to {max_bytes} bytes (IMPORTGUARD_SPOOL_MAX_BYTES)"
    )]
    SpoolFull {
        /// Maximum size of the spool, in bytes.
        max_bytes: u64,
    },
    /// NATS refuses the event while it accepts others, and no more events can be parked.
    #[error(
        "NATS refuses the event, and it cannot be parked: half of the {max_bytes} bytes of the spool are in use, and the rest is for events that \
         NATS does not refuse"
    )]
    ParkedFull {
        /// Maximum size of the spool, in bytes.
        max_bytes: u64,
    },
    /// The request's deadline passed before the spool had committed the event.
    #[error(
        "NATS does not accept events and the spool did not commit before the deadline of the request"
    )]
    TooLate,
    /// The request's deadline passed before recording began, or although NATS accepts events: the gateway, its disk or NATS is too busy.
    #[error(
        "the deadline of the request was over before NATS acknowledged the event or the spool committed it"
    )]
    NoTime,
    /// The spool's files or its disk cannot be used.
    #[error("NATS does not accept events and the spool is broken: {0}")]
    SpoolBroken(String),
    /// The recorder was closed, or its spool's thread has ended.
    #[error("the recorder is closed")]
    Closed,
}

/// Why the recorder cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spool can't be opened.
    #[error(transparent)]
    Spool(#[from] SpoolOpenError),
    /// NATS's settings are unusable.
    #[error(transparent)]
    NatsSettings(#[from] NatsSettingsError),
    /// The NATS client rejects its settings.
    #[error("can't set up the connection to NATS at {servers}: {source}")]
    Nats {
        /// `host:port` of each server, comma-separated.
        servers: String,
        /// The client's error.
        source: async_nats::ConnectError,
    },
    /// The task that opens the spool failed.
    #[error("opening the spool failed: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Why the drain cannot continue for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum DrainError {
    #[error("NATS at {0} has not responded yet")]
    NotConnected(String),
    #[error(transparent)]
    Stream(#[from] Unavailable),
    #[error(transparent)]
    Ack(#[from] AckError),
    #[error(transparent)]
    LookUp(#[from] LookUpError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl DrainError {
    /// Returns whether the error is a reason to spool new events too.
    pub(super) fn is_nats(&self) -> bool {
        match self {
            Self::NotConnected(_) | Self::Stream(_) | Self::Ack(_) => true,
            Self::LookUp(_) | Self::Spool(_) => false,
        }
    }
}
