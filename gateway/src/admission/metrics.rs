use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// From a wait that is hardly one to twice the default of IMPORTGUARD_QUEUE_TIMEOUT.
const WAIT_SECONDS: [f64; 8] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2];

/// What is counted about capacity.
#[derive(Debug)]
pub(super) struct Metrics {
    in_flight: IntGauge,
    queued: IntGauge,
    wait_seconds: Histogram,
    unrecorded: IntCounter,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            in_flight: IntGauge::new(
                "importguard_in_flight",
                "Callbacks that are being worked on, at most IMPORTGUARD_MAX_IN_FLIGHT.",
            )?,
            queued: IntGauge::new(
                "importguard_queued",
                "Callbacks that wait for that, at most IMPORTGUARD_MAX_QUEUED.",
            )?,
            wait_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "importguard_queue_seconds",
                    "Seconds that a callback waited to be worked on, in vain or not; those that did not have to wait are not counted.",
                )
                .buckets(WAIT_SECONDS.to_vec()),
            )?,
            unrecorded: IntCounter::new(
                "importguard_overload_unrecorded_total",
                "Callbacks answered in an overload without an event, beyond IMPORTGUARD_OVERLOAD_EVENTS a second.",
            )?,
        };
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.queued.clone()))?;
        registry.register(Box::new(metrics.wait_seconds.clone()))?;
        registry.register(Box::new(metrics.unrecorded.clone()))?;
        Ok(metrics)
    }

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
