//! Why no decider returned a verdict, and the operator's answer for that cause.

use std::{error::Error, time::Duration};

use clap::{Args, ValueEnum};
use h2::Reason;
use heck::ToShoutySnakeCase;
use importguard_core::{Cause, Decision, Refusal, Verdict};
use importguard_runtime::whole_text;
use tonic::{Code, ConnectError, Status, TimeoutExpired};

/// Why no decider returned a verdict.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// No decider could be reached, or the connection broke.
    #[error("no decider is reachable: {why}")]
    Unavailable {
        /// What happened.
        why: String,
        /// Whether a decider may have processed the request, or be doing so.
        may_be_processed: bool,
    },
    /// No response within this time.
    #[error("the decider did not respond within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The decider had no capacity because of other calls.
    #[error("the decider is overloaded: {0}")]
    Overloaded(String),
    /// This gateway had no time for a response within this time, because of what its callers sent.
    #[error("this gateway was too busy to receive a verdict within {}", humantime::format_duration(*.0))]
    Saturated(Duration),
    /// The response was an error, or had no verdict.
    #[error("the decider failed: {0}")]
    Failed(String),
}

impl DecideError {
    /// The fallback's cause.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Unavailable { .. } => Cause::DeciderUnavailable,
            Self::Timeout(_) => Cause::DeciderTimeout,
            Self::Overloaded(_) | Self::Saturated(_) => Cause::Overloaded,
            Self::Failed(_) => Cause::DeciderFailed,
        }
    }

    /// The error for the `status` of a call with the timeout `within`.
    ///
    /// tonic reports a broken connection as `Unknown` or, like an expired deadline, as `Cancelled`; their sources differ. A status that
    /// the decider itself sent has no source.
    pub(super) fn from_status(status: &Status, within: Duration) -> Self {
        let deadline = || sources(status).any(|error| error.is::<TimeoutExpired>());
        let broken = status.source().is_some();
        match status.code() {
            Code::DeadlineExceeded => Self::Timeout(within),
            Code::Cancelled if deadline() || !broken => Self::Timeout(within),
            code if broken || code == Code::Unavailable => Self::Unavailable {
                why: text(status),
                may_be_processed: broken && !sources(status).any(is_before_processing),
            },
            Code::ResourceExhausted => Self::Overloaded(status.message().to_owned()),
            code => Self::Failed(format!("{}: {}", code_name(code), status.message())),
        }
    }
}

/// Whether a connection was made, and then broke: not by HTTP/2's rules, as by a peer that expects TLS.
pub(super) fn broke(status: &Status) -> bool {
    sources(status).any(|error| error.is::<hyper::Error>())
}

/// Whether a call failed before its decider processed any of it: there was no connection, it ended before the request was sent, or the
/// decider refused the request (RFC 9113, section 8.7). What h2 reports where a connection ends during a call is another error.
fn is_before_processing(error: &(dyn Error + 'static)) -> bool {
    let is_refusal = |error: &h2::Error| {
        error.is_remote()
            && match error.is_go_away() {
                true => error.reason() == Some(Reason::NO_ERROR),
                false => error.reason() == Some(Reason::REFUSED_STREAM),
            }
    };
    error.is::<ConnectError>()
        || error.downcast_ref().is_some_and(hyper::Error::is_canceled)
        || error.downcast_ref().is_some_and(is_refusal)
}

fn sources(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |error| (*error).source())
}

/// The status's message with its sources: tonic's own message is only "transport error".
fn text(status: &Status) -> String {
    match status.source() {
        Some(source) => whole_text(source),
        None => status.message().to_owned(),
    }
}

/// The code in the spelling of gRPC's specification: `DEADLINE_EXCEEDED` for `DeadlineExceeded`.
pub(super) fn code_name(code: Code) -> String {
    format!("{code:?}").to_shouty_snake_case()
}

/// The answer when no decision is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFailure {
    /// Refuse the import, with the reason
    Refuse,
    /// Allow the import
    Allow,
}

