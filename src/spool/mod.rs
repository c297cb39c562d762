//! `importguard spool`: inspects a gateway's spool, copies it, and publishes its events.

mod copy;
mod drain;
mod export;
mod status;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use importguard_runtime::{ThreadSettings, block_on};

use self::{copy::Copy, drain::Drain, export::Export, status::Status};
use crate::text::counted;

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
