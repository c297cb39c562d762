//! `importguard_recorder_…`: how recording does.

use std::{sync::Arc, time::Duration};

use importguard_telemetry::{
    families,
    metrics::{Each, Label},
};
use prometheus::{
    Gauge, Histogram, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::state::{Machine, State};
use crate::spool::Depth;

/// From the ack of an idle local server to the longest a callback may wait for one.
const ACK_SECONDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

families! {
    /// What is counted as it happens. What can be read off the recorder at any time is in [`Gauges`].
    pub(super) struct Metrics {
        /// Events by path: streamed (acknowledged by NATS before the answer), spooled (committed to disk before the answer),
        /// drained (out of the spool to NATS), unrecordable (taken by neither).
        events: Each<IntCounterVec, Path> = "importguard_recorder_events_total", ["path"];
        /// Seconds from publishing a callback's event to the ack of NATS.
        ack_seconds: Histogram = "importguard_recorder_ack_seconds", in ACK_SECONDS;
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug)]
enum Path {
    Streamed,
    Spooled,
    Drained,
    Unrecordable,
}

impl Label for Path {
    const ALL: &'static [Self] = &[
        Self::Streamed,
        Self::Spooled,
        Self::Drained,
        Self::Unrecordable,
    ];

    fn index(self) -> usize {
        self as usize
    }

    fn text(self) -> &'static str {
        match self {
            Self::Streamed => "streamed",
            Self::Spooled => "spooled",
            Self::Drained => "drained",
            Self::Unrecordable => "unrecordable",
        }
    }
}

impl Metrics {
    /// Registers everything, what is read off `machine` and `depth` included; an error if that was done before.
    pub(super) fn start(
        registry: &Registry,
        machine: Arc<Machine>,
        depth: Arc<Depth>,
    ) -> prometheus::Result<Self> {
        registry.register(Box::new(OnDemand {
            machine,
            depth,
            gauges: Gauges::new()?,
        }))?;
        Self::register(registry)
    }

    pub(super) fn streamed(&self, ack: Duration) {
        self.events.of(Path::Streamed).inc();
        self.ack_seconds.observe(ack.as_secs_f64());
    }

    pub(super) fn spooled(&self) {
        self.events.of(Path::Spooled).inc();
    }

    pub(super) fn drained(&self, events: usize) {
        self.events.of(Path::Drained).inc_by(events as u64);
    }

    pub(super) fn unrecordable(&self) {
        self.events.of(Path::Unrecordable).inc();
    }
}

families! {
    struct Gauges {
        /// 1 for the state the recorder is in: streaming, spooling (NATS can't be relied on) or draining (NATS is back).
        state: IntGaugeVec = "importguard_recorder_state", ["state"];
        /// Events in the spool, not yet in NATS.
        spool_events: IntGauge = "importguard_recorder_spool_events";
        /// Bytes of the spool's file that are in use; 16 KiB without an event.
        spool_bytes: IntGauge = "importguard_recorder_spool_bytes";
        /// Bytes of the spool's file that may be in use: IMPORTGUARD_SPOOL_MAX_BYTES, or its size at the start if that was more.
        spool_max_bytes: IntGauge = "importguard_recorder_spool_max_bytes";
        /// Seconds since the oldest event in the spool was decided; 0 when it is empty.
        oldest_seconds: Gauge = "importguard_recorder_oldest_unpublished_seconds";
    }
}

/// Read off the recorder whenever somebody asks.
struct OnDemand {
    machine: Arc<Machine>,
    depth: Arc<Depth>,
    gauges: Gauges,
}

impl Collector for OnDemand {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Self {
            machine,
            depth,
            gauges,
        } = self;
        let now = machine.see().state();
        for state in State::ALL {
            let is = gauges.state.with_label_values(&[state.as_str()]);
            is.set(i64::from(state == now));
        }
        gauges.spool_events.set(gauge(depth.events()));
        gauges.spool_bytes.set(gauge(depth.used_bytes()));
        gauges.spool_max_bytes.set(gauge(depth.max_bytes()));
        let oldest = depth.oldest_age().unwrap_or_default();
        gauges.oldest_seconds.set(oldest.as_secs_f64());
        gauges.collect()
    }
}

fn gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
