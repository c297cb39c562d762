use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use importguard_core::PolicyRevision;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::MetricType};
use tokio::time::Instant;

/// How long a policy is reported after a gateway's last decision by it: five scrapes a minute apart.
const REPORTING_PERIOD: Duration = Duration::from_secs(300);

/// Maximum number of policies that a gateway reports: deciders have one, or two during a rollout.
const MAX_DECIDING: usize = 8;

/// `importguard_policy_info`: a decider's active policy, and the policies that recently decided a gateway's callbacks. More than one
/// of the latter means that the deciders have different policies. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct PolicyInfo(Arc<Mutex<Policies>>);

#[derive(Debug, Default)]
struct Policies {
    active: Option<PolicyRevision>,
    deciding: Vec<(PolicyRevision, Instant)>,
}

impl PolicyInfo {
    /// Records a decider's new active policy.
    pub fn activated(&self, policy: PolicyRevision) {
        self.lock().active = Some(policy);
    }

    /// Records that this policy decided a gateway's callback.
    pub fn decided_by(&self, policy: &PolicyRevision) {
        let now = Instant::now();
        let deciding = &mut self.lock().deciding;
        if let Some((_, last)) = deciding.iter_mut().find(|(known, _)| known == policy) {
            *last = now;
            return;
        }
        if deciding.len() == MAX_DECIDING {
            deciding.sort_by_key(|(_, last)| *last);
            deciding.remove(0);
        }
        deciding.push((policy.clone(), now));
    }

    fn lock(&self) -> MutexGuard<'_, Policies> {
        // Consistent even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for PolicyInfo {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut policies = self.lock();
        policies
            .deciding
            .retain(|(_, last)| last.elapsed() < REPORTING_PERIOD);
        let active = policies.active.iter().map(|policy| ("decider", policy));
        let deciding = policies.deciding.iter();
        let deciding = deciding.map(|(policy, _)| ("gateway", policy));
        let mut series = active.chain(deciding).peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let help = "Policies by name and digest: at a decider the active one, at a gateway those that decided callbacks in the last 5 minutes.";
        let mut info =
            encoder.encode_descriptor("importguard_policy", help, None, MetricType::Info)?;
        for (at, PolicyRevision { name, digest }) in series {
            let labels = [
                ("at", at),
                ("digest", digest.as_str()),
                ("name", name.as_str()),
            ];
            info.encode_info(&labels)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics::encode;

    fn policy(digest: usize) -> PolicyRevision {
        PolicyRevision {
            name: "default".to_owned(),
            digest: digest.to_string(),
        }
    }

    fn registered() -> (PolicyInfo, Registry) {
        let mut registry = Registry::default();
        let policies = PolicyInfo::default();
        registry.register_collector(Box::new(policies.clone()));
        (policies, registry)
    }

    fn reported(registry: &Registry) -> Vec<String> {
        let text = encode(registry, None).unwrap().text;
        let series = text
            .lines()
            .filter(|line| line.starts_with("importguard_policy_info{"));
        series.map(str::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn policies_that_no_longer_decide_are_removed() {
        let (policies, registry) = registered();
        policies.decided_by(&policy(1));
        policies.decided_by(&policy(2));
        assert_eq!(reported(&registry).len(), 2);
        tokio::time::advance(REPORTING_PERIOD - Duration::from_secs(1)).await;
        policies.decided_by(&policy(2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            reported(&registry),
            [r#"importguard_policy_info{at="gateway",digest="2",name="default"} 1"#]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_reported_policies_is_limited() {
        let (policies, registry) = registered();
        for digest in 0..100 {
            policies.decided_by(&policy(digest));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(reported(&registry).len(), MAX_DECIDING);
    }

    #[test]
    fn a_decider_reports_its_active_policy_only() {
        let (policies, registry) = registered();
        assert!(reported(&registry).is_empty());
        policies.activated(policy(1));
        policies.activated(policy(2));
        assert_eq!(
            reported(&registry),
            [r#"importguard_policy_info{at="decider",digest="2",name="default"} 1"#]
        );
    }
}
