//! The decider's metrics. A metric's doc comment is its help text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use importguard_core::{Evaluation, Outcome, VerdictKind};
use importguard_telemetry::{
    families,
    metrics::{Each, policy_info},
};
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::policy::Policy;

/// From a short list against a short policy to expressions over the largest list that a callback may hold.
const EVALUATION_SECONDS: [f64; 19] = [
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
];

/// What the decider counts.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    families: Families,
    info: IntGaugeVec,
}

families! {
    struct Families {
        /// Evaluations of the policy by verdict; a gateway may have asked twice for one callback.
        decisions: Each<IntCounterVec, VerdictKind> = "importguard_decider_decisions_total", ["verdict"];
        /// Seconds that evaluating the policy for one callback took.
        evaluation: Histogram = "importguard_decider_evaluation_seconds", in EVALUATION_SECONDS;
        /// Evaluations that were stopped because their caller's deadline passed or nobody waited any more.
        aborted: IntCounter = "importguard_decider_evaluations_aborted_total";
        /// Rules in shadow that were not evaluated for a callback, because they would have cost more than rules in shadow may.
        shadow_skipped: IntCounter = "importguard_decider_shadow_rules_skipped_total";
        /// Readings of the policy's files by result: ok or failed.
        reloads: IntCounterVec = "importguard_policy_reloads_total", ["result"];
        /// 1 while the policy's files hold a policy that cannot be used and the last good one stays in force.
        in_error: IntGauge = "importguard_policy_in_error";
        /// When the policy in force was last read from its files, in seconds since 1970.
        read_at: Gauge = "importguard_policy_read_timestamp_seconds";
        /// Distinct ids in each of the policy's lists.
        list_ids: IntGaugeVec = "importguard_list_ids", ["list"];
    }
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let families = Families::register(registry)?;
        for result in ["ok", "failed"] {
            families.reloads.with_label_values(&[result]).reset();
        }
        let info = policy_info("decider")?;
        registry.register(Box::new(info.clone()))?;
        Ok(Self { families, info })
    }

    /// The policy was evaluated for a callback.
    pub(crate) fn evaluated(&self, evaluation: &Evaluation, took: Duration) {
        let families = &self.families;
        families.decisions.of(evaluation.verdict.kind()).inc();
        families.evaluation.observe(took.as_secs_f64());
        let skipped = evaluation
            .rules
            .iter()
            .filter(|rule| rule.outcome == Outcome::Skipped);
        families.shadow_skipped.inc_by(skipped.count() as u64);
    }

    /// An evaluation was stopped.
    pub(crate) fn aborted(&self) {
        self.families.aborted.inc();
    }

    /// The files hold a good policy.
    pub(crate) fn applied(&self, policy: &Policy) {
        let families = &self.families;
        families.reloads.with_label_values(&["ok"]).inc();
        families.in_error.set(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        families.read_at.set(now.unwrap_or_default().as_secs_f64());
        self.info.reset();
        self.info
            .with_label_values(&[policy.name(), policy.digest()])
            .set(1);
        families.list_ids.reset();
        for list in policy.lists() {
            families
                .list_ids
                .with_label_values(&[&list.name])
                .set(i64::try_from(list.size).unwrap_or(i64::MAX));
        }
    }

    /// The files hold a policy that cannot be used.
    pub(crate) fn failed(&self) {
        let families = &self.families;
        families.reloads.with_label_values(&["failed"]).inc();
        families.in_error.set(1);
    }
}
