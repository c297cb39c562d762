//! `importguard policy …`: checks, tests and explains a policy before it is deployed. Exit codes: 0 on success, 1 for findings, 2
//! on usage errors.

mod check;
mod digest;
mod explain;
mod init;
mod test;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{
    Args, Subcommand,
    builder::{OsStringValueParser, TypedValueParser},
};
use importguard_decider::policy::DEFAULT_MAX_FRIENDS;
use importguard_runtime::settings::count;

pub(crate) use self::init::write_sample;

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Write a commented policy with tests and a list to start from, and rules for the detector; overwrites nothing
    Init(init::Init),
    /// Report every error in a policy and its lists, with its position and the correction
    Check(check::Check),
    /// Print the digest of a policy with its lists, as deciders report it in importguard_policy_info
    Digest(digest::Digest),
    /// Run the policy tests in *.test.yaml files
    Test(test::Test),
    /// Show, rule by rule, how a policy decides one import
    Explain(explain::Explain),
}

/// The largest import that a policy must support.
#[derive(Args)]
pub(crate) struct LargestImport {
    /// Number of friends in the largest import, by which the cost of a policy is judged. Use the deciders' value
    #[arg(
        long = "max-friends",
        env = "IMPORTGUARD_DECIDER_MAX_FRIENDS",
        value_name = "COUNT",
        default_value_t = DEFAULT_MAX_FRIENDS,
        value_parser = count::<usize>(1..=100_000_000)
    )]
    max_friends: usize,
}

impl PolicyCommand {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Init(init) => init.run(),
            Self::Check(check) => check.run(),
            Self::Digest(digest) => digest.run(),
            Self::Test(test) => test.run(),
            Self::Explain(explain) => explain.run(),
        }
    }
}

/// Parses the path of a policy or a test file.
fn input_file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|path: OsString| match path == "-" {
        true => Err("standard input is not supported: other files are named relative to this one"),
        false => Ok(PathBuf::from(path)),
    })
}
