use importguard_telemetry::metrics::{ByLabel, register};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::UpstreamError;
use crate::metrics::Counted;

/// The outcome of a response that broke off after its head, which was also counted as passed.
const BROKEN: &str = "broken";

/// The metrics of forwarded callbacks.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    outcomes: ByLabel<&'static str, Counter>,
    in_flight: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            outcomes: ByLabel::register(
                registry,
                "importguard_upstream",
                "Callbacks passed to the backend, by outcome: passed, unavailable, timeout, overloaded or loop; broken are those passed whose body broke off",
                Counter::default,
                "outcome",
                [
                    "passed",
                    "unavailable",
                    "timeout",
                    "overloaded",
                    "loop",
                    BROKEN,
                ],
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
        self.outcomes.get(BROKEN).inc();
    }

    pub(super) fn record<T>(&self, result: &Result<T, UpstreamError>) {
        let outcome = match result {
            Ok(_) => "passed",
            Err(error) => error.name(),
        };
        self.outcomes.get(outcome).inc();
    }
}
