//! Usage errors.

use std::{fmt::Display, process::ExitCode};

use crate::output::report;

/// The exit code of usage errors, as clap's own.
pub(crate) const USAGE: u8 = 2;

/// Prints a usage error, and returns its exit code.
pub(crate) fn usage_error(error: impl Display) -> ExitCode {
    report(format_args!("error: {error}"));
    ExitCode::from(USAGE)
}
