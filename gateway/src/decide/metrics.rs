use importguard_telemetry::metrics::{ByLabel, Label, register};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Metrics of deciders.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    deciders: ByLabel<&'static str, Gauge>,
    retries: ByLabel<Label<Retry>, Counter>,
    rejecting: Gauge,
}

/// Why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Retry {
    /// The decider could not be reached, or the connection broke.
    Unavailable,
    /// The decider did not respond within the retry time.
    Silent,
}

impl AsRef<str> for Retry {
    fn as_ref(&self) -> &str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Silent => "silent",
        }
    }
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            deciders: ByLabel::register(
                registry,
                "importguard_deciders",
                "Addresses of deciders by state: known, and of those usable",
                Gauge::default,
                "state",
                ["known", "usable"],
            ),
            retries: ByLabel::register(
                registry,
                "importguard_decider_retries",
                "Calls that were repeated: at a second decider because the first was silent or unavailable, or at the same one where there is no other",
                Counter::default,
                "reason",
                [Retry::Unavailable, Retry::Silent].map(Label),
            ),
            rejecting: register(
                registry,
                "importguard_decider_certificate_rejected",
                "Deciders that reject the gateway's new client certificate, or whose certificate its new CAs did not issue, and that are still called over the old connection",
                Gauge::default(),
            ),
        }
    }

    pub(super) fn deciders(&self, known: usize, usable: usize) {
        for (state, count) in [("known", known), ("usable", usable)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.deciders.get(state).set(count);
        }
    }

    /// Sets the number of such deciders, and returns the previous one.
    pub(super) fn rejecting(&self, count: usize) -> usize {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        usize::try_from(self.rejecting.set(count)).unwrap_or_default()
    }

    pub(super) fn retried(&self, retry: Retry) {
        self.retries.get(Label(retry)).inc();
    }
}
