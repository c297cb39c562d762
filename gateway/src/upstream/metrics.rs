use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::UpstreamError;

/// What is counted about the backend.
#[derive(Debug)]
pub(super) struct Metrics {
    outcomes: IntCounterVec,
    in_flight: IntGauge,
}

/// A callback that is on its way, counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let outcomes = IntCounterVec::new(
            Opts::new(
                "importguard_upstream_total",
                "Callbacks for the backend by outcome: passed, unavailable, timeout or overloaded.",
            ),
            &["outcome"],
        )?;
        let in_flight = IntGauge::new(
            "importguard_upstream_in_flight",
            "Callbacks on their way to the backend and back, at most IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT.",
        )?;
        registry.register(Box::new(outcomes.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        Ok(Self {
            outcomes,
            in_flight,
        })
    }

    pub(super) fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub(super) fn came_to<T>(&self, result: &Result<T, UpstreamError>) {
        let outcome = match result {
            Ok(_) => "passed",
            Err(UpstreamError::Unavailable(_)) => "unavailable",
            Err(UpstreamError::Timeout(_)) => "timeout",
            Err(UpstreamError::Overloaded) => "overloaded",
        };
        self.outcomes.with_label_values(&[outcome]).inc();
    }
}
