use std::{collections::HashMap, io, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use importguard_gateway::events::PseudonymSettings;
use importguard_lists::{Addition, Key, ListName, Writer};
use importguard_nats::NatsSettings;
use importguard_runtime::signals;

use super::{
    CONSOLE,
    connection::{Connection, tidy},
    file, read,
    who::{Until, Who},
};

/// How many changes are on their way at once.
const IN_FLIGHT: usize = 256;

const IMPORT_HELP: &str = r##"A line is an ID, or JSON as from export: {"id":"user123","until":"2026-12-24T18:00:00Z","reason":"#4711"}.
What a line does not say is as --for, --until, --because and --by say. Empty lines, and lines that start with #, are skipped.
Entries that are on the list already with the same end and reason are left as they are, so an import that was interrupted can be
repeated. Nothing is removed."##;

/// Add the users in a file to a list
#[derive(Args)]
#[command(after_help = IMPORT_HELP)]
pub(crate) struct Import {
    /// The list's name in the bucket
    #[arg(value_name = "LIST")]
    list: ListName,

    /// The file; - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,

    #[command(flatten)]
    who: Who,

    #[command(flatten)]
    until: Until,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    nats: NatsSettings,

    #[command(flatten)]
    pseudonyms: PseudonymSettings,
}

impl Import {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let standard = self.who.addition(self.until.time()?)?;
        let entries =
            file::read(&self.file, &self.list, &standard).context("nothing was imported")?;
        let connection = Connection::open(&self.nats).await?;
        let writer = connection.writer(&self.pseudonyms).await?;
        let mut entries = entries;
        let all = entries.len();
        let mut wanted: HashMap<_, _> = entries.drain(..).collect();
        read::read(writer.bucket(), |key, value| {
            let same = |addition: &mut Addition| {
                let until = addition.until.map(|until| until.unix_timestamp());
                let reason = addition
                    .reason
                    .as_ref()
                    .map_or("", |reason| reason.as_str());
                value.until.and_then(|until| i64::try_from(until).ok()) == until
                    && value.reason == reason
            };
            if wanted.get_mut(key).is_some_and(same) {
                wanted.remove(key);
            }
            Ok(())
        })
        .await?;
        let unchanged = all - wanted.len();
        let own = self.write(&writer, wanted).await?;
        tidy(&writer, &own).await;
        let added = own.len();
        let message = match self.json {
            true => serde_json::json!({ "added": added, "unchanged": unchanged }).to_string(),
            false => format!("{}: added {added}, {unchanged} unchanged", self.list),
        };
        io::Write::write_all(&mut io::stdout(), format!("{message}\n").as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the entries, and returns their revisions.
    async fn write(
        &self,
        writer: &Writer,
        wanted: HashMap<Key, Addition>,
    ) -> anyhow::Result<Vec<u64>> {
        let shutdown = signals::shutdown()?;
        let count = wanted.len();
        let mut own = Vec::with_capacity(count);
        let mut progress = CONSOLE.progress_of("added").of("entries");
        let writes = wanted
            .into_iter()
            .map(|(key, addition)| async move { writer.put(&key, &addition).await });
        let mut writes = stream::iter(writes).buffer_unordered(IN_FLIGHT);
        loop {
            let written = tokio::select! {
                written = writes.next() => written,
                () = shutdown.cancelled() => bail!(
                    "interrupted after {} of {count} entries; repeat the import for the others",
                    own.len()
                ),
            };
            let Some(written) = written else {
                return Ok(own);
            };
            own.push(written?);
            if own.len() % 100 == 0 {
                let done = own.len() as u64;
                progress.show(done, count as u64 - done);
            }
        }
    }
}
