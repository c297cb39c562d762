use importguard_telemetry::metrics::{Label, register, with_series};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Metrics of deciders.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    known: Gauge,
    usable: Gauge,
    retries: Family<RetryLabels, Counter>,
    rejecting: Gauge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    reason: Label<Retry>,
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
        let deciders: Family<StateLabels, Gauge> = register(
            registry,
            "importguard_deciders",
            "Addresses of deciders by state: known, and of those usable",
            Family::default(),
        );
        let state = |state| deciders.get_or_create_owned(&StateLabels { state });
        let reasons = [Retry::Unavailable, Retry::Silent];
        let reasons = reasons.map(|reason| RetryLabels {
            reason: Label(reason),
        });
        Self {
            known: state("known"),
            usable: state("usable"),
            retries: register(
                registry,
                "importguard_decider_retries",
                "Calls that were repeated: at a second decider because the first was silent or unavailable, or at the same one where there is no other",
                with_series(Family::default(), reasons),
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
        self.known.set(i64::try_from(known).unwrap_or(i64::MAX));
        self.usable.set(i64::try_from(usable).unwrap_or(i64::MAX));
    }

    /// Sets the number of such deciders, and returns the previous one.
    pub(super) fn rejecting(&self, count: usize) -> usize {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        usize::try_from(self.rejecting.set(count)).unwrap_or_default()
    }

    pub(super) fn retried(&self, retry: Retry) {
        let reason = Label(retry);
        self.retries.get_or_create(&RetryLabels { reason }).inc();
    }
}
