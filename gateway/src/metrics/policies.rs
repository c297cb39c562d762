use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use importguard_core::PolicyRevision;
use importguard_telemetry::metrics::policy_info;
use prometheus::{
    IntGaugeVec, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::time::Instant;

/// For how long a policy is told of after its last decision: five scrapes a minute apart.
const REMEMBERED: Duration = Duration::from_secs(300);

/// How many policies are told of: deciders have one and, while a new one spreads, two.
const AT_MOST: usize = 8;

/// The policies that callbacks were decided by of late: more than one means that the deciders do not agree.
#[derive(Clone, Debug)]
pub(super) struct Policies {
    seen: Arc<Mutex<Vec<Seen>>>,
    info: IntGaugeVec,
}

#[derive(Debug)]
struct Seen {
    policy: PolicyRevision,
    last: Instant,
}

impl Policies {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let policies = Self {
            seen: Arc::default(),
            info: policy_info("gateway")?,
        };
        registry.register(Box::new(policies.clone()))?;
        Ok(policies)
    }

    pub(super) fn decided_by(&self, policy: &PolicyRevision) {
        let last = Instant::now();
        let mut seen = self.seen();
        if let Some(known) = seen.iter_mut().find(|seen| seen.policy == *policy) {
            known.last = last;
            return;
        }
        if seen.len() == AT_MOST {
            seen.sort_by_key(|seen| seen.last);
            seen.remove(0);
        }
        seen.push(Seen {
            policy: policy.clone(),
            last,
        });
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        // What it guards is whole after any panic.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Policies {
    fn desc(&self) -> Vec<&Desc> {
        self.info.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.last.elapsed() < REMEMBERED);
        self.info.reset();
        for Seen { policy, .. } in seen.iter() {
            self.info
                .with_label_values(&[&policy.name, &policy.digest])
                .set(1);
        }
        self.info.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(digest: usize) -> PolicyRevision {
        PolicyRevision {
            name: "default".to_owned(),
            digest: digest.to_string(),
        }
    }

    fn told(policies: &Policies) -> usize {
        policies
            .collect()
            .iter()
            .map(|family| family.get_metric().len())
            .sum()
    }

    #[tokio::test(start_paused = true)]
    async fn policies_are_forgotten_when_they_decide_no_longer() {
        let policies = Policies::register(&Registry::new()).unwrap();
        policies.decided_by(&policy(1));
        policies.decided_by(&policy(2));
        assert_eq!(told(&policies), 2);
        tokio::time::advance(REMEMBERED - Duration::from_secs(1)).await;
        policies.decided_by(&policy(2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(told(&policies), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn never_more_than_a_few_policies_are_remembered() {
        let policies = Policies::register(&Registry::new()).unwrap();
        for digest in 0..100 {
            policies.decided_by(&policy(digest));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(told(&policies), AT_MOST);
    }
}
