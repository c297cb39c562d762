//! The log lines of a callback: one for its result, and one for each failure.

use std::{collections::HashMap, net::SocketAddr};

use http::StatusCode;
use importguard_core::{
    Cause, Decision, FiredRule, ImportRequest, MatchedPart, Mode, Removal, Verdict,
};
use importguard_telemetry::Flood;
use parking_lot::Mutex;
use time::format_description::well_known::Rfc3339;
use tracing::{error, info, warn};

use super::Clock;
use crate::{
    decide::{DecideError, OnFailure},
    events::expiry,
    openim::Rejection,
    recorder::RecordError,
    upstream::UpstreamError,
};

/// One line per decision. `replaced` is what the caller sent instead of a usable operationID.
pub(crate) fn decided(
    request: &ImportRequest,
    replaced: Option<&str>,
    decision: &Decision,
    clock: Clock,
) {
    let cause = decision.cause();
    let (refusal, kept) = match decision.verdict() {
        Verdict::Allow => (None, request.friends.len()),
        Verdict::Refuse(refusal) => (Some(refusal), 0),
        Verdict::Modify(kept) => (None, kept.indexes().len()),
    };
    let rule = refusal.and_then(|refusal| refusal.rule.as_deref());
    let evaluation = decision.evaluation();
    info!(
        verdict = decision.verdict().kind().into_str(),
        cause = cause.map(Cause::into_str),
        rule,
        matched = evaluation.and_then(|it| matched(&it.rules, rule?)),
        code = refusal.map(|refusal| refusal.code),
        removed = evaluation.and_then(|it| removals(&it.removed)),
        failed = evaluation.and_then(|it| failures(&it.rules)),
        friends = request.friends.len(),
        kept,
        micros = micros(clock),
        replaced_operation_id = replaced,
        "decided"
    );
}

/// Maximum number of rules that a field names.
const MAX_RULES: usize = 5;

/// What made a rule refuse.
fn matched(rules: &[FiredRule], refused_by: &str) -> Option<String> {
    let mut rules = rules.iter();
    let rule = rules.find(|rule| rule.id == refused_by && rule.mode == Mode::Enforce)?;
    let first = rule.matched.first()?;
    let until = match &first.part {
        MatchedPart::List(hit) => expiry(hit).and_then(|until| until.format(&Rfc3339).ok()),
        _ => None,
    };
    let until = until.map(|until| format!(" until {until}"));
    Some(format!("{}{}", first.summary()?, until.unwrap_or_default()))
}

/// The rules that removed friends, and how many each: after `nobodyLeft`, those that emptied the list.
fn removals(removed: &[Removal]) -> Option<String> {
    let removed = removed.iter();
    let removed = removed.map(|removal| format!("{} {}", removal.rule, removal.friends.len()));
    listed(removed, ", ")
}

/// The rules whose expressions failed, with the reasons.
fn failures(rules: &[FiredRule]) -> Option<String> {
    let failed = rules.iter().filter_map(|rule| {
        let reason = rule.reason.as_deref()?;
        Some(format!("{}: {reason}", rule.id))
    });
    listed(failed, "; ")
}

/// The first rules, and how many more there are.
fn listed(mut rules: impl Iterator<Item = String>, separator: &str) -> Option<String> {
    let mut named: Vec<_> = rules.by_ref().take(MAX_RULES).collect();
    match rules.count() {
        0 => {}
        1 => named.push("1 more rule".to_owned()),
        more => named.push(format!("{more} more rules")),
    }
    (!named.is_empty()).then(|| named.join(separator))
}

/// Logs requests without a decision: one line each, or one line per second during a flood of those that end alike. Callers need no
/// credentials to cause them.
#[derive(Debug, Default)]
pub(crate) struct RequestLog {
    /// By code.
    rejected: Mutex<HashMap<i32, Flood>>,
    abandoned: Flood,
    not_forwarded: Flood,
}

