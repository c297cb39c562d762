//! `importguard tail`: prints decisions as they are made, and earlier ones, as text or JSON lines.

mod filter;
mod line;

use std::{io, process::ExitCode, time::SystemTime};

use clap::Args;
use importguard_gateway::events::PseudonymSettings;
use importguard_lists::ListChangedEvent;
use importguard_nats::{NatsSettings, consumer_name};
use importguard_runtime::{settings::count, signals};

use self::filter::{Filter, Matcher};
pub(crate) use self::line::Lines;
use crate::{
    events::{
        Begin, Console, Delivered, Durable, Event, Range, Source, past, printable_json, time,
    },
    output::LineOutput,
};

const CONSOLE: Console = Console::new("tail");

const EXAMPLES: &str = r#"Each line has the time, the verdict, the owner, friends kept/requested, the operationID, and the reason:

  2026-11-23T18:04:05.123Z  modify    user123  2/3  1646445464564  removed 1 by bots

Examples:
  importguard tail
      new decisions
  importguard tail --since 1h --verdict refuse
      imports refused in the last hour, and new ones
  importguard tail --since 30d --operation-id 1646445464564 --count 1
      the decision on one import
  importguard tail --since "yesterday 14:00" --until "yesterday 15:00"
      what was decided then
  importguard tail --since today --no-follow --verdict refuse --json | jq .data.ownerUserID
      whose imports were refused today; without filters, changes of live lists are printed as well
  importguard tail --json --durable archive >> events.jsonl
      every event, including those published while tail was not running

Exit codes:
  0  at the end of what was asked for, on Ctrl-C, and when standard output is closed
  1  when NATS refuses the connection, or --durable was made with other filters
  2  on usage errors
While NATS is unreachable or has no stream yet, tail reports that on standard error and waits; with --no-follow, or an --until that is past, it exits with 1.

--since and --until go by when NATS stored an event, which is later than the decision for events from a spool.
Times without an offset are in the local time zone (TZ). Printed times are in UTC."#;

/// Print decisions from NATS as they are made
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tail {
    /// Start with the events stored since TIME: a duration before now (30s, 1h, 7d), or for example 2026-11-27T14:00,
    /// "2026-11-27 14:05 +01:00", 14:05, today, "yesterday 14:05" [default: new events only, or all if tail does not follow]
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<SystemTime>,

    /// Exit before the first event stored at or after TIME
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<SystemTime>,

    /// Exit after the events that are stored now
    #[arg(long)]
    no_follow: bool,

    /// Save the position under NAME in NATS and resume there next time, with the same filters. Events that the filters skip also
    /// advance the position. --since applies only on first use
    #[arg(long, value_name = "NAME", value_parser = consumer_name)]
    durable: Option<String>,

    /// Exit after printing N events
    #[arg(long, short = 'n', value_name = "N", value_parser = count::<u64>(1..=u64::MAX))]
    count: Option<u64>,

    /// Print each event as one line of JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    nats: NatsSettings,

    #[command(flatten)]
    pseudonyms: PseudonymSettings,
}

impl Tail {
    /// Prints until Ctrl-C, the end of the range, `--count`, or until standard output is closed.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let shutdown = signals::shutdown()?;
        let range = self.range();
        if range.is_empty() {
            return Ok(CONSOLE.empty_range());
        }
        let pseudonyms = self.pseudonyms.pseudonyms()?;
        let filters = self.filter.flags(&pseudonyms);
        let durable = self.durable.map(|name| Durable { name, filters });
        let mut printer = Printer {
            matcher: self.filter.matcher(&pseudonyms),
            json: self.json,
            lines: Lines::for_stdout(),
            out: LineOutput::new(),
            started: false,
            reads_past: !matches!(range.begin, Begin::Next),
            hinted: false,
            left: self.count,
        };
        let connected = Source::connect(&self.nats, range, durable, CONSOLE, &shutdown).await;
        // Ctrl-C is the way to end it.
        if shutdown.is_cancelled() {
            return Ok(ExitCode::SUCCESS);
        }
        let mut source = connected?;
        source
            .follow(shutdown, self.count, |event| printer.print(event))
            .await?;
        printer.hint();
        if !range.follow && printer.matcher.is_unused() {
            CONSOLE.report("the stream has no event in this range");
        }
        if let (Begin::At(since), false) = (range.begin, range.follow)
            && let Some(gap) = source.gap(since)
        {
            CONSOLE.report(&gap);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn range(&self) -> Range {
        let past = self.until.is_some_and(|until| until <= SystemTime::now());
        let follow = !self.no_follow && !past;
        Range {
            begin: match self.since {
                Some(since) => Begin::At(since),
                None if follow => Begin::Next,
                None => Begin::First,
            },
            until: self.until,
            follow,
        }
    }
}

/// Prints the events that match.
struct Printer {
    matcher: Matcher,
    json: bool,
    lines: Lines,
    out: LineOutput,
    /// Whether anything was printed.
    started: bool,
    /// Whether stored events are read first; hints are useful once all of them are read.
    reads_past: bool,
    /// Whether hints were printed.
    hinted: bool,
    /// How many more to print, if there is a limit.
    left: Option<u64>,
}

impl Printer {
    /// Prints an event if it matches. Returns how many more to print, if there is a limit.
    fn print(&mut self, delivered: &Delivered<'_>) -> anyhow::Result<Option<u64>> {
        self.print_event(delivered.payload)?;
        if delivered.pending == 0 && self.reads_past {
            self.hint();
        }
        Ok(self.left)
    }

    fn print_event(&mut self, payload: &[u8]) -> io::Result<()> {
        match serde_json::from_slice::<Event>(payload) {
            Ok(event) if self.matcher.matches(&event) => {
                self.write(payload, |lines| lines.line(&event))
            }
            Ok(_) => Ok(()),
            Err(error) => match serde_json::from_slice::<ListChangedEvent>(payload) {
                Ok(change) if self.matcher.matches_change(&change) => {
                    self.write(payload, |lines| lines.change(&change))
                }
                Ok(_) => Ok(()),
                Err(_) => {
                    CONSOLE.report(&format!("skipped a message that is not an event: {error}"));
                    Ok(())
                }
            },
        }
    }

    fn write(&mut self, payload: &[u8], line: impl FnOnce(&mut Lines) -> String) -> io::Result<()> {
        let mut text = String::new();
        if self.json {
            text += &json_line(payload)?;
        } else {
            if !self.started
                && let Some(header) = self.lines.header()
            {
                text = header + "\n";
            }
            self.started = true;
            text += &line(&mut self.lines);
        }
        text.push('\n');
        self.out.write(&text)?;
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(())
    }

    /// Prints hints once, when all stored events were read or at the end.
    fn hint(&mut self) {
        if !self.hinted {
            self.hinted = true;
            self.matcher.hint(CONSOLE);
        }
    }
}

/// Formats a payload as one line. importguard's payloads are single lines already; others are reformatted.
fn json_line(payload: &[u8]) -> serde_json::Result<String> {
    let payload = String::from_utf8_lossy(payload);
    if payload.contains('\n') {
        let value: serde_json::Value = serde_json::from_str(&payload)?;
        Ok(printable_json(&value.to_string()).into_owned())
    } else {
        Ok(printable_json(&payload).into_owned())
    }
}
