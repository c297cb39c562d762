//! Metrics of the recorder, its spool and the stream.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::jetstream::stream::Info;
use importguard_telemetry::metrics::{ByLabel, DurationHistogram, gauge, observe, register};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        gauge::ConstGauge,
    },
    registry::Registry,
};

use strum::IntoEnumIterator;

use super::{
    requirements::Deviations,
    state::{Machine, State},
};
use crate::spool::{Depth, Health, ParkReason, SpoolState};

/// Buckets from the ack of an idle local server up to the longest time a callback may wait for one.
const ACK_SECONDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// Metrics that are updated as events occur. [`Gauges`] has those that can be read from the recorder at any time.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    events: ByLabel<&'static str, Counter>,
    ack_seconds: DurationHistogram,
}

/// The paths that an event can take.
const STREAMED: &str = "streamed";
const SPOOLED: &str = "spooled";
const DRAINED: &str = "drained";
const UNRECORDABLE: &str = "unrecordable";

impl Metrics {
    /// Registers all metrics, including `gauges`.
    pub(super) fn register(registry: &mut Registry, gauges: Gauges) -> Self {
        registry.register_collector(Box::new(gauges));
        Self {
            events: ByLabel::register(
                registry,
                "importguard_recorder_events",
                "Events by path: streamed (acknowledged by NATS before the response), spooled (written to disk before the response), drained (from disk to NATS), unrecordable (accepted by neither)",
                Counter::default,
                "path",
                [STREAMED, SPOOLED, DRAINED, UNRECORDABLE],
            ),
            ack_seconds: register(
                registry,
                "importguard_recorder_ack_seconds",
                "Duration from publishing an event to its acknowledgement by NATS",
                DurationHistogram::new(ACK_SECONDS.into_iter()),
            ),
        }
    }

    pub(super) fn streamed(&self, ack: Duration) {
        self.events.get(STREAMED).inc();
        observe(&self.ack_seconds, ack);
    }

    pub(super) fn spooled(&self) {
        self.events.get(SPOOLED).inc();
    }

    pub(super) fn drained(&self, events: usize) {
        self.events.get(DRAINED).inc_by(events as u64);
    }

    pub(super) fn unrecordable(&self) {
        self.events.get(UNRECORDABLE).inc();
    }
}

/// Metrics that are read from the recorder at each scrape.
#[derive(Debug)]
pub(super) struct Gauges {
    pub(super) machine: Arc<Machine>,
    pub(super) depth: Arc<Depth>,
    pub(super) health: Arc<Health>,
    pub(super) deviations: Arc<Deviations>,
    pub(super) stream_stats: Arc<StreamStats>,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut states = encoder.encode_descriptor(
            "importguard_recorder_state",
            "1 for the state of the recorder: streaming, spooling (NATS is not reliable) or draining (NATS is back).",
            None,
            MetricType::Gauge,
        )?;
        let now = self.machine.observe().state();
        for state in State::iter() {
            let is = ConstGauge::new(i64::from(state == now));
            is.encode(states.encode_family(&[("state", state.into_str())])?)?;
        }
        let mut parked = encoder.encode_descriptor(
            "importguard_spool_parked_events",
            "Events in the spool that NATS refuses while it takes others, by reason.",
            None,
            MetricType::Gauge,
        )?;
        let counts = self.depth.parked();
        for reason in ParkReason::iter() {
            let events = ConstGauge::new(i64::try_from(counts.of(reason)).unwrap_or(i64::MAX));
            events.encode(parked.encode_family(&[("reason", reason.into_str())])?)?;
        }
        let mut states = encoder.encode_descriptor(
            "importguard_recorder_spool_state",
            "1 for the state of the spool: healthy, degraded (events are recorded, but not everything works) or broken (events cannot be recorded in it).",
            None,
            MetricType::Gauge,
        )?;
        let now = self.health.state();
        for state in SpoolState::iter() {
            let is = ConstGauge::new(i64::from(state == now));
            is.encode(states.encode_family(&[("state", state.into_str())])?)?;
        }
        let mut faults = encoder.encode_descriptor(
            "importguard_recorder_spool_faults",
            "Times that the spool was found to be degraded or broken, repaired at once or not, by kind.",
            None,
            MetricType::Counter,
        )?;
        for (kind, count) in self.health.faults() {
            ConstCounter::new(count).encode(faults.encode_family(&[("kind", kind)])?)?;
        }
        self.stream_stats.encode(&mut encoder)?;
        let to = &mut encoder;
        gauge(
            to,
            "importguard_stream_deviations",
            "Settings of the stream IMPORTGUARD that weaken what is promised.",
            self.deviations.count(),
        )?;
        gauge(
            to,
            "importguard_recorder_spool_events",
            "Events in the spool that are not in NATS yet, parked ones included.",
            self.depth.events(),
        )?;
        gauge(
            to,
            "importguard_recorder_spool_bytes",
            "Bytes of the spool file that are in use; 16 KiB without an event.",
            self.depth.used_bytes(),
        )?;
        gauge(
            to,
            "importguard_recorder_spool_max_bytes",
            "Bytes of the spool file that may be in use: IMPORTGUARD_SPOOL_MAX_BYTES, or its size at the start if that was more.",
            self.depth.max_bytes(),
        )?;
        gauge(
            to,
            "importguard_recorder_spool_set_aside_files",
            "Corrupt databases that were set aside and are still in the spool's directory.",
            self.health.set_aside(),
        )?;
        gauge(
            to,
            "importguard_recorder_oldest_unpublished_seconds",
            "How long the oldest event in the spool has been waiting, in seconds; 0 if none waits. Parked events do not count.",
            self.depth.oldest_age().unwrap_or_default().as_secs_f64(),
        )
    }
}

