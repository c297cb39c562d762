//! The decider's metrics. A metric's doc comment is its help text.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::policy::Policy;

/// What the decider counts.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Readings of the policy's files by result: ok or failed.
    reloads: IntCounterVec,
    /// 1 while the policy's files hold a policy that cannot be used and the last good one stays in force.
    in_error: IntGauge,
    /// When the policy in force was last read from its files, in seconds since 1970.
    read_at: Gauge,
    /// 1 for the policy in force, by name and digest.
    info: IntGaugeVec,
    /// Distinct ids in each of the policy's lists.
    list_ids: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            reloads: IntCounterVec::new(
                Opts::new(
                    "importguard_policy_reloads_total",
                    "Readings of the policy's files by result: ok or failed.",
                ),
                &["result"],
            )?,
            in_error: IntGauge::new(
                "importguard_policy_in_error",
                "1 while the policy's files hold a policy that cannot be used and the last good one stays in force.",
            )?,
            read_at: Gauge::new(
                "importguard_policy_read_timestamp_seconds",
                "When the policy in force was last read from its files, in seconds since 1970.",
            )?,
            info: IntGaugeVec::new(
                Opts::new(
                    "importguard_policy_info",
                    "1 for the policy in force, by name and digest.",
                ),
                &["name", "digest"],
            )?,
            list_ids: IntGaugeVec::new(
                Opts::new(
                    "importguard_list_ids",
                    "Distinct ids in each of the policy's lists.",
                ),
                &["list"],
            )?,
        };
        for result in ["ok", "failed"] {
            metrics.reloads.with_label_values(&[result]).reset();
        }
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.in_error.clone()))?;
        registry.register(Box::new(metrics.read_at.clone()))?;
        registry.register(Box::new(metrics.info.clone()))?;
        registry.register(Box::new(metrics.list_ids.clone()))?;
        Ok(metrics)
    }

    /// The files hold a good policy.
    pub(crate) fn applied(&self, policy: &Policy) {
        self.reloads.with_label_values(&["ok"]).inc();
        self.in_error.set(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.read_at.set(now.unwrap_or_default().as_secs_f64());
        self.info.reset();
        self.info
            .with_label_values(&[policy.name(), policy.digest().as_str()])
            .set(1);
        self.list_ids.reset();
        for list in policy.lists() {
            self.list_ids
                .with_label_values(&[&list.name])
                .set(i64::try_from(list.size).unwrap_or(i64::MAX));
        }
    }

    /// The files hold a policy that cannot be used.
    pub(crate) fn failed(&self) {
        self.reloads.with_label_values(&["failed"]).inc();
        self.in_error.set(1);
    }
}
