//! `importguard spool`: inspects a gateway's spool, copies it, and publishes its events.

mod copy;
mod drain;
mod export;
mod status;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use importguard_runtime::{ThreadSettings, block_on};

use self::{copy::Copy, drain::Drain, export::Export, status::Status};
use crate::{events::Console, text::counted};

/// What can be done with a spool.
#[derive(Subcommand)]
pub(crate) enum SpoolCommand {
    Status(Status),
    Export(Export),
    Copy(Copy),
    Drain(Box<Drain>),
}

impl SpoolCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Status(status) => status.run(),
            Self::Export(export) => export.run(),
            Self::Copy(copy) => copy.run(),
            Self::Drain(drain) => block_on(ThreadSettings::TWO, drain.run())?,
        }
    }
}

/// Which spool.
#[derive(Args)]
struct Directory {
    /// Directory of the spool, or its database
    #[arg(value_name = "DIR", env = "IMPORTGUARD_SPOOL")]
    dir: PathBuf,
}

/// Formats a number of events: `1 event`, `2 events`.
fn events(count: usize) -> String {
    counted(count, "event", "events")
}

/// Reports corrupt spools that were set aside, which were not `handled`, and how to publish what is in them.
fn report_set_aside(console: Console, handled: &str, files: &[PathBuf]) {
    for file in files {
        let file = file.display();
        console.report(&format!(
            "not {handled}: {file}, a corrupt spool that was set aside and may hold events. `importguard spool copy {file} --to DIR` saves \
             what can be read of it, and `importguard spool drain DIR` publishes what NATS does not have; then delete the file"
        ));
    }
}

fn exit_code(is_complete: bool) -> ExitCode {
    match is_complete {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
