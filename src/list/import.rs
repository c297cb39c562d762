use std::{collections::HashMap, io, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use importguard_gateway::events::PseudonymSettings;
use importguard_lists::{Addition, BucketError, Key, ListName, Writer};
use importguard_nats::NatsSettings;
use importguard_runtime::signals;

use super::{
    CONSOLE,
    connection::{Connection, Denials, tidy},
    file, read,
    who::{Until, Who},
};

/// How many changes are on their way at once.
const IN_FLIGHT: usize = 256;

/// After how many changes the bucket is told that their events are published. If an import is killed, the next command publishes the
/// events of at most so many changes again.
const FINISH_EVERY: usize = 10_000;

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
    pub(super) async fn run(self, denials: &Denials) -> anyhow::Result<ExitCode> {
        let standard = self.who.addition(self.until.time()?)?;
        let entries =
            file::read(&self.file, &self.list, &standard).context("nothing was imported")?;
        let connection = Connection::open(&self.nats, denials).await?;
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
        let count = wanted.len();
        let done = self.write(&writer, wanted).await?;
        if let Some(error) = &done.unpublished {
            CONSOLE.report(&format!("warning: {error}"));
        }
        tidy(&writer, &done.own, denials).await;
        let added = done.added;
        if added < count {
            bail!("interrupted after {added} of {count} entries; repeat the import for the others");
        }
        let message = match self.json {
            true => serde_json::json!({ "added": added, "unchanged": unchanged }).to_string(),
            false => format!("{}: added {added}, {unchanged} unchanged", self.list),
        };
        io::Write::write_all(&mut io::stdout(), format!("{message}\n").as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the entries until it is interrupted.
    async fn write(&self, writer: &Writer, wanted: HashMap<Key, Addition>) -> anyhow::Result<Done> {
        let shutdown = signals::shutdown()?;
        let count = wanted.len();
        let mut done = Done::default();
        let mut progress = CONSOLE.progress_of("added").of("entries");
        let writes = wanted
            .into_iter()
            .map(|(key, addition)| async move { writer.put(&key, &addition).await });
        // What is on its way is waited for.
        let writes = stream::iter(writes).take_until(shutdown.cancelled());
        let mut writes = std::pin::pin!(writes.buffer_unordered(IN_FLIGHT));
        while let Some(written) = writes.next().await {
            match written {
                Ok(revision) => done.own.push(revision),
                Err(error @ BucketError::Unpublished { .. }) => done.unpublished = Some(error),
                Err(error) => return Err(error.into()),
            }
            done.added += 1;
            if done.added % 100 == 0 {
                let added = done.added as u64;
                progress.show(added, count as u64 - added);
            }
            if done.added % FINISH_EVERY == 0 {
                writer.finish(&done.own).await?;
            }
        }
        Ok(done)
    }
}

/// How far an import is.
#[derive(Default)]
struct Done {
    /// The number of entries that were added.
    added: usize,
    /// The revisions of those whose events are published.
    own: Vec<u64>,
    /// Why the events of others are not.
    unpublished: Option<BucketError>,
}
