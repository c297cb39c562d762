use std::{collections::HashMap, io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use importguard_gateway::events::PseudonymSettings;
use importguard_lists::{Addition, Brief, Bucket, BucketError, Key, ListName, Reason, Writer};
use importguard_nats::NatsSettings;
use importguard_runtime::signals;
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{
    CONSOLE,
    connection::{Denials, connect, tidy, writer},
    file, read, report_new,
    who::{Until, Who},
};
use crate::{events::exact_rfc3339, output};

/// Maximum number of changes in flight.
const IN_FLIGHT: usize = 256;

/// How many changes are made before their events are marked as published in the bucket. If an import is killed, the next command publishes
/// the events of at most this many changes again.
const FINISH_EVERY: usize = 10_000;

const IMPORT_HELP: &str = r##"A line is an ID, or JSON as from export: {"id":"user123","until":"2026-12-24T18:00:00Z","reason":"#4711"}.
What a line does not say is as --for, --until, --because and --by say. Lines are read as in the file of a policy's list: white space around them, empty lines, and those that start with # do not count.
Entries that have expired are not added. Those that are on the list already with the same end and reason are left as they are, so an import that was interrupted can be repeated. As --for counts from each import on, it has all entries written again, with a later end; repeated with the --until that an interrupted one prints, it leaves them. Nothing is removed."##;

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
        // One for all further steps: between two of them, Ctrl-C would be lost. While standard input is read, it ends the process.
        let shutdown = signals::shutdown()?;
        let mut wanted: HashMap<_, _> = entries.into_iter().collect();
        let expired = leave_expired(&mut wanted);
        let all = wanted.len();
        let (writer, is_new, wanted) = tokio::select! {
            prepared = self.prepare(wanted, denials) => prepared?,
            () = shutdown.cancelled() => bail!("interrupted: nothing was imported"),
        };
        let unchanged = all - wanted.len();
        let count = wanted.len();
        let repeat = self.repeat(&standard);
        let done = self.write(&writer, wanted, &shutdown).await;
        let done = done.with_context(|| format!("the import is not complete; {repeat}"))?;
        if let Some(error) = &done.unpublished {
            CONSOLE.report(&format!("warning: {error}"));
        }
        let added = done.added;
        if is_new && added > 0 {
            report_new(&self.list);
        }
        tidy(&writer, &done.own, denials).await;
        let superseded = done.superseded;
        if added + superseded < count {
            bail!("interrupted after {added} of {count} entries; {repeat}");
        }
        let mut message = match self.json {
            true => {
                json!({ "added": added, "unchanged": unchanged, "expired": expired, "superseded": superseded })
                    .to_string()
            }
            false => format!("{}: added {added}, {unchanged} unchanged", self.list),
        };
        for (count, what) in [
            (expired, "expired"),
            (
                superseded,
                "changed by others meanwhile and left as they are",
            ),
        ] {
            if count > 0 && !self.json {
                message += &format!(", {count} {what}");
            }
        }
        writeln!(output::stdout(), "{message}")?;
        Ok(ExitCode::SUCCESS)
    }

    /// Connects, and returns the writer, whether the list is new, and the entries that must be written.
    async fn prepare(
        &self,
        wanted: HashMap<Key, Addition>,
        denials: &Denials,
    ) -> anyhow::Result<(Writer, bool, Vec<(Key, u64, Addition)>)> {
        let jetstream = connect(&self.nats, denials).await?;
        let writer = writer(&jetstream, &self.pseudonyms, denials).await?;
        let is_new = !writer.bucket().has_list(&self.list).await?;
        let wanted = changed(writer.bucket(), wanted).await?;
        // An entry that is replaced takes an unpublished event with it.
        if let Err(error) = writer.publish_all().await {
            CONSOLE.report(&format!(
                "warning: events of earlier changes are not published yet ({error}); \
                 those about entries that this import changes again are lost"
            ));
        }
        Ok((writer, is_new, wanted))
    }

    /// How to import the entries that are missing after an interruption, and leave the others as they are.
    fn repeat(&self, standard: &Addition) -> String {
        let end = standard.until.filter(|_| self.until.is_relative());
        let with = end.map(|end| format!(" with --until {} instead of --for", exact_rfc3339(end)));
        let with = with.unwrap_or_default();
        format!("repeat the import{with} for the others")
    }

    /// Writes the entries until it is interrupted.
    async fn write(
        &self,
        writer: &Writer,
        wanted: Vec<(Key, u64, Addition)>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Done> {
        let count = wanted.len();
        let mut done = Done::default();
        let mut progress = CONSOLE.progress("added", "entries");
        let writes =
            wanted
                .into_iter()
                .map(|(key, revision, addition)| async move {
                    writer.put(&key, &addition, revision).await
                });
        // Changes in flight are completed.
        let writes = stream::iter(writes).take_until(shutdown.cancelled());
        let mut writes = std::pin::pin!(writes.buffer_unordered(IN_FLIGHT));
        while let Some(written) = writes.next().await {
            match written {
                Ok(Some(revision)) => done.own.push(revision),
                Ok(None) => {
                    done.superseded += 1;
                    continue;
                }
                Err(error @ BucketError::Unpublished { .. }) => done.unpublished = Some(error),
                Err(error) => return Err(error.into()),
            }
            done.added += 1;
            if done.added % 100 == 0 {
                let added = done.added as u64;
                progress.show(added, count as u64 - added);
            }
            if done.added % FINISH_EVERY == 0 {
                // If it fails, the command says so at its end.
                let _ = writer.finish(&done.own).await;
            }
        }
        Ok(done)
    }
}

/// Removes the entries that have expired, and returns how many.
fn leave_expired(wanted: &mut HashMap<Key, Addition>) -> usize {
    let (all, now) = (wanted.len(), OffsetDateTime::now_utc());
    wanted.retain(|_, addition| addition.until.is_none_or(|until| until > now));
    all - wanted.len()
}

/// The entries that are not on the list already with the same end and reason, with the revision of their key: 0 if it has no value.
async fn changed(
    bucket: &Bucket,
    wanted: HashMap<Key, Addition>,
) -> anyhow::Result<Vec<(Key, u64, Addition)>> {
    let now = read::now();
    let is_same = |addition: &Addition, value: &Brief<'_>| {
        let until = addition.until.map(|until| until.unix_timestamp());
        let reason = addition.reason.as_ref().map_or("", Reason::as_str);
        !value.is_dead(now)
            && value.until.and_then(|until| i64::try_from(until).ok()) == until
            && value.reason == reason
    };
    let of = |key: &Key, value: &Brief<'_>| Some(is_same(wanted.get(key)?, value));
    let found = read::read(bucket, of).await?;
    let entries = wanted
        .into_iter()
        .filter_map(|(key, addition)| match found.get(&key) {
            Some((_, true)) => None,
            Some(&(revision, false)) => Some((key, revision, addition)),
            None => Some((key, 0, addition)),
        });
    Ok(entries.collect())
}

/// The progress of an import.
#[derive(Default)]
struct Done {
    /// The number of entries that were added.
    added: usize,
    /// The number of entries that others changed meanwhile.
    superseded: usize,
    /// The revisions of those whose events are published.
    own: Vec<u64>,
    /// Why the event of another entry is not published; the last error if there are several.
    unpublished: Option<BucketError>,
}
