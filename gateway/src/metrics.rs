//! The gateway's metrics. A metric's doc comment is its help text. No user id and no operationID in a label.

mod policies;

use std::time::Duration;

use http::StatusCode;
use importguard_core::{Cause, Decision, VerdictKind};
use importguard_telemetry::{
    families,
    metrics::{Each, Label},
};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use self::policies::Policies;
use crate::openim::{Rejection, Route};

/// From 250 µs, a healthy answer on one machine, to the default budget of 2 s and one beyond.
const SECONDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0,
];

families! {
    struct Families {
        /// Decisions by verdict and, where the gateway fell back, by cause ("" for the policy's own).
        decisions: Each<IntCounterVec, (VerdictKind, Option<Cause>)> = "importguard_decisions_total", ["verdict", "cause"];
        /// Rules that fired in decisions by id, mode (enforce or shadow) and what they did or would have done (refuse, remove or error).
        rules: IntCounterVec = "importguard_rules_fired_total", ["rule", "mode", "outcome"];
        /// Requests answered without a decision, by errCode.
        rejections: IntCounterVec = "importguard_rejections_total", ["code"];
        /// Seconds from a request's arrival to its answer, by callback (other for what importguard does not answer itself) and HTTP status.
        duration: HistogramVec = "importguard_callback_duration_seconds", ["route", "status"], in SECONDS;
        /// Requests that were never answered: the caller hung up before, or the gateway was ended.
        abandoned: IntCounter = "importguard_callbacks_abandoned_total";
        /// Seconds from the question to the deciders to a verdict (ok) or to giving up on it (the cause), repetitions included.
        asking: Each<HistogramVec, Asked> = "importguard_decider_call_duration_seconds", ["result"], in SECONDS;
    }
}

/// What the gateway counts.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    families: Families,
    /// Of `duration`, the members for status 200, by route.
    ok: Vec<Histogram>,
    policies: Policies,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let families = Families::register(registry)?;
        let ok = Route::ALL.iter().map(|route| {
            let labels = [route.text(), StatusCode::OK.as_str()];
            families.duration.with_label_values(&labels)
        });
        Ok(Self {
            ok: ok.collect(),
            policies: Policies::register(registry)?,
            families,
        })
    }

    /// A decider was asked, and this came of it.
    pub(crate) fn asked(&self, cause: Option<Cause>, took: Duration) {
        let asked = Asked(cause);
        self.families.asking.of(asked).observe(took.as_secs_f64());
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let labels = (decision.verdict().kind(), decision.cause());
        self.families.decisions.of(labels).inc();
        let Some(evaluation) = decision.evaluation() else {
            return;
        };
        self.policies.decided_by(&evaluation.policy);
        for rule in &evaluation.rules {
            let labels = [&*rule.id, rule.mode.as_str(), rule.outcome.as_str()];
            self.families.rules.with_label_values(&labels).inc();
        }
    }

    pub(crate) fn rejected(&self, rejection: &Rejection) {
        self.families
            .rejections
            .with_label_values(&[&rejection.code().to_string()])
            .inc();
    }

    pub(crate) fn abandoned(&self) {
        self.families.abandoned.inc();
    }

    pub(crate) fn answered(&self, route: Route, status: StatusCode, total: Duration) {
        let seconds = total.as_secs_f64();
        match self.ok.get(route.index()) {
            Some(ok) if status == StatusCode::OK => ok.observe(seconds),
            _ => {
                let labels = [route.text(), status.as_str()];
                let duration = self.families.duration.with_label_values(&labels);
                duration.observe(seconds);
            }
        }
    }
}

/// What came of asking a decider: a verdict, or the cause of a fallback.
#[derive(Clone, Copy, Debug)]
struct Asked(Option<Cause>);

impl Label for Asked {
    const ALL: &'static [Self] = &[
        Self(None),
        Self(Some(Cause::DeciderUnavailable)),
        Self(Some(Cause::DeciderTimeout)),
        Self(Some(Cause::DeciderFailed)),
    ];

    fn index(self) -> usize {
        match self.0 {
            None => 0,
            Some(Cause::DeciderUnavailable) => 1,
            Some(Cause::DeciderTimeout) => 2,
            // The other causes are none of a question's.
            Some(Cause::DeciderFailed | Cause::Overloaded | Cause::Unrecordable) => 3,
        }
    }

    fn text(self) -> &'static str {
        self.0.map_or("ok", Cause::as_str)
    }
}
