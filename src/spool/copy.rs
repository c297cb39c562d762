use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use importguard_gateway::spool::SpoolReader;

use super::{Directory, events};
use crate::events::Console;

const CONSOLE: Console = Console::new("spool copy");

const HELP: &str = r#"Copies a spool as it is at one moment, also while a gateway uses it. To copy its files would not: part of the events is in the
log beside the database.

To restore a copy, publish it with `importguard spool drain`, which looks up in NATS what was published meanwhile.

Example:
  importguard spool copy /var/lib/importguard/spool --to /backup/gateway-0

Exit codes: 0 on success; 1 if the spool cannot be read or the copy cannot be written; 2 on usage errors."#;

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
        SpoolReader::open(&self.directory.dir)?.copy_to(&self.to)?;
        let copy = SpoolReader::open(&self.to)?.summary()?;
        CONSOLE.report(&format!(
            "{} copied to {}",
            events(copy.events),
            self.to.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}
