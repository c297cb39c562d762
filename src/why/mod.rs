//! `importguard why`: finds decisions in the stream and says why they were made.

mod words;

use std::{
    collections::HashSet,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::{ArgGroup, Args};
use importguard_detector::DECISIONS;
use importguard_gateway::{events::PseudonymSettings, spool::SpoolReader};
use importguard_nats::NatsSettings;
use importguard_runtime::signals;
use tokio_util::sync::CancellationToken;

use self::words::Words;
use crate::{
    events::{Begin, Console, Event, Range, Source, past, rfc3339, time, with_pseudonyms},
    output,
};

const CONSOLE: Console = Console::new("why");

/// How long before the minute of --at, and after it, a decision still matches.
const AROUND: Duration = Duration::from_secs(60);

/// How far back to read without --at and --since.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The subject of OpenIM's reports about completed imports.
const IMPORTED: &str = "importguard.v1.imported";

const EXAMPLES: &str = r#"Examples:
  importguard why --operation-id 1646445464564
  importguard why --owner u7 --at "2026-11-27 14:05"
  importguard why --owner u7 --since 2h --spool /var/lib/importguard/spool

The stream has no index, so every decision and report from the start to now is read. With --at, reading starts a minute earlier, and decisions from a minute before to two minutes after are printed; an event that a gateway had to spool is stored later, and found too.
Times without an offset are in the local time zone (TZ). Printed times are in UTC.

Exit codes: 0 if a decision was found; 1 if none was, or NATS cannot be read; 2 on usage errors."#;

/// Find decisions in NATS and say why they were made
#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("import").args(["operation_id", "owner"]).required(true).multiple(true))]
pub(crate) struct Why {
    /// OpenIM's operationID of the import; also one that the gateway replaced by a generated one
    #[arg(long, value_name = "ID")]
    operation_id: Option<String>,

    /// User who imported friends: the ID, or its pseudonym where events carry pseudonyms and no pseudonym key is set here
    #[arg(long, value_name = "USER")]
    owner: Option<String>,

    /// When it was decided, for example "2026-11-27 14:05", "yesterday 14:05" or 2h (ago) [default: at any time that is read]
    #[arg(long, value_name = "TIME", value_parser = past)]
    at: Option<SystemTime>,

    /// Read events stored since TIME [default: a minute before --at, or the last 24 hours]
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<SystemTime>,

    /// Also search the spool in this directory of a gateway, without changing it
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,

    /// Address of a trace in your tracing system, with {trace} for its ID, for example http://localhost:16686/trace/{trace}
    #[arg(long, value_name = "URL", value_parser = traces_url)]
    traces_url: Option<String>,

    #[command(flatten)]
    nats: NatsSettings,

    #[command(flatten)]
    pseudonyms: PseudonymSettings,
}

impl Why {
    /// Prints what is found in the stream, and in the spool if one is named.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let shutdown = signals::shutdown()?;
        let since = self.since();
        let mut search = Search {
            owners: with_pseudonyms(
                self.owner.iter().cloned().collect(),
                &self.pseudonyms.pseudonyms()?,
            ),
            operation_id: self.operation_id.clone(),
            at: self.at,
            traces_url: self.traces_url.clone(),
            read: 0,
            found: HashSet::new(),
        };
        if let Some(dir) = &self.spool {
            search.spool(dir)?;
        }
        let spooled = std::mem::take(&mut search.read);
        let stream = match self.search_stream(&mut search, since, &shutdown).await {
            Err(error) if self.spool.is_none() || output::error_kind(&error).is_some() => {
                return Err(error);
            }
            // With --spool, the events in the spool have been printed.
            stream => stream,
        };
        self.report(&search, spooled, &stream);
        if shutdown.is_cancelled() {
            CONSOLE.report("interrupted: the rest of the stream was not searched");
        }
        Ok(match search.found.is_empty() || stream.is_err() {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }

    /// Searches the stream. Returns what it no longer has, if so.
    async fn search_stream(
        &self,
        search: &mut Search,
        since: SystemTime,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<String>> {
        let range = Range {
            begin: Begin::At(since),
            until: None,
            follow: false,
        };
        let mut source = Source::connect(&self.nats, range, None, CONSOLE, shutdown).await?;
        source.only(&[DECISIONS, IMPORTED]);
        let mut progress = CONSOLE.progress("read", "events");
        source
            .follow(shutdown.clone(), None, |delivered| {
                progress.show(search.read, delivered.pending);
                search.event(delivered.payload)?;
                Ok(None)
            })
            .await?;
        Ok(source.gap(since))
    }

    fn since(&self) -> SystemTime {
        let before = |time: SystemTime, span| time.checked_sub(span).unwrap_or(time);
        match (self.since, self.at) {
            (Some(since), _) => since,
            (None, Some(at)) => before(at, AROUND),
            (None, None) => before(SystemTime::now(), DAY),
        }
    }

    /// Reports what was searched, and what was not. `stream` is what the stream no longer has, if so, or why it could not be searched.
    fn report(&self, search: &Search, spooled: u64, stream: &anyhow::Result<Option<String>>) {
        let found = search.found.len();
        match stream {
            Ok(gap) => {
                CONSOLE.report(&format!(
                    "events found: {found}; searched {} in the stream since {}",
                    search.read,
                    rfc3339(self.since())
                ));
                if let Some(gap) = gap {
                    CONSOLE.report(gap);
                }
            }
            Err(error) => {
                CONSOLE.report(&format!("events found: {found}"));
                CONSOLE.report(&format!("not searched: the stream, {error:#}"));
            }
        }
        match &self.spool {
            Some(dir) => CONSOLE.report(&format!(
                "searched {spooled} in the spool {}; not searched: spools of other gateways",
                dir.display()
            )),
            None => CONSOLE.report("not searched: spools of gateways (--spool DIR searches one)"),
        }
        if search.found.is_empty() {
            CONSOLE.report(
                "no event: an earlier import (--since), an event in a spool, or a request that was rejected and has no event (see the gateway's log)",
            );
        }
    }
}

/// Parses --traces-url. Without `{trace}`, each decision would have the same address.
fn traces_url(text: &str) -> Result<String, &'static str> {
    if text.contains("{trace}") {
        Ok(text.to_owned())
    } else {
        Err(
            "must have {trace} where the trace's ID belongs, for example http://localhost:16686/trace/{trace}",
        )
    }
}

/// The search criteria, and what was found.
struct Search {
    /// Alternatives, the given one first; empty for any.
    owners: Vec<String>,
    operation_id: Option<String>,
    at: Option<SystemTime>,
    traces_url: Option<String>,
    read: u64,
    /// IDs of the events that were printed: an event may be stored more than once.
    found: HashSet<String>,
}

impl Search {
    /// Searches the spool in `dir`, oldest event first.
    fn spool(&mut self, dir: &Path) -> anyhow::Result<()> {
        SpoolReader::open(dir)?.for_each(|payload| self.event(payload))
    }

    /// Prints the event if it matches.
    fn event(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        // Servers before 2.10 send changes of lists as well: they do not know a consumer with several subjects.
        let Ok(event) = serde_json::from_slice::<Event>(payload) else {
            return Ok(());
        };
        self.read += 1;
        if !self.matches(&event) || !self.found.insert(event.id.clone()) {
            return Ok(());
        }
        let owner = self.owners.first().map(String::as_str);
        let words = Words {
            event: &event,
            owner,
            traces_url: self.traces_url.as_deref(),
        };
        Ok(writeln!(output::stdout(), "{words}")?)
    }

    fn matches(&self, event: &Event) -> bool {
        let data = &event.data;
        let operation = self.operation_id.as_ref();
        operation.is_none_or(|id| data.has_operation_id(id))
            && (self.owners.is_empty() || self.owners.contains(&data.owner_user_id))
            && self.at.is_none_or(|at| is_around(at, event))
    }
}

/// Whether the event was made in the minute of `at`, the one before or the one after.
fn is_around(at: SystemTime, event: &Event) -> bool {
    time(&event.time).is_ok_and(|time| match time.duration_since(at) {
        Ok(later) => later < 2 * AROUND,
        Err(earlier) => earlier.duration() <= AROUND,
    })
}
