use std::{
    collections::{BTreeMap, HashMap},
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use importguard_decider::lists::{id_on_line, misfit};
use importguard_lists::{Brief, Bucket, Changes, Key, ListName};
use importguard_nats::NatsSettings;
use serde_json::json;

use super::{
    CONSOLE, UsageError,
    connection::{Denials, connect},
};
use crate::{
    events::{exact_rfc3339, printable, printable_json},
    output,
    text::counted,
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
        let bucket = Bucket::open(&connect(&self.nats, denials).await?).await?;
        match (&self.list, &self.id) {
            (None, _) => self.lists(&bucket).await,
            (Some(list), None) => self.entries(&bucket, list).await,
            (Some(list), Some(id)) => self.entry(&bucket, list, id).await,
        }
    }

    async fn lists(&self, bucket: &Bucket) -> anyhow::Result<ExitCode> {
        let now = now();
        let living = read(bucket, |_, value| (!value.is_dead(now)).then_some(())).await?;
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for key in living.into_keys() {
            *counts.entry(key.list.to_string()).or_default() += 1;
        }
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
        let now = now();
        let lines = read(bucket, |key, value| {
            (key.list == *list && !value.is_dead(now)).then(|| self.line(key, value))
        });
        let lines = in_order(lines.await?);
        if lines.is_empty() {
            CONSOLE.report(&format!("nobody is on {list}"));
        }
        for line in lines {
            writeln!(out, "{line}")?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn entry(&self, bucket: &Bucket, list: &ListName, id: &str) -> anyhow::Result<ExitCode> {
        let key = Key::new(list.clone(), id)
            .map_err(|error| UsageError(format!("\"{}\": {error}", printable(id))))?;
        match bucket
            .entry(&key, now(), |value| self.line(&key, value))
            .await?
        {
            Some(line) => {
                writeln!(output::stdout(), "{line}")?;
                Ok(ExitCode::SUCCESS)
            }
            None => {
                CONSOLE.report(&format!("{} is not on {list}", printable(id)));
                Ok(ExitCode::FAILURE)
            }
        }
    }

    fn line(&self, key: &Key, value: &Brief<'_>) -> String {
        if self.json {
            return exported(key, value);
        }
        let until = value
            .expires()
            .map_or_else(|| "-".to_owned(), exact_rfc3339);
        let id = printable(key.id.as_str());
        let (by, reason) = (printable(&value.by), printable(&value.reason));
        let line = format!("{id:24}  {until:20}  {by:16}  {reason}");
        line.trim_end().to_owned()
    }
}

impl Export {
    pub(super) async fn run(self, denials: &Denials) -> anyhow::Result<ExitCode> {
        let bucket = Bucket::open(&connect(&self.nats, denials).await?).await?;
        let now = now();
        let lines = read(&bucket, |key, value| {
            if key.list != self.list || value.is_dead(now) {
                return None;
            }
            let id = key.id.as_str();
            match self.ids {
                false => Some(Ok(exported(key, value))),
                true if id_on_line(id) == Some(id) && misfit(id).is_none() => {
                    Some(Ok(id.to_owned()))
                }
                true => Some(Err(printable(id))),
            }
        });
        let lines = in_order(lines.await?);
        if lines.is_empty() {
            CONSOLE.report(&format!("nobody is on {}", self.list));
        }
        let mut out = io::BufWriter::new(output::stdout());
        let mut unfit = Vec::new();
        for line in lines {
            match line {
                Ok(line) => writeln!(out, "{line}")?,
                Err(id) => unfit.push(id),
            }
        }
        out.flush()?;
        if !unfit.is_empty() {
            CONSOLE.report(&format!(
                "left out {} that cannot be lines of a list's file: {}",
                counted(unfit.len(), "ID", "IDs"),
                unfit.join(", ")
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads the bucket, and returns what `of` makes of each key's value, with its revision. An entry that is replaced while the others are read
/// is sent twice: its last value counts.
pub(super) async fn read<T>(
    bucket: &Bucket,
    of: impl Fn(&Key, &Brief<'_>) -> Option<T>,
) -> anyhow::Result<HashMap<Key, (u64, T)>> {
    let mut changes = Changes::after(bucket, 0).await?;
    let mut progress = CONSOLE.progress("read", "entries");
    let (mut read, mut current) = (0, HashMap::new());
    loop {
        let Some(change) = changes.stored().await? else {
            return Ok(current);
        };
        read += 1;
        if let Some((key, value)) = change.kind.brief() {
            match of(key, &value) {
                Some(made) => current.insert(key.clone(), (change.revision, made)),
                None => current.remove(key),
            };
        }
        if read % 1000 == 0 {
            progress.show(read, changes.pending());
        }
    }
}

/// What was made of the entries, in the order of their last changes.
fn in_order<T>(entries: HashMap<Key, (u64, T)>) -> Vec<T> {
    let mut entries: Vec<_> = entries.into_values().collect();
    entries.sort_unstable_by_key(|(revision, _)| *revision);
    entries.into_iter().map(|(_, made)| made).collect()
}

/// An entry as JSON, which `import` reads.
fn exported(key: &Key, value: &Brief<'_>) -> String {
    let mut entry = json!({ "id": key.id });
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    for (name, value) in [
        ("by", text(&value.by)),
        ("reason", text(&value.reason)),
        ("at", value.at.map(exact_rfc3339)),
        ("until", value.expires().map(exact_rfc3339)),
    ] {
        if let Some(value) = value {
            entry[name] = value.into();
        }
    }
    printable_json(&entry.to_string()).into_owned()
}

/// The current time in Unix seconds.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
