//! The decider's metrics.

mod rule_timer;

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use importguard_core::{Evaluation, Outcome, VerdictKind};
use importguard_telemetry::metrics::{
    ByLabel, DurationHistogram, Label, PolicyInfo, observe, register,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use strum::{IntoEnumIterator, IntoStaticStr};
use tonic::{Code, Status};

pub(crate) use self::rule_timer::RuleTimer;
use crate::policy::Policy;

/// Buckets in seconds: from a short list and policy to expressions over the largest list of a callback.
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

/// Buckets in seconds: from a look-up of two friends to an expression over the largest list. They are coarse because each rule has a series
/// for each bucket.
const RULE_SECONDS: [f64; 11] = [
    0.000_000_1,
    0.000_000_5,
    0.000_002_5,
    0.000_01,
    0.000_05,
    0.000_25,
    0.001,
    0.005,
    0.025,
    0.1,
    0.5,
];

/// The decider's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    decisions: ByLabel<Label<VerdictKind>, Counter>,
    calls: ByLabel<Label<CallResult>, DurationHistogram>,
    evaluation: Histogram,
    rules: Family<RuleLabels, Histogram, fn() -> Histogram>,
    aborted: Counter,
    shadow_skipped: Counter,
    reloads: ByLabel<&'static str, Counter>,
    in_error: Gauge,
    held_back: Gauge,
    read_at: Gauge<f64, AtomicU64>,
    list_ids: Family<ListLabels, Gauge>,
    policies: PolicyInfo,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    rule: String,
}

impl RuleLabels {
    fn of(rule: &str) -> Self {
        Self {
            rule: rule.to_owned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListLabels {
    list: String,
}

/// The result of a call: a verdict or a gRPC status, with the status's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub(crate) enum CallResult {
    #[strum(to_string = "OK")]
    Verdict(VerdictKind),
    InvalidArgument,
    /// The message is too large.
    OutOfRange,
    /// Other calls take the memory for its message.
    ResourceExhausted,
    DeadlineExceeded,
    /// Live lists are not current, and the operator chose not to decide without them.
    Unavailable,
    /// The caller cancelled it, or its message did not arrive in time.
    Cancelled,
    /// It panicked, or the message is not one of gRPC's.
    Internal,
}

impl CallResult {
    fn all() -> impl Iterator<Item = Self> {
        let verdicts = VerdictKind::iter().map(Self::Verdict);
        verdicts.chain([
            Self::InvalidArgument,
            Self::OutOfRange,
            Self::ResourceExhausted,
            Self::DeadlineExceeded,
            Self::Unavailable,
            Self::Cancelled,
            Self::Internal,
        ])
    }

    /// The result of a call that fails with `status`.
    pub(crate) fn of(status: &Status) -> Self {
        match status.code() {
            Code::InvalidArgument => Self::InvalidArgument,
            Code::OutOfRange => Self::OutOfRange,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::Unavailable => Self::Unavailable,
            Code::Cancelled => Self::Cancelled,
            _ => Self::Internal,
        }
    }

    /// Whether it is an error by OpenTelemetry's conventions for gRPC servers: the others are their callers' doing, alone or together.
    pub(crate) const fn is_error(self) -> bool {
        matches!(
            self,
            Self::DeadlineExceeded | Self::Unavailable | Self::Internal
        )
    }
}

impl AsRef<str> for CallResult {
    fn as_ref(&self) -> &str {
        match self {
            Self::Verdict(verdict) => verdict.into_str(),
            status => status.into_str(),
        }
    }
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry, policies: PolicyInfo) -> Self {
        let rules: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(RULE_SECONDS));
        Self {
            decisions: ByLabel::register(
                registry,
                "importguard_decider_decisions",
                "Evaluations of the policy by verdict; a gateway may call twice for one callback",
                Counter::default,
                "verdict",
                VerdictKind::iter().map(Label),
            ),
            calls: ByLabel::register(
                registry,
                "importguard_decider_request_duration_seconds",
                "Duration of the calls of a decider, refused ones included, by verdict or gRPC status",
                || DurationHistogram::new(EVALUATION_SECONDS.into_iter()),
                "result",
                CallResult::all().map(Label),
            ),
            evaluation: register(
                registry,
                "importguard_decider_evaluation_seconds",
                "Duration of evaluating the policy for one callback",
                Histogram::new(EVALUATION_SECONDS),
            ),
            rules: register(
                registry,
                "importguard_decider_rule_duration_seconds",
                "Duration of evaluating one rule of the active policy for one callback, by rule ID",
                rules,
            ),
            aborted: register(
                registry,
                "importguard_decider_evaluations_aborted",
                "Evaluations that were stopped because the deadline passed or the caller gave up",
                Counter::default(),
            ),
            shadow_skipped: register(
                registry,
                "importguard_decider_shadow_rules_skipped",
                "Rules in shadow mode that were not evaluated for a callback because they would have cost more than such rules may",
                Counter::default(),
            ),
            reloads: ByLabel::register(
                registry,
                "importguard_policy_reloads",
                "Attempts to read the policy files, by result: ok or failed",
                Counter::default,
                "result",
                ["ok", "failed"],
            ),
            in_error: register(
                registry,
                "importguard_policy_in_error",
                "1 while the policy files are invalid or held back, and the last valid policy stays active",
                Gauge::default(),
            ),
            held_back: register(
                registry,
                "importguard_policy_held_back",
                "1 while a changed policy is held back, because a list lost many of its IDs, the policy was cut off or enforces no rule any more, or new live lists are not read yet; a restart would take it",
                Gauge::default(),
            ),
            read_at: register(
                registry,
                "importguard_policy_read_timestamp_seconds",
                "When the active policy was last read from its files, in seconds since 1970",
                Gauge::default(),
            ),
            list_ids: register(
                registry,
                "importguard_list_ids",
                "Distinct IDs in each list of the active policy",
                Family::default(),
            ),
            policies,
        }
    }

