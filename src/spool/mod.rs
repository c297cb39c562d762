//! `importguard spool`: inspects a gateway's spool, copies it, and publishes its events.

mod copy;
mod drain;
mod export;
mod status;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

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

/// Syncs a directory: until then, a power cut can undo the creation of a file in it. Some file systems cannot sync a directory, and a
/// parent may not be readable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(error) if matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

/// Formats a number of events: `1 event`, `2 events`.
fn events(count: usize) -> String {
    counted(count, "event", "events")
}