impl RequestLog {
    /// `status` is that of the response, `callback` the name in the request line, if it has one.
    pub(crate) fn rejected(
        &self,
        rejection: &Rejection,
        status: StatusCode,
        callback: Option<&str>,
        peer: SocketAddr,
    ) {
        // Overload is summarised in a line per second.
        if *rejection == Rejection::Overloaded {
            return;
        }
        let (status, code) = (status.as_u16(), rejection.code());
        let line = || {
            let message = rejection.message();
            info!(
                status,
                code, callback, %peer, "rejected: {message}: {rejection}"
            );
        };
        let rest = move |requests| {
            warn!(
                code,
                requests, "more requests with this code were rejected in the last second"
            );
        };
        let mut rejected = self.rejected.lock();
        rejected.entry(code).or_default().count(line, rest);
    }

    /// A callback was not forwarded to the upstream backend.
    pub(crate) fn not_forwarded(&self, error: &UpstreamError) {
        // It is counted as a rejection.
        if matches!(error, UpstreamError::Overloaded) {
            return;
        }
        let line = || warn!("{error}; the callback is refused: check IMPORTGUARD_UPSTREAM");
        self.not_forwarded.count(line, |requests| {
            warn!(
                requests,
                "more callbacks were not forwarded in the last second: check IMPORTGUARD_UPSTREAM"
            );
        });
    }

    /// The response was not delivered.
    pub(crate) fn abandoned(&self, clock: Clock, peer: SocketAddr) {
        let line = || {
            info!(
                micros = micros(clock),
                %peer,
                "abandoned: the caller disconnected before the response or did not read it in time, or the gateway closed the connection to stay within its limits or to stop"
            );
        };
        self.abandoned.count(line, |requests| {
            warn!(requests, "more requests were abandoned in the last second");
        });
    }
}

/// No decider gave a verdict.
pub(crate) fn undecided(error: &DecideError, answer: OnFailure) {
    warn!(
        cause = error.cause().into_str(),
        fallback = name(answer),
        "{error}; applied the fallback for this cause: {}",
        match error {
            DecideError::Unavailable { .. } =>
                "check that a decider is running and ready, and check IMPORTGUARD_DECIDER_URL",
            DecideError::Timeout(_) =>
                "check the deciders' CPU (importguard_decider_evaluation_seconds), or raise IMPORTGUARD_DECIDER_TIMEOUT",
            DecideError::Overloaded(_) => "run more deciders, or give them more CPU",
            DecideError::Saturated(_) =>
                "run more gateways, and check importguard_rejections_total for callers that flood this one",
            DecideError::Failed(_) =>
                "check the decider's log, and that gateway and decider have the same version",
        }
    );
}

/// Neither NATS nor the spool has recorded a callback's event.
pub(crate) fn unrecorded(error: &RecordError, answer: OnFailure) {
    let (fallback, effect) = match answer {
        OnFailure::Refuse => (Some(name(answer)), "the callback was refused"),
        OnFailure::Allow => (None, "the response was sent without an event"),
    };
    error!(
        cause = Cause::Unrecordable.into_str(),
        fallback,
        "{error}; {effect}: {}",
        match error {
            RecordError::SpoolFull { .. } => "restore NATS, or raise IMPORTGUARD_SPOOL_MAX_BYTES",
            RecordError::ParkedFull { .. } =>
                "correct the stream's settings or the permissions, as recorder.parked in /readyz says",
            RecordError::TooLate =>
                "restore NATS, and check whether the spool's disk is slow or busy",
            RecordError::NoTime =>
                "the gateway, NATS or the spool's disk is overloaded: run more gateways, or raise IMPORTGUARD_REQUEST_BUDGET",
            RecordError::SpoolBroken(_) =>
                "restore NATS, and check the disk and the permissions of IMPORTGUARD_SPOOL",
            RecordError::Closed =>
                "the gateway is shutting down; if that is unexpected, see earlier log lines",
        }
    );
}

fn micros(clock: Clock) -> u64 {
    u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn name(answer: OnFailure) -> &'static str {
    match answer {
        OnFailure::Refuse => "refuse",
        OnFailure::Allow => "allow",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_beyond_those_that_a_line_names_are_counted() {
        let listed = |count| listed((0..count).map(|number| format!("r{number}")), ", ");
        assert_eq!(listed(0), None);
        assert_eq!(listed(5).as_deref(), Some("r0, r1, r2, r3, r4"));
        assert!(listed(6).is_some_and(|text| text.ends_with(", r4, 1 more rule")));
        let more = listed(7);
        assert_eq!(more.as_deref(), Some("r0, r1, r2, r3, r4, 2 more rules"));
    }
}