    /// Counts a call.
    pub(crate) fn called(&self, result: CallResult, took: Duration) {
        observe(&self.calls.get(Label(result)), took);
    }

    /// Counts an evaluation.
    pub(crate) fn evaluated(&self, evaluation: &Evaluation, took: Duration) {
        let verdict = Label(evaluation.verdict.kind());
        self.decisions.get(verdict).inc();
        self.evaluation.observe(took.as_secs_f64());
        let skipped = evaluation
            .rules
            .iter()
            .filter(|rule| rule.outcome == Outcome::Skipped);
        self.shadow_skipped.inc_by(skipped.count() as u64);
    }

    /// Counts an evaluation that was stopped.
    pub(crate) fn aborted(&self) {
        self.aborted.inc();
    }

    /// The duration histograms of a policy's rules, in rule order.
    pub(crate) fn rule_durations(&self, policy: &Policy) -> Vec<Histogram> {
        let rules = policy.rule_ids();
        rules
            .map(|id| self.rules.get_or_create_owned(&RuleLabels::of(id)))
            .collect()
    }

    /// Records that a valid policy was read and replaces `previous`.
    pub(crate) fn applied(&self, policy: &Policy, previous: Option<&Policy>) {
        self.reload("ok");
        self.in_error.set(0);
        self.held_back.set(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.read_at.set(now.unwrap_or_default().as_secs_f64());
        let lists = policy.lists().cloned().collect();
        self.policies.activated(policy.revision().clone(), lists);
        let list = |list: &str| ListLabels {
            list: list.to_owned(),
        };
        if let Some(previous) = previous {
            let is_removed = |id: &&str| !policy.rule_ids().any(|new| new == *id);
            for id in previous.rule_ids().filter(is_removed) {
                self.rules.remove(&RuleLabels::of(id));
            }
            for old in previous.lists() {
                if !policy.lists().any(|new| new.name == old.name) {
                    self.list_ids.remove(&list(&old.name));
                }
            }
        }
        for revision in policy.lists() {
            let ids = i64::try_from(revision.size).unwrap_or(i64::MAX);
            self.list_ids.get_or_create(&list(&revision.name)).set(ids);
        }
    }

    /// Records that an invalid policy was read, or one that is held back until it is confirmed.
    pub(crate) fn failed(&self, held_back: bool) {
        self.reload("failed");
        self.in_error.set(1);
        self.held_back.set(held_back.into());
    }

    fn reload(&self, result: &'static str) {
        self.reloads.get(result).inc();
    }
}

#[cfg(test)]
mod tests {
    use importguard_telemetry::metrics::encode;

    use super::*;
    use crate::{
        lists::live::LiveLists,
        policy::{Draft, ListFiles, Request},
    };

    fn policy(rules: &str) -> Policy {
        let source = format!("apiVersion: importguard/v1\nname: test\nrules:\n{rules}\n");
        let policy = Draft::read("policy.yaml", &source).compile(&ListFiles::new());
        policy.unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
    }

    fn metrics() -> (Metrics, Registry) {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, PolicyInfo::default());
        (metrics, registry)
    }

    /// The values of the series whose names and labels start with `begins`.
    fn values(registry: &Registry, begins: &str) -> Vec<String> {
        let text = encode(registry, None).unwrap().text;
        let mut values: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix(begins))
            .map(str::to_owned)
            .collect();
        values.sort();
        values
    }

    #[test]
    fn the_series_of_rules_are_those_of_the_active_policy() {
        let (metrics, registry) = metrics();
        let old = policy(
            "- { id: gone, limitFriends: { max: 1, onExceed: truncate } }\n- { id: kept, limitFriends: { max: 2, onExceed: truncate } }",
        );
        let new = policy(
            "- { id: kept, limitFriends: { max: 3, onExceed: truncate } }\n- { id: new, limitFriends: { max: 4, onExceed: truncate } }",
        );
        let of_old = metrics.rule_durations(&old);
        metrics.applied(&old, None);
        of_old[1].observe(0.1);
        let of_new = metrics.rule_durations(&new);
        metrics.applied(&new, Some(&old));
        of_new[0].observe(0.1);
        assert_eq!(
            values(&registry, "importguard_decider_rule_duration_seconds_count"),
            [r#"{rule="kept"} 2"#, r#"{rule="new"} 0"#]
        );
    }

    #[test]
    fn each_rule_that_is_evaluated_is_timed() {
        let (metrics, registry) = metrics();
        let policy = policy(
            "- { id: off, mode: off, limitFriends: { max: 1, onExceed: truncate } }
- { id: first, mode: shadow, limitFriends: { max: 1, onExceed: truncate } }
- { id: refuses, refuseIf: \"friendCount > 1\", refusal: { code: 5001, message: no } }
- { id: not-reached, limitFriends: { max: 1, onExceed: truncate } }",
        );
        let rules = metrics.rule_durations(&policy);
        let request = Request {
            operation_id: "op",
            owner: "owner",
            friends: &["a", "b"],
            now: SystemTime::now(),
        };
        let evaluator = policy.with_live(LiveLists::none());
        let evaluated = evaluator.evaluate_until(&request, || false, &mut RuleTimer::new(&rules));
        assert_eq!(evaluated.unwrap().verdict.kind(), VerdictKind::Refuse);
        assert_eq!(
            values(&registry, "importguard_decider_rule_duration_seconds_count"),
            [
                r#"{rule="first"} 1"#,
                r#"{rule="not-reached"} 0"#,
                r#"{rule="off"} 0"#,
                r#"{rule="refuses"} 1"#
            ]
        );
    }
}
