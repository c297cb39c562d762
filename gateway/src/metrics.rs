//! The gateway's metrics. No user ID and no operationID in a label.

use std::{sync::Arc, time::Duration};

use hashlink::LruCache;
use http::StatusCode;
use importguard_core::{Cause, Decision, Mode, Outcome, VerdictKind};
use importguard_telemetry::metrics::{
    ByLabel, DurationHistogram, HistogramFamily, Label, PolicyInfo, observe, register, with_series,
};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use strum::IntoEnumIterator;

use crate::openim::{Rejection, Route};

/// Histogram buckets in seconds: from 250 µs, a typical response time on one machine, to beyond the default budget of 2 s.
const SECONDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0,
];

/// Maximum number of series of rules. A policy has at most 256 rules, each with one mode and up to three outcomes; during a roll-out,
/// deciders have two policies.
const MAX_RULE_SERIES: usize = 2 * 256 * 3;

/// The metrics of callbacks and decisions.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    decisions: Family<DecisionLabels, Counter>,
    rules: Family<RuleLabels, Counter>,
    /// The series in `rules`, which policies name, by when they last counted.
    fired: Arc<Mutex<LruCache<RuleLabels, Counter>>>,
    pub(crate) rejections: ByLabel<i32, Counter>,
    duration: HistogramFamily<CallbackLabels>,
    pub(crate) abandoned: Counter,
    pub(crate) verdicts_ignored: ByLabel<Label<VerdictKind>, Counter>,
    /// By result: `ok`, or the cause of the fallback.
    decider_calls: ByLabel<&'static str, DurationHistogram>,
    policies: PolicyInfo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    cause: Option<Label<Cause>>,
    verdict: Label<VerdictKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallbackLabels {
    route: Label<Route>,
    status: u16,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry, policies: PolicyInfo) -> Self {
        let causes = || [None].into_iter().chain(Cause::iter().map(Some));
        let decisions = VerdictKind::iter().flat_map(|verdict| {
            causes().map(move |cause| DecisionLabels {
                cause: cause.map(Label),
                verdict: Label(verdict),
            })
        });
        let callbacks = Route::ALL.map(|route| CallbackLabels {
            route: Label(route),
            status: StatusCode::OK.as_u16(),
        });
        let calls = [
            None,
            Some(Cause::DeciderUnavailable),
            Some(Cause::DeciderTimeout),
            Some(Cause::DeciderFailed),
            Some(Cause::Overloaded),
        ];
        Self {
            decisions: register(
                registry,
                "importguard_decisions",
                "Decisions by verdict and, for fallbacks, by cause (empty for a decision by the policy)",
                with_series(Family::default(), decisions),
            ),
            rules: register(
                registry,
                "importguard_rules_fired",
                "Rules that fired in decisions, by ID, mode (enforce or shadow) and outcome (refuse, remove, error or skipped)",
                Family::default(),
            ),
            fired: Arc::new(Mutex::new(LruCache::new_unbounded())),
            rejections: ByLabel::register(
                registry,
                "importguard_rejections",
                "Requests rejected without a decision, by errCode",
                Counter::default,
                "code",
                Rejection::CODES,
            ),
            duration: register(
                registry,
                "importguard_callback_duration_seconds",
                "Duration from the arrival of a request to its response, by callback (other for what importguard does not answer itself) and HTTP status",
                with_series(Family::new_with_constructor(histogram), callbacks),
            ),
            abandoned: register(
                registry,
                "importguard_callbacks_abandoned",
                "Requests without a response: the caller disconnected, or the gateway was stopped",
                Counter::default(),
            ),
            verdicts_ignored: ByLabel::register(
                registry,
                "importguard_verdicts_ignored",
                "Imports that OpenIM reported as done, with all requested friends, although this gateway had refused or shortened them",
                Counter::default,
                "verdict",
                [VerdictKind::Refuse, VerdictKind::Modify].map(Label),
            ),
            decider_calls: ByLabel::register(
                registry,
                "importguard_decider_call_duration_seconds",
                "Duration of a decision by the deciders, retries included, by result: ok, or the cause of the fallback",
                histogram,
                "result",
                calls.map(call_result),
            ),
            policies,
        }
    }

    /// Records a call to the deciders. `cause` is that of the fallback, if it failed.
    pub(crate) fn decider_called(&self, cause: Option<Cause>, took: Duration) {
        observe(&self.decider_calls.get(call_result(cause)), took);
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let labels = DecisionLabels {
            cause: decision.cause().map(Label),
            verdict: Label(decision.verdict().kind()),
        };
        self.decisions.get_or_create(&labels).inc();
        let Some(evaluation) = decision.evaluation() else {
            return;
        };
        self.policies
            .decided_by(&evaluation.policy, &evaluation.lists);
        for rule in &evaluation.rules {
            self.fired(RuleLabels {
                mode: Label(rule.mode),
                outcome: Label(rule.outcome),
                rule: rule.id.clone(),
            });
        }
    }

    fn fired(&self, labels: RuleLabels) {
        let mut fired = self.fired.lock();
        if let Some(counter) = fired.get(&labels) {
            counter.inc();
            return;
        }
        if fired.len() == MAX_RULE_SERIES
            && let Some((oldest, _)) = fired.remove_lru()
        {
            self.rules.remove(&oldest);
        }
        let counter = self.rules.get_or_create_owned(&labels);
        counter.inc();
        fired.insert(labels, counter);
    }

    pub(crate) fn answered(&self, route: Route, status: StatusCode, total: Duration) {
        let labels = CallbackLabels {
            route: Label(route),
            status: status.as_u16(),
        };
        observe(&self.duration.get_or_create(&labels), total);
    }
}

