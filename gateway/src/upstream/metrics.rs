use importguard_telemetry::metrics::{register, with_series};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::UpstreamError;
use crate::metrics::Counted;

/// The outcome of a response that broke off after its head, which was also counted as passed.
const BROKEN: &str = "broken";

/// The metrics of forwarded callbacks.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    outcomes: Family<OutcomeLabels, Counter>,
    in_flight: Gauge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let outcomes = ["passed", "unavailable", "timeout", "overloaded", BROKEN];
        let outcomes = outcomes.map(|outcome| OutcomeLabels { outcome });
        Self {
            outcomes: register(
                registry,
                "importguard_upstream",
                "Callbacks passed to the backend, by outcome: passed, unavailable, timeout or overloaded; broken are those passed whose body broke off",
                with_series(Family::default(), outcomes),
            ),
            in_flight: register(
                registry,
                "importguard_upstream_in_flight",
                "Callbacks on their way to the backend and back, at most IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT",
                Gauge::default(),
            ),
        }
    }

    /// Counts a callback being forwarded until the return value is dropped.
    pub(super) fn in_flight(&self) -> Counted {
        Counted::new(&self.in_flight)
    }

    /// A response that was passed on was incomplete.
    pub(super) fn broke_off(&self) {
        let broken = OutcomeLabels { outcome: BROKEN };
        self.outcomes.get_or_create(&broken).inc();
    }

    pub(super) fn record<T>(&self, result: &Result<T, UpstreamError>) {
        let outcome = match result {
            Ok(_) => "passed",
            Err(error) => error.name(),
        };
        self.outcomes
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }
}
