//! Times on the command line: absolute ones, in the local zone unless they have one, and durations before now.

use std::time::SystemTime;

use chrono::{
    DateTime, Days, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat,
    TimeZone, Utc,
};
use importguard_runtime::settings::any_duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The time of day for a date without one.
const MIDNIGHT: &str = "00:00";

/// Why a text is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TimeError {
    /// Its format is not supported.
    #[error(
        "not a time; write a duration before now such as 30s, 1h or 7d, or a time such as 2026-11-27T14:00, \
         \"2026-11-27 14:05:30 +01:00\", 2026-11-27T14:00Z, 14:05, today, yesterday or \"yesterday 14:05\""
    )]
    Form,
    /// It does not exist, because clocks were set forward over it.
    #[error(
        "no such time in the local time zone: clocks were set forward; add an offset such as +01:00"
    )]
    Skipped,
    /// It is in the future, where no event is.
    #[error("this time is in the future: now it is {0}")]
    Future(String),
}

/// Parses a time. Without an offset it is in the local zone (`TZ`, or the system's); a duration is subtracted from now. Times before
/// 1970 become 1970.
pub(crate) fn time(text: &str) -> Result<SystemTime, TimeError> {
    let time = parse(text, &Local, Utc::now())?;
    Ok(SystemTime::from(time).max(SystemTime::UNIX_EPOCH))
}

/// Parses a time that is not in the future.
pub(crate) fn past(text: &str) -> Result<SystemTime, TimeError> {
    let (time, now) = (time(text)?, SystemTime::now());
    match time > now {
        true => Err(TimeError::Future(rfc3339(now))),
        false => Ok(time),
    }
}

/// `time` in UTC, to the second.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `time` with the fraction of its second, if it has one.
pub(crate) fn exact_rfc3339(time: OffsetDateTime) -> String {
    // Fails only for years beyond 9999.
    time.format(&Rfc3339).unwrap_or_default()
}

fn parse<Z: TimeZone>(
    text: &str,
    zone: &Z,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, TimeError> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    if let Ok(before) = any_duration(text) {
        let before = chrono::Duration::from_std(before).ok();
        let time = before.and_then(|before| now.checked_sub_signed(before));
        return Ok(time.unwrap_or(DateTime::UNIX_EPOCH));
    }
    let (day, rest) = match text.split_once(['T', ' ']) {
        Some(parts) => parts,
        None if text.contains(':') => ("today", text),
        None => (text, MIDNIGHT),
    };
    let (clock, offset) = offset(rest.trim());
    let offset = offset.map(str::trim).map(parse_offset).transpose()?;
    let today = match &offset {
        Some(offset) => now.with_timezone(offset).date_naive(),
        None => now.with_timezone(zone).date_naive(),
    };
    let day = match day {
        "today" => Some(today),
        "yesterday" => today.checked_sub_days(Days::new(1)),
        date => NaiveDate::parse_from_str(date, "%Y-%m-%d").ok(),
    };
    let clock = ["%H:%M", "%H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveTime::parse_from_str(clock.trim(), format).ok());
    let local = day
        .ok_or(TimeError::Form)?
        .and_time(clock.ok_or(TimeError::Form)?);
    let time = match &offset {
        Some(offset) => first(offset, &local),
        None => first(zone, &local),
    };
    time.ok_or(TimeError::Skipped)
}

/// The first moment at which it is `local` in `zone`: clocks that are set back repeat an hour. Which of the two chrono calls the earliest
/// depends on the zone.
fn first<Z: TimeZone>(zone: &Z, local: &NaiveDateTime) -> Option<DateTime<Utc>> {
    let found = zone
        .from_local_datetime(local)
        .map(|moment| moment.to_utc());
    found.earliest().min(found.latest())
}

/// The time of day, and the offset if there is one.
fn offset(text: &str) -> (&str, Option<&str>) {
    match text.find(|c: char| matches!(c, '+' | '-') || c.is_ascii_alphabetic()) {
        Some(at) => (&text[..at], Some(&text[at..])),
        None => (text, None),
    }
}

fn parse_offset(text: &str) -> Result<FixedOffset, TimeError> {
    match text {
        "Z" | "z" | "UTC" => "+00:00",
        offset => offset,
    }
    .parse()
    .map_err(|_| TimeError::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, TimeError> {
        let zone: FixedOffset = "+02:00".parse().unwrap();
        let now = "2026-11-28T23:30:00Z".parse().unwrap();
        let time = parse(text, &zone, now)?;
        Ok(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }

    #[test]
    fn a_time_is_a_duration_before_now_or_local_or_has_an_offset() {
        for (text, expected) in [
            ("now", "2026-11-28T23:30:00Z"),
            ("90m", "2026-11-28T22:00:00Z"),
            ("0s", "2026-11-28T23:30:00Z"),
            ("999999y", "1970-01-01T00:00:00Z"),
            // It is the 29th already, two hours east.
            ("today", "2026-11-28T22:00:00Z"),
            ("yesterday", "2026-11-27T22:00:00Z"),
            ("yesterday 14:05", "2026-11-28T12:05:00Z"),
            ("today 14:05 UTC", "2026-11-28T14:05:00Z"),
            ("14:05", "2026-11-29T12:05:00Z"),
            ("2026-11-27", "2026-11-26T22:00:00Z"),
            ("2026-11-27T14:00", "2026-11-27T12:00:00Z"),
            ("2026-11-27 14:05:30", "2026-11-27T12:05:30Z"),
            ("2026-11-27 14:05 +01:00", "2026-11-27T13:05:00Z"),
            ("2026-11-27T14:05-0330", "2026-11-27T17:35:00Z"),
            ("2026-11-27T14:05:30.5Z", "2026-11-27T14:05:30.500Z"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_time_is_an_error_with_examples() {
        for text in [
            "",
            "soon",
            "tomorrow",
            "2026-13-01",
            "2026-11-27T",
            "2026-11-27T25:00",
            "27.11.2026",
            "2026-11-27T14:00 Mars",
            "2026-11-27 Z",
            "ä",
            "1h ago",
        ] {
            let error = parsed(text).err();
            assert_eq!(error, Some(TimeError::Form), "{text}");
        }
        assert!(TimeError::Form.to_string().contains("yesterday 14:05"));
    }
}
