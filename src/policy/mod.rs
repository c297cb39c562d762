//! `importguard policy …`: what an operator does with a policy before it decides on anything. Exit codes: 0 good, 1 findings,
//! 2 usage.

mod check;
mod explain;
mod test;

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use importguard_decider::policy::DEFAULT_MAX_FRIENDS;

/// Exit code for what was found wrong with a policy or by its tests.
const FINDINGS: u8 = 1;
/// Exit code for a command that cannot be carried out as it was given; clap's own too.
const USAGE: u8 = 2;

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Tell every mistake in a policy and its lists, with its place and what to write instead
    Check(check::Check),
    /// Run the tests that stand next to a policy in files named *.test.yaml
    Test(test::Test),
    /// Tell, rule by rule, what a policy makes of one import and why
    Explain(explain::Explain),
}

/// For which imports a policy is to be good.
#[derive(Args)]
pub(crate) struct LargestImport {
    /// How many friends the largest import has: what a policy may cost goes by it. The deciders' own setting
    #[arg(
        long = "max-friends",
        env = "IMPORTGUARD_DECIDER_MAX_FRIENDS",
        value_name = "COUNT",
        default_value_t = DEFAULT_MAX_FRIENDS
    )]
    max_friends: usize,
}

impl PolicyCommand {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Check(check) => check.run(),
            Self::Test(test) => test.run(),
            Self::Explain(explain) => explain.run(),
        }
    }
}

/// A command that cannot be carried out as it was given.
fn usage(error: impl Display) -> ExitCode {
    // Where standard error is closed, nobody is left to tell.
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::from(USAGE)
}

/// Prints on standard output. A reader that stops reading, like `head`, is no failure.
fn print(text: impl Display) -> io::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}
