//! The detector's metrics.

use std::fmt;

use importguard_telemetry::metrics::{ByLabel, gauge, register, with_series};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
    },
    registry::Registry,
};

use crate::{rules::Rules, status::Status};

/// The reasons why a rule does not count an event.
pub(crate) const SKIPPED: [&str; 4] = ["late", "pseudonymised", "unnamed_friends", "unreadable"];

/// The outcomes of detections.
pub(crate) const OUTCOMES: [&str; 6] = [
    "added",
    "expired",
    "listed",
    "removed",
    "repeated",
    "superseded",
];

/// The detector's counters.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) events: Counter,
    pub(crate) redelivered: Counter,
    pub(crate) missed: Counter,
    pub(crate) failures: Counter,
    skipped: ByLabel<&'static str, Counter>,
    detections: Family<DetectionLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DetectionLabels {
    rule: String,
    outcome: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry, rules: &Rules) -> Self {
        let detections = rules.iter().flat_map(|rule| {
            OUTCOMES.map(|outcome| DetectionLabels {
                rule: rule.id.clone(),
                outcome,
            })
        });
        Self {
            events: register(
                registry,
                "importguard_detector_events",
                "Events about decisions that the detector has read",
                Counter::default(),
            ),
            redelivered: register(
                registry,
                "importguard_detector_redeliveries",
                "Events that NATS delivered to the detector again",
                Counter::default(),
            ),
            missed: register(
                registry,
                "importguard_detector_missed_deliveries",
                "Deliveries of the detector's consumer that went to another process, or got lost",
                Counter::default(),
            ),
            failures: register(
                registry,
                "importguard_detector_write_failures",
                "Failed attempts to put an owner on a list; they are repeated",
                Counter::default(),
            ),
            skipped: ByLabel::register(
                registry,
                "importguard_detector_skipped",
                "Events that a rule could not count",
                Counter::default,
                "reason",
                SKIPPED,
            ),
            detections: register(
                registry,
                "importguard_detector_detections",
                "Owners who did too much by a rule, and what became of it",
                with_series(Family::default(), detections),
            ),
        }
    }

    pub(crate) fn skipped(&self, reason: &'static str) {
        self.skipped.get(reason).inc();
    }

    pub(crate) fn detected(&self, rule: &str, outcome: &'static str) {
        let rule = rule.to_owned();
        let labels = DetectionLabels { rule, outcome };
        self.detections.get_or_create(&labels).inc();
    }
}

impl Collector for Status {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.read();
        gauge(
            &mut encoder,
            "importguard_detector_reading",
            "1 while the detector reads events and can write lists.",
            f64::from(u8::from(now.reading)),
        )?;
        gauge(
            &mut encoder,
            "importguard_detector_pending_events",
            "Events in the stream that the detector had not handled when it last read one.",
            now.pending as f64,
        )?;
        gauge(
            &mut encoder,
            "importguard_detector_lag_seconds",
            "How long ago the detector had handled every event that the stream had.",
            now.lag.as_secs_f64(),
        )?;
        let help = "Owners about whom the detector remembers something, by rule.";
        let name = "importguard_detector_owners";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (rule, owners, _) in &now.owners {
            let count = ConstGauge::new(i64::try_from(*owners).unwrap_or(i64::MAX));
            count.encode(family.encode_family(&[("rule", rule.as_str())])?)?;
        }
        let help = "Owners whom the detector forgot although they still counted, for lack of IMPORTGUARD_DETECT_MEMORY.";
        let name = "importguard_detector_owners_forgotten";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (rule, _, forgotten) in &now.owners {
            let count = ConstCounter::new(*forgotten);
            count.encode(family.encode_family(&[("rule", rule.as_str())])?)?;
        }
        Ok(())
    }
}
