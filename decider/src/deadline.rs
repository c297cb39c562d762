//! Deadlines of calls.

use std::time::{Duration, Instant};

use tonic::codegen::http::HeaderMap;

/// How long before the caller's deadline an evaluation stops, so that the caller still receives a status: a tenth of the timeout, but at
/// most this, which is how long an evaluation may take to notice.
const MARGIN: Duration = Duration::from_millis(10);

/// The maximum timeout of a call, small enough that adding it to an instant cannot overflow.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The time at which a call must end, its message's arrival included: a little before its caller's deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(pub(crate) Instant);

impl Deadline {
    /// That of a call that has just arrived with these `headers`. `max_timeout` is the timeout of calls without a deadline, and the
    /// maximum for others.
    pub(crate) fn of(headers: &HeaderMap, max_timeout: Duration) -> Self {
        let requested = headers
            .get("grpc-timeout")
            .and_then(|timeout| timeout.to_str().ok());
        let timeout = requested.and_then(parse_timeout).unwrap_or(max_timeout);
        Self(Instant::now() + with_margin(timeout.min(max_timeout).min(MAX_TIMEOUT)))
    }
}

/// The time within which a call with this timeout has to end, so that its caller still receives a status.
fn with_margin(timeout: Duration) -> Duration {
    timeout.saturating_sub((timeout / 10).min(MARGIN))
}

/// A `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Requests").
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_timeout_is_read_as_grpc_has_it() {
        for (text, millis) in [
            ("2H", 7_200_000),
            ("3M", 180_000),
            ("4S", 4000),
            ("500m", 500),
            ("6000u", 6),
            ("7000000n", 7),
            ("99999999H", 359_999_996_400_000),
        ] {
            assert_eq!(
                parse_timeout(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "S",
            "5",
            "5s",
            "-5S",
            "+5S",
            "123456789S",
            "5 S",
            "ü",
            "5ü",
        ] {
            assert_eq!(parse_timeout(text), None, "{text}");
        }
    }

    #[test]
    fn a_deadline_is_a_little_before_the_callers_and_never_after_our_own() {
        for (timeout, expected) in [
            (Some("500000u"), 490),
            (Some("50m"), 45),
            (Some("1H"), 4990),
            (None, 4990),
            (Some("soon"), 4990),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(timeout) = timeout {
                headers.insert("grpc-timeout", timeout.parse().unwrap());
            }
            let began = Instant::now();
            let after = Deadline::of(&headers, Duration::from_secs(5)).0 - began;
            assert!(
                after >= Duration::from_millis(expected),
                "{timeout:?}: {after:?}"
            );
            assert!(
                after < Duration::from_millis(expected + 1000),
                "{timeout:?}: {after:?}"
            );
        }
    }
}
