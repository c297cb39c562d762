use std::time::Duration;

use importguard_telemetry::families;
use prometheus::{Histogram, IntCounter, IntGauge};

/// From a wait that is hardly one to twice the default of IMPORTGUARD_QUEUE_TIMEOUT.
const WAIT_SECONDS: [f64; 8] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2];

families! {
    /// What is counted about capacity.
    pub(super) struct Metrics {
        /// Callbacks that are being worked on, at most IMPORTGUARD_MAX_IN_FLIGHT.
        in_flight: IntGauge = "importguard_in_flight";
        /// Callbacks that wait for that, at most IMPORTGUARD_MAX_QUEUED.
        queued: IntGauge = "importguard_queued";
        /// Seconds that a callback waited to be worked on, in vain or not; those that did not have to wait are not counted.
        wait_seconds: Histogram = "importguard_queue_seconds", in WAIT_SECONDS;
        /// Callbacks answered in an overload without an event: beyond IMPORTGUARD_OVERLOAD_EVENTS a second, or with a body that was large or late.
        unrecorded: IntCounter = "importguard_overload_unrecorded_total";
    }
}

impl Metrics {
    pub(super) fn in_flight(&self) -> Occupied {
        Occupied::count(&self.in_flight)
    }

    pub(super) fn queued(&self) -> Occupied {
        Occupied::count(&self.queued)
    }

    pub(super) fn waited(&self, wait: Duration) {
        self.wait_seconds.observe(wait.as_secs_f64());
    }

    pub(super) fn unrecorded(&self) {
        self.unrecorded.inc();
    }
}

/// Counted in a gauge for as long as it lives.
#[derive(Debug)]
pub(super) struct Occupied(IntGauge);

impl Occupied {
    fn count(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.dec();
    }
}
