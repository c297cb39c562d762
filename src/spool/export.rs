use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use clap::Args;
use importguard_gateway::spool::{SpoolReader, sync_dir};

use super::{Directory, events};
use crate::{
    events::{Console, printable_json},
    output,
};

const CONSOLE: Console = Console::new("spool export");

const HELP: &str = r#"Each line is an event as subscribers get it, in the order in which they were decided, parked events included. Reads only, so a gateway may use the spool meanwhile; events that it publishes during the export may be missing: they are in NATS.

Examples:
  importguard spool export /var/lib/importguard/spool | jq .data.ownerUserID
  importguard spool export /var/lib/importguard/spool --to events.jsonl

To publish the events, use `importguard spool drain`; for a backup, `importguard spool copy`.

Exit codes: 0 on success, also without any event; 1 if the spool cannot be read; 2 on usage errors."#;

/// Print the events in a spool as JSON lines, without changing it
#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Export {
    #[command(flatten)]
    directory: Directory,

    /// Write to FILE, which must not exist, instead of standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

impl Export {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let reader = SpoolReader::open(&self.directory.dir)?;
        let count = match &self.to {
            Some(path) => write_file(&reader, path)
                .with_context(|| format!("cannot write {}", path.display()))?,
            None => write_lines(&reader, output::stdout())?,
        };
        CONSOLE.report(&format!("{} exported", events(count)));
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the events to a temporary file, which is renamed to `path` once it is complete.
fn write_file(reader: &SpoolReader, path: &Path) -> anyhow::Result<usize> {
    ensure!(!path.exists(), "it exists");
    let part = PathBuf::from(format!("{}.part", path.display()));
    // It contains user IDs.
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    let count = write_lines(reader, &file)?;
    file.sync_all()?;
    fs::rename(part, path)?;
    if let Some(parent) = path.canonicalize()?.parent() {
        sync_dir(parent)?;
    }
    Ok(count)
}

/// Returns how many events were written.
fn write_lines(reader: &SpoolReader, out: impl Write) -> anyhow::Result<usize> {
    let mut out = BufWriter::new(out);
    let mut count = 0;
    reader.for_each(|payload| {
        let event = String::from_utf8_lossy(payload);
        writeln!(out, "{}", printable_json(&event))?;
        count += 1;
        anyhow::Ok(())
    })?;
    out.flush()?;
    Ok(count)
}
