use importguard_telemetry::families;
use prometheus::{IntCounterVec, IntGauge};

use super::UpstreamError;

families! {
    /// What is counted about the backend.
    pub(super) struct Metrics {
        /// Callbacks for the backend by outcome: passed, unavailable, timeout or overloaded.
        outcomes: IntCounterVec = "importguard_upstream_total", ["outcome"];
        /// Callbacks on their way to the backend and back, at most IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT.
        in_flight: IntGauge = "importguard_upstream_in_flight";
    }
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
    pub(super) fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub(super) fn came_to<T>(&self, result: &Result<T, UpstreamError>) {
        let outcome = match result {
            Ok(_) => "passed",
            Err(error) => error.name(),
        };
        self.outcomes.with_label_values(&[outcome]).inc();
    }
}
