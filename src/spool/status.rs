use std::{
    fmt::{self, Display, Formatter},
    io::Write,
    process::ExitCode,
};

use clap::Args;
use importguard_gateway::spool::{SpoolReader, SpoolSummary};
use serde::Serialize;

use super::{Directory, events};
use crate::{events::rfc3339, output};

const HELP: &str = r#"Reads only, so a gateway may use the spool meanwhile. Where it does, the gateway publishes the events by itself.

Exit codes: 0 if the spool could be read, whatever is in it; 1 if not; 2 on usage errors."#;

/// Print what is in a spool: events that wait, events that NATS refuses, age and size
#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Status {
    #[command(flatten)]
    directory: Directory,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let summary = SpoolReader::open(&self.directory.dir)?.summary()?;
        let oldest = summary.oldest.map(rfc3339);
        let report = Report { summary, oldest };
        let mut out = output::stdout();
        match self.json {
            true => writeln!(out, "{}", serde_json::to_string(&report)?)?,
            false => write!(out, "{report}")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    summary: SpoolSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<String>,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let SpoolSummary {
            directory,
            in_use,
            in_use_by,
            schema,
            events: all,
            waiting,
            parked,
            used_bytes,
            file_bytes,
            set_aside,
            ..
        } = &self.summary;
        writeln!(f, "directory  {}", directory.display())?;
        match (in_use, in_use_by) {
            (true, Some(pid)) => writeln!(f, "in use     by process {pid}")?,
            (true, None) => writeln!(f, "in use     yes")?,
            (false, _) => writeln!(f, "in use     no")?,
        }
        writeln!(
            f,
            "events     {all}: {waiting} waiting, {} parked",
            all - waiting
        )?;
        for (reason, count) in parked {
            writeln!(f, "parked     {}: {reason}", events(*count))?;
        }
        if let Some(oldest) = &self.oldest {
            writeln!(f, "oldest     {oldest}")?;
        }
        writeln!(
            f,
            "size       {} in use; files {}",
            Bytes(*used_bytes),
            Bytes(*file_bytes)
        )?;
        writeln!(f, "schema     {schema}")?;
        for file in set_aside {
            writeln!(
                f,
                "set aside  {} (corrupt, may hold events)",
                file.display()
            )?;
        }
        Ok(())
    }
}

/// A size for people.
struct Bytes(u64);

impl Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "one digit is printed")]
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(shift, _)| self.0 >= 1 << shift) {
            Some((shift, unit)) => {
                write!(f, "{:.1} {unit}", self.0 as f64 / (1_u64 << shift) as f64)
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}
