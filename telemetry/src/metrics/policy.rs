use std::{fmt, sync::Arc, time::Duration};

use importguard_core::{ListRevision, PolicyRevision, content_digest};
use parking_lot::Mutex;
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
    active: Option<Reported>,
    deciding: Vec<(Reported, Instant)>,
}

/// A policy with its lists.
#[derive(Debug)]
struct Reported {
    policy: PolicyRevision,
    lists: Vec<ListRevision>,
    content_digest: String,
}

impl Reported {
    fn new(policy: PolicyRevision, lists: Vec<ListRevision>) -> Self {
        Self {
            content_digest: content_digest(&policy, &lists),
            policy,
            lists,
        }
    }
}

impl PolicyInfo {
    /// Records a decider's new active policy.
    pub fn activated(&self, policy: PolicyRevision, lists: Vec<ListRevision>) {
        self.0.lock().active = Some(Reported::new(policy, lists));
    }

    /// Records that this policy, with these lists, decided a gateway's callback.
    pub fn decided_by(&self, policy: &PolicyRevision, lists: &[ListRevision]) {
        let now = Instant::now();
        let deciding = &mut self.0.lock().deciding;
        let known = deciding.iter_mut().find(|(known, _)| {
            known.policy == *policy && contents(&known.lists).eq(contents(lists))
        });
        if let Some((_, last)) = known {
            *last = now;
            return;
        }
        if deciding.len() == MAX_DECIDING {
            deciding.sort_by_key(|(_, last)| *last);
            deciding.remove(0);
        }
        deciding.push((Reported::new(policy.clone(), lists.to_vec()), now));
    }
}

/// What `content_digest` depends on: of a live list, neither revision nor size, which change with its entries.
fn contents(lists: &[ListRevision]) -> impl Iterator<Item = (&str, &str)> {
    let lists = lists.iter();
    lists.map(|list| (list.name.as_str(), list.digest.as_str()))
}

impl Collector for PolicyInfo {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut policies = self.0.lock();
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
        let help = "Policies by name, digest of the file, and digest of file and lists: at a decider the active one, at a gateway those that decided callbacks in the last 5 minutes.";
        let mut info =
            encoder.encode_descriptor("importguard_policy", help, None, MetricType::Info)?;
        for (at, reported) in series {
            let labels = [
                ("at", at),
                ("content_digest", reported.content_digest.as_str()),
                ("digest", reported.policy.digest.as_str()),
                ("name", reported.policy.name.as_str()),
            ];
            info.encode_info(&labels)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use importguard_core::digest;
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

    /// The series of policy 2, with the lists of `manifest`.
    fn series(at: &str, manifest: &str) -> String {
        let content = digest(manifest.as_bytes());
        format!(
            r#"importguard_policy_info{{at="{at}",content_digest="{content}",digest="2",name="default"}} 1"#
        )
    }

    fn list(digest: &str) -> ListRevision {
        ListRevision {
            name: "blocked".to_owned(),
            digest: digest.to_owned(),
            size: 1,
            revision: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn policies_that_differ_in_a_list_only_are_reported_as_two() {
        let (policies, registry) = registered();
        for digest in ["a", "b", "a"] {
            policies.decided_by(&policy(2), &[list(digest)]);
        }
        let expected = ["a", "b"]
            .map(|digest| series("gateway", &format!("policy 2\nlist blocked {digest}\n")));
        assert_eq!(reported(&registry), expected);

        let (policies, registry) = registered();
        policies.activated(policy(2), vec![list("a")]);
        assert_eq!(
            reported(&registry),
            [series("decider", "policy 2\nlist blocked a\n")]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_list_that_changes_leaves_one_series() {
        let (policies, registry) = registered();
        for revision in 1..=9 {
            let changed = ListRevision {
                size: revision,
                revision: Some(revision),
                ..list("a")
            };
            policies.decided_by(&policy(2), &[changed]);
        }
        assert_eq!(
            reported(&registry),
            [series("gateway", "policy 2\nlist blocked a\n")]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn policies_that_no_longer_decide_are_removed() {
        let (policies, registry) = registered();
        policies.decided_by(&policy(1), &[]);
        policies.decided_by(&policy(2), &[]);
        assert_eq!(reported(&registry).len(), 2);
        tokio::time::advance(REPORTING_PERIOD - Duration::from_secs(1)).await;
        policies.decided_by(&policy(2), &[]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(reported(&registry), [series("gateway", "policy 2\n")]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_reported_policies_is_limited() {
        let (policies, registry) = registered();
        for digest in 0..100 {
            policies.decided_by(&policy(digest), &[]);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(reported(&registry).len(), MAX_DECIDING);
    }

    #[test]
    fn a_decider_reports_its_active_policy_only() {
        let (policies, registry) = registered();
        assert!(reported(&registry).is_empty());
        policies.activated(policy(1), Vec::new());
        policies.activated(policy(2), Vec::new());
        assert_eq!(reported(&registry), [series("decider", "policy 2\n")]);
    }
}