fn call_result(cause: Option<Cause>) -> &'static str {
    cause.map_or("ok", Cause::into_str)
}

fn histogram() -> DurationHistogram {
    DurationHistogram::new(SECONDS.into_iter())
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    mode: Label<Mode>,
    outcome: Label<Outcome>,
    rule: String,
}

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use importguard_core::{Evaluation, FiredRule, PolicyRevision, Verdict};
    use importguard_telemetry::metrics::encode;

    use super::*;

    fn decision(rule: &str) -> Decision {
        Decision::Policy {
            evaluation: Evaluation {
                verdict: Verdict::Allow,
                rules: vec![FiredRule {
                    id: rule.to_owned(),
                    mode: Mode::Enforce,
                    outcome: Outcome::Remove,
                    reason: None,
                    matched: Vec::new(),
                    unlisted: 0,
                }],
                removed: Vec::new(),
                policy: PolicyRevision {
                    name: "default".to_owned(),
                    digest: "sha256:00".to_owned(),
                },
                lists: Vec::new(),
                at: SystemTime::UNIX_EPOCH,
            },
            decider: "d".to_owned(),
        }
    }

    #[test]
    fn the_series_of_rules_that_fired_last_are_kept_and_others_are_removed() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, PolicyInfo::default());
        for number in 0..=5_000 {
            metrics.decided(&decision(&format!("generated-{number}")));
            metrics.decided(&decision("constant"));
        }
        let text = encode(&registry, None).unwrap().text;
        let series = |rule: &str| {
            let mut lines = text.lines();
            lines.find(|line| {
                line.starts_with("importguard_rules_fired_total{")
                    && line.contains(&format!("rule=\"{rule}\""))
            })
        };
        assert!(series("constant").is_some_and(|line| line.ends_with(" 5001")));
        assert!(series("generated-5000").is_some());
        assert_eq!(series("generated-0"), None);
        let all = text
            .lines()
            .filter(|line| line.starts_with("importguard_rules_fired_total{"));
        assert!(all.count() <= MAX_RULE_SERIES);
    }
}
