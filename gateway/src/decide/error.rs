use std::{error::Error as _, time::Duration};

use importguard_core::Cause;
use importguard_runtime::whole_text;
use tonic::{Code, Status, TimeoutExpired};

/// Why no decider returned a verdict.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// No decider could be reached, or the connection broke.
    #[error("no decider is reachable: {0}")]
    Unavailable(String),
    /// No response within this time.
    #[error("the decider did not respond within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The response was an error, or had no verdict.
    #[error("the decider failed: {0}")]
    Failed(String),
}

impl DecideError {
    /// The fallback's cause.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Unavailable(_) => Cause::DeciderUnavailable,
            Self::Timeout(_) => Cause::DeciderTimeout,
            Self::Failed(_) => Cause::DeciderFailed,
        }
    }

    /// The error for the `status` of a call with the timeout `within`.
    ///
    /// tonic reports a broken connection as `Unknown` or, like an expired deadline, as `Cancelled`; their sources differ. A status that
    /// the decider itself sent has no source.
    pub(super) fn from_status(status: &Status, within: Duration) -> Self {
        let sources = || std::iter::successors(status.source(), |error| (*error).source());
        let deadline = || sources().any(|error| error.is::<TimeoutExpired>());
        let broken = || sources().next().is_some();
        match status.code() {
            Code::DeadlineExceeded => Self::Timeout(within),
            Code::Cancelled if deadline() || !broken() => Self::Timeout(within),
            Code::Unavailable => Self::Unavailable(text(status)),
            _ if broken() => Self::Unavailable(text(status)),
            code => Self::Failed(format!("{}: {}", code_name(code), status.message())),
        }
    }
}

/// Whether a connection was made, and then broke: not by HTTP/2's rules, as by a peer that expects TLS.
pub(super) fn broke(status: &Status) -> bool {
    let mut sources = std::iter::successors(status.source(), |error| (*error).source());
    sources.any(|error| error.is::<hyper::Error>())
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
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
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
