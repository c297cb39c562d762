use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use importguard_gateway::spool::{SpoolReader, set_aside_files};

use super::{Directory, events, exit_code, report_set_aside};
use crate::events::Console;

const CONSOLE: Console = Console::new("spool copy");

const HELP: &str = r#"Copies a spool as it is at one moment, also while a gateway uses it. To copy its files would not: part of the events is in the log beside the database.

To restore a copy, publish it with `importguard spool drain`, which looks up in NATS what was published meanwhile.

Of a corrupt spool, for example one that a gateway has set aside, what can be read is copied. With a directory, those that were set aside in it are not copied but named.

Examples:
  importguard spool copy /var/lib/importguard/spool --to /backup/gateway-0
  importguard spool copy /var/lib/importguard/spool/spool.corrupt-20261128T101500Z.db --to /tmp/saved

Exit codes: 0 if everything was copied; 1 if not; 2 on usage errors."#;

/// Copy a spool, for a backup
#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Copy {
    #[command(flatten)]
    directory: Directory,

    /// Directory for the copy, which is created; it must not have a spool
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

impl Copy {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let reader = SpoolReader::open(&self.directory.dir)?;
        let is_complete = reader.copy_to(&self.to)?;
        let copy = SpoolReader::open(&self.to)?.summary()?;
        let unread = match is_complete {
            true => "",
            false => ": the spool is corrupt, and others could not be read",
        };
        let (count, to) = (events(copy.events), self.to.display());
        CONSOLE.report(&format!("{count} copied to {to}{unread}"));
        // Of a single database, nothing else was to be copied.
        let left = match self.directory.dir.is_dir() {
            true => set_aside_files(&self.directory.dir).context("cannot look for other spools")?,
            false => Vec::new(),
        };
        report_set_aside(CONSOLE, "copied", &left);
        Ok(exit_code(is_complete && left.is_empty()))
    }
}
