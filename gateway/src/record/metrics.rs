//! `importguard_recorder_…`: how recording does.

use std::{sync::Arc, time::Duration};

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    spool::Depth,
    state::{Machine, State},
};

/// From the ack of an idle local server to the longest a callback may wait for one.
const ACK_SECONDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// What is counted as it happens. What can be read off the recorder at any time is in [`Gauges`].
#[derive(Debug)]
pub(super) struct Metrics {
    /// Events acknowledged by NATS before their callback was answered.
    streamed: IntCounter,
    /// Events committed to the spool before their callback was answered.
    spooled: IntCounter,
    /// Events acknowledged by NATS out of the spool.
    drained: IntCounter,
    /// Events that neither NATS nor the spool took.
    unrecordable: IntCounter,
    ack_seconds: Histogram,
}

impl Metrics {
    /// Registers everything; an error if that was done before.
    pub(super) fn register(
        registry: &Registry,
        machine: Arc<Machine>,
        depth: Arc<Depth>,
    ) -> prometheus::Result<Self> {
        let events = IntCounterVec::new(
            Opts::new(
                "importguard_recorder_events_total",
                "Events by path: streamed (acknowledged by NATS before the answer), spooled (committed to disk before the answer), \
                 drained (out of the spool to NATS), unrecordable (taken by neither)",
            ),
            &["path"],
        )?;
        let ack_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "importguard_recorder_ack_seconds",
                "From publishing a callback's event to the ack of NATS",
            )
            .buckets(ACK_SECONDS.to_vec()),
        )?;
        registry.register(Box::new(events.clone()))?;
        registry.register(Box::new(ack_seconds.clone()))?;
        registry.register(Box::new(Gauges::new(machine, depth)?))?;
        Ok(Self {
            streamed: events.with_label_values(&["streamed"]),
            spooled: events.with_label_values(&["spooled"]),
            drained: events.with_label_values(&["drained"]),
            unrecordable: events.with_label_values(&["unrecordable"]),
            ack_seconds,
        })
    }

    pub(super) fn streamed(&self, ack: Duration) {
        self.streamed.inc();
        self.ack_seconds.observe(ack.as_secs_f64());
    }

    pub(super) fn spooled(&self) {
        self.spooled.inc();
    }

    pub(super) fn drained(&self, events: usize) {
        self.drained.inc_by(events as u64);
    }

    pub(super) fn unrecordable(&self) {
        self.unrecordable.inc();
    }
}

/// Read off the recorder whenever somebody asks.
struct Gauges {
    machine: Arc<Machine>,
    depth: Arc<Depth>,
    state: IntGaugeVec,
    spool_events: IntGauge,
    spool_bytes: IntGauge,
    oldest_seconds: Gauge,
}

impl Gauges {
    fn new(machine: Arc<Machine>, depth: Arc<Depth>) -> prometheus::Result<Self> {
        Ok(Self {
            machine,
            depth,
            state: IntGaugeVec::new(
                Opts::new(
                    "importguard_recorder_state",
                    "1 for the state the recorder is in: streaming, spooling (NATS can't be relied on) or draining (NATS is back)",
                ),
                &["state"],
            )?,
            spool_events: IntGauge::new(
                "importguard_recorder_spool_events",
                "Events in the spool, not yet in NATS",
            )?,
            spool_bytes: IntGauge::new(
                "importguard_recorder_spool_bytes",
                "Payload bytes of the events in the spool",
            )?,
            oldest_seconds: Gauge::new(
                "importguard_recorder_oldest_unpublished_seconds",
                "Age of the oldest event in the spool; 0 when it is empty",
            )?,
        })
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        let mut descs = self.state.desc();
        descs.extend(self.spool_events.desc());
        descs.extend(self.spool_bytes.desc());
        descs.extend(self.oldest_seconds.desc());
        descs
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.machine.see().state();
        for state in State::ALL {
            self.state
                .with_label_values(&[state.as_str()])
                .set(i64::from(state == now));
        }
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.spool_events.set(gauge(self.depth.events()));
        self.spool_bytes.set(gauge(self.depth.bytes()));
        self.oldest_seconds
            .set(self.depth.oldest_age().unwrap_or_default().as_secs_f64());
        let mut families = self.state.collect();
        families.extend(self.spool_events.collect());
        families.extend(self.spool_bytes.collect());
        families.extend(self.oldest_seconds.collect());
        families
    }
}
