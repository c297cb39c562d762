//! The log lines of a callback: one for what became of it, and one more for each thing that went wrong on the way.

use importguard_proto::event::Cause;
use tracing::{error, info, warn};

use super::Clock;
use crate::{
    callback::{ImportRequest, Rejection},
    decide::{DecideError, Decision, OnFailure, Verdict},
    record::Unrecordable,
};

/// One line per decision.
pub(super) fn decided(request: &ImportRequest, decision: &Decision, clock: Clock) {
    let cause = decision.source.cause();
    let refusal = match &decision.verdict {
        Verdict::Refuse(refusal) => Some(refusal),
        Verdict::Allow | Verdict::Modify(_) => None,
    };
    let kept = match &decision.verdict {
        Verdict::Allow => request.friends.len(),
        Verdict::Refuse(_) => 0,
        Verdict::Modify(kept) => kept.indexes().len(),
    };
    info!(
        verdict = decision.verdict.name(),
        cause = cause.map(Cause::as_str),
        rule = refusal.and_then(|refusal| refusal.rule.as_deref()),
        code = refusal.map(|refusal| refusal.code),
        friends = request.friends.len(),
        kept,
        micros = micros(clock),
        "decided"
    );
}

/// One line per request that was not decided upon.
pub(super) fn rejected(rejection: &Rejection) {
    let reason = &rejection.reason;
    info!(
        status = reason.status().as_u16(),
        code = reason.code(),
        "rejected: {}: {reason}",
        reason.message()
    );
}

/// Nobody was there any more to be answered.
pub(super) fn abandoned(clock: Clock) {
    info!(
        micros = micros(clock),
        "abandoned: the caller hung up before it was answered, or this gateway was ended"
    );
}

/// No decider gave a verdict.
pub(super) fn undecided(error: &DecideError, chosen: OnFailure) {
    let cause = error.cause();
    warn!(
        cause = cause.as_str(),
        fallback = name(chosen),
        "{error}; the import was answered by the fallback for this cause: {}",
        what_to_do(cause)
    );
}

/// The event of a callback is recorded nowhere.
pub(super) fn unrecorded(error: &Unrecordable, chosen: OnFailure) {
    let (fallback, so) = match chosen {
        OnFailure::Refuse => (Some(name(chosen)), "the callback was refused"),
        OnFailure::Allow => (None, "the callback's answer stands without an event"),
    };
    error!(
        cause = Cause::Unrecordable.as_str(),
        fallback,
        "{error}; {so}: {}",
        match error {
            Unrecordable::SpoolFull { .. } =>
                "bring NATS back, or give the spool more room with IMPORTGUARD_SPOOL_MAX_BYTES and on its disk",
            Unrecordable::TooLate =>
                "bring NATS back, and see whether the spool's disk is slow or busy",
            Unrecordable::SpoolBroken(_) =>
                "bring NATS back, and check the disk and the permissions of IMPORTGUARD_SPOOL",
            Unrecordable::Closed =>
                "this gateway is ending; if nobody told it to, an earlier line says why",
        }
    );
}

fn what_to_do(cause: Cause) -> &'static str {
    match cause {
        Cause::DeciderUnavailable => {
            "see whether a decider runs and is ready, and whether IMPORTGUARD_DECIDER_URL names it"
        }
        Cause::DeciderTimeout => {
            "see whether the deciders have enough processor time (importguard_decider_evaluation_seconds), or raise IMPORTGUARD_DECIDER_TIMEOUT"
        }
        Cause::DeciderFailed => {
            "see the decider's log, and whether gateway and decider are of one version"
        }
        Cause::Overloaded => "run more gateways, or raise IMPORTGUARD_MAX_IN_FLIGHT",
        Cause::Unrecordable => "check NATS and IMPORTGUARD_SPOOL",
    }
}

fn micros(clock: Clock) -> u64 {
    u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn name(chosen: OnFailure) -> &'static str {
    match chosen {
        OnFailure::Refuse => "refuse",
        OnFailure::Allow => "allow",
    }
}