/// The fallback for each cause.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Fallbacks (when no decision is available)")]
pub struct FallbackSettings {
    /// Answer when no decider can be reached (5910)
    #[arg(
        long,
        env = "IMPORTGUARD_ON_DECIDER_UNAVAILABLE",
        value_name = "ANSWER",
        default_value = "refuse"
    )]
    pub on_decider_unavailable: OnFailure,

    /// Answer when no decider responds in time (5911)
    #[arg(
        long,
        env = "IMPORTGUARD_ON_DECIDER_TIMEOUT",
        value_name = "ANSWER",
        default_value = "refuse"
    )]
    pub on_decider_timeout: OnFailure,

    /// Answer when a decider returns an error (5912)
    #[arg(
        long,
        env = "IMPORTGUARD_ON_DECIDER_ERROR",
        value_name = "ANSWER",
        default_value = "refuse"
    )]
    pub on_decider_error: OnFailure,

    /// Answer when a callback cannot be processed in time because of others, by the gateway or by a decider (5913). Callers can cause
    /// that by sending many at once. With `allow`, callbacks that the gateway cannot process beyond IMPORTGUARD_OVERLOAD_EVENTS per second are not recorded, so
    /// IMPORTGUARD_ON_UNRECORDABLE decides those
    #[arg(
        long,
        env = "IMPORTGUARD_ON_OVERLOAD",
        value_name = "ANSWER",
        default_value = "refuse"
    )]
    pub on_overload: OnFailure,

    /// Answer when neither NATS nor the spool can store the decision (5914). With `allow`, the verdict is returned unrecorded
    #[arg(
        long,
        env = "IMPORTGUARD_ON_UNRECORDABLE",
        value_name = "ANSWER",
        default_value = "refuse"
    )]
    pub on_unrecordable: OnFailure,
}

/// The decision for `cause` if the operator's setting is `answer`.
pub(crate) fn fallback(cause: Cause, answer: OnFailure) -> Decision {
    let verdict = match answer {
        OnFailure::Allow => Verdict::Allow,
        OnFailure::Refuse => Verdict::Refuse(refusal(cause)),
    };
    Decision::Fallback { verdict, cause }
}

/// The refusal in the response to OpenIM.
fn refusal(cause: Cause) -> Refusal {
    let (code, message) = code_and_message(cause);
    let detail = match cause {
        Cause::Unrecordable => {
            "The decision could not be recorded, so the import was refused; try again later"
        }
        _ => "The import could not be checked, so it was refused; try again later",
    };
    Refusal {
        rule: None,
        code,
        message: message.to_owned(),
        detail: detail.to_owned(),
    }
}

/// The code of the cause, and a short description.
pub(crate) fn code_and_message(cause: Cause) -> (i32, &'static str) {
    match cause {
        Cause::DeciderUnavailable => (5910, "decider unavailable"),
        Cause::DeciderTimeout => (5911, "decider timed out"),
        Cause::DeciderFailed => (5912, "decider failed"),
        Cause::Overloaded => (5913, "overloaded"),
        Cause::Unrecordable => (5914, "decision cannot be recorded"),
    }
}

impl FallbackSettings {
    /// The setting for `cause`.
    pub fn on(&self, cause: Cause) -> OnFailure {
        self.named(cause).1
    }

    /// The setting for `cause`, after the name of its variable.
    pub(crate) fn named(&self, cause: Cause) -> (&'static str, OnFailure) {
        match cause {
            Cause::DeciderUnavailable => (
                "IMPORTGUARD_ON_DECIDER_UNAVAILABLE",
                self.on_decider_unavailable,
            ),
            Cause::DeciderTimeout => ("IMPORTGUARD_ON_DECIDER_TIMEOUT", self.on_decider_timeout),
            Cause::DeciderFailed => ("IMPORTGUARD_ON_DECIDER_ERROR", self.on_decider_error),
            Cause::Overloaded => ("IMPORTGUARD_ON_OVERLOAD", self.on_overload),
            Cause::Unrecordable => ("IMPORTGUARD_ON_UNRECORDABLE", self.on_unrecordable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_spelling_of_grpcs_specification() {
        let names = [Code::Ok, Code::Cancelled, Code::DeadlineExceeded].map(code_name);
        assert_eq!(names, ["OK", "CANCELLED", "DEADLINE_EXCEEDED"]);
    }
}
