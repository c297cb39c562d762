use std::{
    env,
    time::{Duration, SystemTime},
};

use clap::Args;
use importguard_core::EventId;
use importguard_lists::{Addition, Author, Reason};
use importguard_runtime::settings::any_duration;
use time::OffsetDateTime;

use super::UsageError;
use crate::events::{TimeError, time};

/// Environment variables that contain the name of the user who is logged in.
const LOGIN: [&str; 2] = ["USER", "LOGNAME"];

/// Who changes a list, and why.
#[derive(Args)]
pub(super) struct Who {
    /// Who changes the list, for the record: up to 256 bytes [default: $USER or $LOGNAME]
    #[arg(long, env = "IMPORTGUARD_LIST_BY", value_name = "NAME")]
    by: Option<Author>,

    /// Why, for the record, events and support: up to 256 bytes
    #[arg(long, value_name = "TEXT")]
    because: Option<Reason>,
}

/// Until when an entry counts.
#[derive(Args)]
pub(super) struct Until {
    /// How long the entry counts, such as 30m, 12h or 7d [default: for ever]
    #[arg(long = "for", value_name = "DURATION", value_parser = seconds, conflicts_with = "until")]
    duration: Option<Duration>,

    /// Until when the entry counts, for example 2026-12-24T18:00 or "2026-12-24 18:00 +01:00"
    #[arg(long, value_name = "TIME", value_parser = future)]
    until: Option<SystemTime>,
}

fn future(text: &str) -> Result<SystemTime, String> {
    let time = time(text).map_err(|error| match error {
        TimeError::Form => "not a time; write for example 2026-12-24T18:00, \"2026-12-24 18:00 +01:00\" or 18:00; for a duration from now use --for".to_owned(),
        error => error.to_string(),
    })?;
    match time > SystemTime::now() {
        true => Ok(time),
        false => Err("that is past; for a duration from now use --for".to_owned()),
    }
}

fn too_long() -> anyhow::Error {
    UsageError("--for: too long; leave it out for an entry without an end".to_owned()).into()
}

/// Parses a duration of at least one second: entries expire at whole seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = any_duration(text)
        .map_err(|_| "use a number and a unit, for example 30m, 12h or 7d".to_owned())?;
    match parsed < Duration::from_secs(1) {
        true => Err("must be at least 1s".to_owned()),
        false => Ok(parsed),
    }
}

impl Who {
    /// Returns the entry to write, with the current time.
    ///
    /// # Errors
    /// If neither an option nor the environment names an author.
    pub(super) fn addition(&self, until: Option<OffsetDateTime>) -> anyhow::Result<Addition> {
        Ok(Addition {
            by: self.author()?,
            reason: self.because.clone(),
            at: OffsetDateTime::now_utc(),
            until,
            removed: false,
            event: EventId::new(),
        })
    }

    fn author(&self) -> anyhow::Result<Author> {
        let logged_in = || {
            LOGIN
                .iter()
                .find_map(|name| Author::parse(&env::var(name).ok()?).ok())
        };
        match self.by.clone().or_else(logged_in) {
            Some(author) => Ok(author),
            None => {
                let error = "who changes the list? Set --by or IMPORTGUARD_LIST_BY";
                Err(UsageError(error.to_owned()).into())
            }
        }
    }
}

impl Until {
    /// Whether the end depends on when the command runs.
    pub(super) const fn is_relative(&self) -> bool {
        self.duration.is_some()
    }

    /// Returns the time in whole seconds; `None` for ever.
    ///
    /// # Errors
    /// If it is beyond the year 9999.
    pub(super) fn time(&self) -> anyhow::Result<Option<OffsetDateTime>> {
        let until = match self.duration {
            Some(duration) => {
                let until = SystemTime::now().checked_add(duration);
                Some(until.ok_or_else(too_long)?)
            }
            None => self.until,
        };
        let Some(until) = until else {
            return Ok(None);
        };
        let since_1970 = until.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = i64::try_from(since_1970.unwrap_or_default().as_secs())?;
        let until = OffsetDateTime::from_unix_timestamp(seconds);
        until.map(Some).map_err(|_| too_long())
    }
}
