//! The gateway's metrics. A metric's doc comment is its help text. No user id and no operationID in a label.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

use crate::{
    callback::Rejection,
    decide::{Decision, Fallback},
};

/// From 250 µs, a healthy answer on one machine, to the default budget of 2 s and one beyond.
const SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0,
];

/// What the gateway counts.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Decisions by verdict and, where the gateway fell back, by cause ("" for the policy's own).
    decisions: IntCounterVec,
    /// Requests answered without a decision, by errCode.
    rejections: IntCounterVec,
    /// Seconds from a request's arrival to its answer.
    duration: Histogram,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let decisions = IntCounterVec::new(
            Opts::new(
                "importguard_decisions_total",
                "Decisions by verdict and, where the gateway fell back, by cause (\"\" for the policy's own).",
            ),
            &["verdict", "cause"],
        )?;
        let rejections = IntCounterVec::new(
            Opts::new(
                "importguard_rejections_total",
                "Requests answered without a decision, by errCode.",
            ),
            &["code"],
        )?;
        let duration = Histogram::with_opts(
            HistogramOpts::new(
                "importguard_callback_duration_seconds",
                "Seconds from a request's arrival to its answer.",
            )
            .buckets(SECONDS.to_vec()),
        )?;
        registry.register(Box::new(decisions.clone()))?;
        registry.register(Box::new(rejections.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        Ok(Self {
            decisions,
            rejections,
            duration,
        })
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let cause = decision.source.cause();
        let cause = cause.map_or("", |cause| Fallback::of(cause).name());
        self.decisions
            .with_label_values(&[decision.verdict.name(), cause])
            .inc();
    }

    pub(crate) fn rejected(&self, rejection: &Rejection) {
        self.rejections
            .with_label_values(&[&rejection.reason.code().to_string()])
            .inc();
    }

    pub(crate) fn answered(&self, total: Duration) {
        self.duration.observe(total.as_secs_f64());
    }
}