/// Size of the stream and age of its oldest event, as last seen; `None` before the first look.
#[derive(Debug, Default)]
pub(super) struct StreamStats(Mutex<Option<Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    bytes: u64,
    /// `None` if there is no limit.
    max_bytes: Option<u64>,
    /// The share of its nearest limit that the stream has reached; `None` if it has none.
    fill: Option<f64>,
    /// When the oldest event was stored, by NATS's clock; `None` if the stream is empty.
    oldest: Option<SystemTime>,
}

impl StreamStats {
    pub(super) fn set(&self, info: &Info) {
        let max_bytes = u64::try_from(info.config.max_bytes).ok();
        let max_bytes = max_bytes.filter(|&bytes| bytes > 0);
        let max_messages = u64::try_from(info.config.max_messages).ok();
        let has_events = info.state.messages > 0;
        let fills = [
            (info.state.bytes, max_bytes),
            (info.state.messages, max_messages.filter(|&limit| limit > 0)),
        ];
        let fills = fills
            .into_iter()
            .filter_map(|(size, limit)| Some(size as f64 / limit? as f64));
        *self.0.lock() = Some(Seen {
            bytes: info.state.bytes,
            max_bytes,
            fill: fills.reduce(f64::max),
            oldest: has_events.then(|| info.state.first_timestamp.into()),
        });
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let seen = *self.0.lock();
        let oldest = seen.and_then(|seen| seen.oldest);
        // The clocks of NATS and this machine may differ slightly.
        let age = oldest.map(|oldest| oldest.elapsed().unwrap_or_default().as_secs());
        let max_bytes = seen.and_then(|seen| seen.max_bytes);
        let fill = encoder.encode_descriptor(
            "importguard_stream_fill_ratio",
            "Share of its nearest limit, of bytes or of messages, that the stream IMPORTGUARD has reached, if it has one; from 1 on it discards its oldest events.",
            None,
            MetricType::Gauge,
        )?;
        if let Some(value) = seen.and_then(|seen| seen.fill) {
            ConstGauge::new(value).encode(fill)?;
        }
        for (name, help, value) in [
            (
                "importguard_stream_bytes",
                "Size of the stream IMPORTGUARD, as NATS counts it.",
                seen.map(|seen| seen.bytes),
            ),
            (
                "importguard_stream_max_bytes",
                "Size from which on the stream IMPORTGUARD discards its oldest events, if it has a limit.",
                max_bytes,
            ),
            (
                "importguard_stream_oldest_event_age_seconds",
                "How long ago the oldest event in the stream IMPORTGUARD was stored, in seconds, if there is one.",
                age,
            ),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            if let Some(value) = value {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(gauge)?;
            }
        }
        Ok(())
    }
}
