//! The `importguard` binary: gateway and decider in one process, and the operator's commands.

mod banner;
mod demo;
mod detect;
mod doctor;
mod events;
mod healthcheck;
mod list;
mod output;
mod policy;
mod pseudonym;
mod serve;
mod spool;
mod stats;
mod tail;
mod text;
mod why;

use std::{env, ffi::OsString, io::ErrorKind, process::ExitCode};

use clap::{Parser, Subcommand};
use demo::Demo;
use detect::Detect;
use doctor::Doctor;
use healthcheck::Healthcheck;
use importguard_runtime::{ThreadSettings, block_on, conclude, environment, signals};
use importguard_telemetry::ENVIRONMENT_HELP;
use list::ListCommand;
use policy::PolicyCommand;
use pseudonym::Pseudonym;
use serve::Serve;
use spool::SpoolCommand;
use stats::Stats;
use tail::Tail;
use why::Why;

// The C library's allocator does not return most of the memory of freed lists to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Policy enforcement for OpenIM friend imports: allow, refuse or trim each import, and publish the decision to NATS
#[derive(Parser)]
#[command(
    name = "importguard",
    version,
    after_help = "Without a command, `importguard serve` is run. \
        `importguard COMMAND --help` has the settings of a command: flags, and the environment variables that they can be set with."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run gateway and decider in one process (the default)
    #[command(after_help = ENVIRONMENT_HELP)]
    Serve(Box<Serve>),
    Demo(Demo),
    /// Check, test and explain policies
    #[command(
        subcommand,
        after_help = "Exit codes: 0 on success, 1 when errors or failed tests were found, 2 on usage errors."
    )]
    Policy(PolicyCommand),
    Tail(Box<Tail>),
    Stats(Box<Stats>),
    Why(Box<Why>),
    /// Look into a gateway's spool, copy it, or publish what is in it
    #[command(
        subcommand,
        after_help = "Exit codes: 0 on success, 1 on errors and when events are left that should be published, 2 on usage errors."
    )]
    Spool(SpoolCommand),
    #[command(subcommand)]
    List(ListCommand),
    Detect(Box<Detect>),
    Pseudonym(Pseudonym),
    Doctor(Doctor),
    Healthcheck(Healthcheck),
}

fn main() -> ExitCode {
    let arguments = with_default_command(env::args_os().collect());
    // SIGHUP terminates the other commands when their terminal closes.
    let serves = arguments
        .get(1)
        .is_some_and(|command| command == "serve" || command == "detect");
    let survives = if serves { signals::survive() } else { Ok(()) };
    let cli: Cli = environment::parse(arguments);
    let ran = survives.map_err(Into::into).and_then(|()| run(cli.command));
    conclude(match ran {
        // A reader that stops reading, like `head`, is not an error.
        Err(error) if output::error_kind(&error) == Some(ErrorKind::BrokenPipe) => {
            Ok(ExitCode::SUCCESS)
        }
        ran => ran,
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Demo(demo) => block_on(ThreadSettings::TWO, demo.run())?,
        Command::Policy(command) => command.run(),
        Command::Tail(tail) => block_on(ThreadSettings::TWO, tail.run())?,
        Command::Stats(stats) => block_on(ThreadSettings::TWO, stats.run())?,
        Command::Why(why) => block_on(ThreadSettings::TWO, why.run())?,
        Command::Spool(command) => command.run(),
        Command::List(list) => block_on(ThreadSettings::TWO, list.run())?,
        Command::Detect(detect) => detect.run(),
        Command::Pseudonym(pseudonym) => pseudonym.run(),
        Command::Doctor(doctor) => block_on(ThreadSettings::TWO, doctor.run())?,
        Command::Healthcheck(healthcheck) => healthcheck.run(),
    }
}

/// `importguard --http-listen …` means `importguard serve --http-listen …`.
fn with_default_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let first = arguments.get(1).and_then(|argument| argument.to_str());
    let global = ["-h", "--help", "-V", "--version"];
    if first.is_none_or(|first| first.starts_with('-') && !global.contains(&first)) {
        arguments.insert(1.min(arguments.len()), "serve".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn help_says_where_the_settings_are() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("`importguard COMMAND --help`"), "{help}");
        assert!(help.contains("environment variables"), "{help}");
    }
}
