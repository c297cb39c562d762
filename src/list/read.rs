use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use importguard_decider::lists::{id_on_line, misfit};
use importguard_lists::{Brief, Bucket, Changes, Key, ListName};
use importguard_nats::NatsSettings;
use importguard_runtime::signals;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    CONSOLE, UsageError,
    connection::{Connection, Denials},
};
use crate::{
    events::{exact_rfc3339, printable},
    output,
};

/// Show the live lists, the entries of one, or one entry
#[derive(Args)]
pub(crate) struct Show {
    /// The list's name in the bucket; without it, all lists are shown with the number of their entries
    #[arg(value_name = "LIST")]
    list: Option<ListName>,

    /// Only this user; exits with 1 if they are not on the list
    #[arg(value_name = "ID")]
    id: Option<String>,

    /// Print JSON, one line per list or entry
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    nats: NatsSettings,
}

/// Print the entries of a list as JSON, one line each, for import into another bucket
#[derive(Args)]
pub(crate) struct Export {
    /// The list's name in the bucket
    #[arg(value_name = "LIST")]
    list: ListName,

    /// Print only the IDs, as in the file of a list
    #[arg(long)]
    ids: bool,

    #[command(flatten)]
    nats: NatsSettings,
}

impl Show {
    pub(super) async fn run(self, denials: &Denials) -> anyhow::Result<ExitCode> {
        let bucket = Connection::open(&self.nats, denials)
            .await?
            .existing_bucket()
            .await?;
        match (&self.list, &self.id) {
            (None, _) => self.lists(&bucket).await,
            (Some(list), None) => self.entries(&bucket, list).await,
            (Some(list), Some(id)) => self.entry(&bucket, list, id).await,
        }
    }

    async fn lists(&self, bucket: &Bucket) -> anyhow::Result<ExitCode> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        read(bucket, |key, _| {
            *counts.entry(key.list.to_string()).or_default() += 1;
            Ok(())
        })
        .await?;
        if counts.is_empty() {
            CONSOLE.report("nobody is on any list");
        }
        let mut out = output::stdout();
        for (list, entries) in counts {
            match self.json {
                true => writeln!(out, "{}", json!({ "list": list, "entries": entries }))?,
                false => writeln!(out, "{list}  {entries}")?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn entries(&self, bucket: &Bucket, list: &ListName) -> anyhow::Result<ExitCode> {
        let mut out = output::stdout();
        if !self.json && io::stdout().is_terminal() {
            writeln!(out, "{:24}  {:20}  {:16}  REASON", "ID", "UNTIL", "BY")?;
        }
        let mut any = false;
        read(bucket, |key, value| {
            if key.list == *list {
                any = true;
                self.print(&mut out, key, value)?;
            }
            Ok(())
        })
        .await?;
        if !any {
            CONSOLE.report(&format!("nobody is on {list}"));
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn entry(&self, bucket: &Bucket, list: &ListName, id: &str) -> anyhow::Result<ExitCode> {
        let key = Key::new(list.clone(), id)
            .map_err(|error| UsageError(format!("\"{}\": {error}", printable(id))))?;
        let print = |value: &Brief<'_>| self.print(&mut output::stdout(), &key, value);
        match bucket.entry(&key, now(), print).await? {
            Some(printed) => {
                printed?;
                Ok(ExitCode::SUCCESS)
            }
            None => {
                CONSOLE.report(&format!("{} is not on {list}", printable(id)));
                Ok(ExitCode::FAILURE)
            }
        }
    }

    fn print(&self, out: &mut impl Write, key: &Key, value: &Brief<'_>) -> io::Result<()> {
        if self.json {
            return writeln!(out, "{}", exported(key, value));
        }
        let until = value
            .until
            .and_then(time)
            .map_or_else(|| "-".to_owned(), exact_rfc3339);
        let id = printable(key.id.as_str());
        let (by, reason) = (printable(&value.by), printable(&value.reason));
        let line = format!("{id:24}  {until:20}  {by:16}  {reason}");
        writeln!(out, "{}", line.trim_end())
    }
}

impl Export {
    pub(super) async fn run(self, denials: &Denials) -> anyhow::Result<ExitCode> {
        let bucket = Connection::open(&self.nats, denials)
            .await?
            .existing_bucket()
            .await?;
        let mut out = io::BufWriter::new(output::stdout());
        let mut unfit = 0;
        read(&bucket, |key, value| {
            if key.list != self.list {
                return Ok(());
            }
            if !self.ids {
                return writeln!(out, "{}", exported(key, value));
            }
            let id = key.id.as_str();
            if id_on_line(id) != Some(id) || misfit(id).is_some() {
                unfit += 1;
                return Ok(());
            }
            writeln!(out, "{id}")
        })
        .await?;
        out.flush()?;
        if unfit > 0 {
            CONSOLE.report(&format!(
                "left out {unfit} IDs that cannot be lines of a list's file"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Calls `each` for every entry that is valid now, in the order of their last changes.
pub(super) async fn read(
    bucket: &Bucket,
    mut each: impl FnMut(&Key, &Brief<'_>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let shutdown = signals::shutdown()?;
    let mut changes = Changes::after(bucket, 0).await?;
    let mut progress = CONSOLE.progress().of("entries");
    let (mut read, now) = (0, now());
    loop {
        let change = tokio::select! {
            change = changes.stored() => change?,
            () = shutdown.cancelled() => anyhow::bail!("interrupted"),
        };
        let Some(change) = change else {
            return Ok(());
        };
        read += 1;
        if let Some((key, value)) = change.kind.brief()
            && !value.is_dead(now)
        {
            each(key, &value)?;
        }
        if read % 1000 == 0 {
            progress.show(read, changes.pending());
        }
    }
}

/// An entry as JSON, which `import` reads.
fn exported(key: &Key, value: &Brief<'_>) -> Value {
    let mut entry = json!({ "id": key.id });
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    for (name, value) in [
        ("by", text(&value.by)),
        ("reason", text(&value.reason)),
        ("at", value.at.map(exact_rfc3339)),
        ("until", value.until.and_then(time).map(exact_rfc3339)),
    ] {
        if let Some(value) = value {
            entry[name] = value.into();
        }
    }
    entry
}

fn time(seconds: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}

/// The current time in Unix seconds.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
