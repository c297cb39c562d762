//! Parsers of settings: durations, sizes, counts and addresses. An error says what to write instead.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, time::Duration};

/// The shortest useful interval or timeout; zero would be a busy loop, or a timeout that always expires.
const SHORTEST: Duration = Duration::from_millis(1);

/// The longest interval or timeout, a year as humantime reads it: far later times cannot be represented.
const LONGEST: Duration = Duration::from_secs(31_557_600);

/// An invalid value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingError {
    /// It is not a duration.
    #[error("{0}; write for example 250ms, 5s or 2m")]
    Duration(humantime::DurationError),
    /// It is shorter than a millisecond.
    #[error("must be at least 1ms; write for example 250ms, 5s or 2m")]
    TooShort,
    /// It is not a number of bytes.
    #[error(
        "not a size; write an integer with KiB, MiB, GiB or TiB, for example 64MiB, or a number of bytes"
    )]
    Size,
    /// It is not a number.
    #[error("not a number; write an integer, for example 100")]
    Count,
    /// It is not the address of a listener.
    #[error(
        "not an IP address with a port; write for example 127.0.0.1:8080, or [::]:8080 for all interfaces"
    )]
    Address,
    /// It is below the smallest value.
    #[error("must be at least {0}")]
    TooSmall(String),
    /// It is above the largest value.
    #[error("must be at most {0}")]
    TooLarge(String),
}

/// Parses an interval or a timeout, such as `250ms` or `1h 30m`: at least a millisecond, at most a year.
pub fn duration(text: &str) -> Result<Duration, SettingError> {
    match duration_or_zero(text) {
        Ok(duration) if duration < SHORTEST => Err(SettingError::TooShort),
        parsed => parsed,
    }
}

/// Parses a duration of at most a year, such as `30s`, or `0s` where that has a meaning of its own.
pub fn duration_or_zero(text: &str) -> Result<Duration, SettingError> {
    match any_duration(text) {
        Ok(duration) if duration > LONGEST => Err(SettingError::TooLarge("1y".to_owned())),
        parsed => parsed,
    }
}

/// Parses how long something is kept, such as `30d`: at most 100 years, which NATS can represent in nanoseconds. `0s` is for ever.
pub fn retention(text: &str) -> Result<Duration, SettingError> {
    match any_duration(text) {
        Ok(duration) if duration > LONGEST * 100 => {
            Err(SettingError::TooLarge("100y; 0s is for ever".to_owned()))
        }
        parsed => parsed,
    }
}

/// Parses a duration of any length.
pub fn any_duration(text: &str) -> Result<Duration, SettingError> {
    humantime::parse_duration(text).map_err(SettingError::Duration)
}

/// Parses the address of a listener, such as `127.0.0.1:8080` or `[::]:8080`.
pub fn address(text: &str) -> Result<SocketAddr, SettingError> {
    text.trim().parse().map_err(|_| SettingError::Address)
}

/// A parser of sizes in bytes, such as `64MiB` or `1048576`, within `range`.
pub fn size<T>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, SettingError> + Clone
where
    T: TryFrom<u64>,
{
    move |text| {
        let bytes = bytes(text).ok_or(SettingError::Size)?;
        within(bytes, &range, |bound| Size(bound).to_string())
    }
}

/// A parser of counts within `range`.
pub fn count<T>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, SettingError> + Clone
where
    T: TryFrom<u64>,
{
    move |text| {
        let count = text.trim().parse().map_err(|_| SettingError::Count)?;
        within(count, &range, |bound| bound.to_string())
    }
}

fn within<T: TryFrom<u64>>(
    value: u64,
    range: &RangeInclusive<u64>,
    shown: impl Fn(u64) -> String,
) -> Result<T, SettingError> {
    if value < *range.start() {
        return Err(SettingError::TooSmall(shown(*range.start())));
    }
    let too_large = || SettingError::TooLarge(shown(*range.end()));
    match T::try_from(value) {
        Ok(fits) if value <= *range.end() => Ok(fits),
        _ => Err(too_large()),
    }
}

/// The units, largest first, with the power of two that each stands for.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(unit.unwrap_or(text.len()));
    let shift = match unit.trim() {
        "" | "B" => 0,
        unit => {
            UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))?
                .1
        }
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A size in the notation of settings: in the largest unit that divides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .find(|(_, shift)| self.0 >= 1 << shift && self.0.trailing_zeros() >= *shift);
        match unit {
            Some((name, shift)) => write!(f, "{}{name}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_of_bytes_with_or_without_a_unit() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("10B", Some(10)),
            ("64KiB", Some(64 << 10)),
            ("64 MiB", Some(64 << 20)),
            ("1gib", Some(1 << 30)),
            ("2TiB", Some(2 << 40)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("64MB", None),
            ("64M", None),
            ("99999999TiB", None),
        ] {
            let parsed = size::<u64>(0..=u64::MAX)(text);
            assert_eq!(parsed.ok(), expected, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_bound_that_the_value_breaks() {
        let error = |text| {
            size::<usize>(2 << 20..=1 << 30)(text)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(error("131072"), "must be at least 2MiB");
        assert_eq!(error("2GiB"), "must be at most 1GiB");
        assert_eq!(
            size::<u32>(1..=u64::MAX)("4GiB").unwrap_err().to_string(),
            "must be at most 18446744073709551615 bytes"
        );
        let error = count::<u16>(1..=100)("0").unwrap_err();
        assert_eq!(error.to_string(), "must be at least 1");
        assert_eq!(count::<u16>(1..=100)("100"), Ok(100));
    }

    #[test]
    fn an_interval_is_at_least_a_millisecond() {
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(90 * 60)));
        for text in ["0s", "0", "999us"] {
            assert_eq!(duration(text), Err(SettingError::TooShort), "{text}");
        }
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("1y"), Ok(LONGEST));
        for too_long in ["1y 1s", "300000000000y"] {
            for error in [duration(too_long), duration_or_zero(too_long)] {
                assert_eq!(error.unwrap_err().to_string(), "must be at most 1y");
            }
        }
        assert_eq!(retention("100y"), Ok(LONGEST * 100));
        let error = retention("100y 1s").unwrap_err().to_string();
        assert!(error.starts_with("must be at most 100y"), "{error}");
        for error in [duration("5"), duration_or_zero("foo")] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("for example 250ms"), "{error}");
        }
    }

    #[test]
    fn an_address_has_an_ip_address_and_a_port() {
        assert_eq!(
            address("[::1]:80"),
            Ok(([0, 0, 0, 0, 0, 0, 0, 1], 80).into())
        );
        for text in ["8080", ":8080", "localhost:8080", "127.0.0.1"] {
            let error = address(text).unwrap_err().to_string();
            assert!(error.contains("[::]:8080"), "{error}");
        }
    }
}
