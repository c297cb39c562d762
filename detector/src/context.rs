//! What every part of the detector needs.

use std::{fmt, sync::Arc, time::Duration};

use async_nats::jetstream;
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, rules::Rules, settings::Settings, status::Status};

/// The subjects of decisions.
pub const DECISIONS: &str = "importguard.v1.decision.*";

/// The delay before a retry.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The settings and rules of a detector, its connection, and where it reports.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) rules: Arc<Rules>,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) metrics: Metrics,
    pub(crate) status: Status,
    pub(crate) shutdown: CancellationToken,
}

impl Context {
    /// The name of the consumer that reads stored events.
    pub(crate) fn replay_consumer(&self) -> String {
        format!("{}-replay", self.settings.consumer)
    }
}

/// Why reading was interrupted.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) String);

impl Interrupted {
    pub(crate) fn new(cause: impl fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

impl<E: std::error::Error + 'static> From<E> for Interrupted {
    fn from(error: E) -> Self {
        Self(importguard_runtime::whole_text(&error))
    }
}
