//! `importguard tail`: prints decisions as they are made, and earlier ones, as text or JSON lines.

mod filter;
mod line;
mod source;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use importguard_gateway::events::PseudonymSettings;
use importguard_gateway::recorder::NatsSettings;
use importguard_runtime::{
    settings::{count, duration_or_zero},
    signals,
};

use self::{
    filter::{Filter, Matcher},
    line::{Paint, TailEvent},
    source::{Begin, Consumed, Source},
};

const EXAMPLES: &str = "\
Each line has the time, the verdict, the owner, friends kept/requested, the operationID, and the reason:

  2026-11-23T18:04:05.123Z  modify    user123  2/3  1646445464564  removed 1 by bots

Examples:
  importguard tail
      new decisions
  importguard tail --since 1h --verdict refuse
      imports refused in the last hour, and new ones
  importguard tail --since 30d --operation-id 1646445464564 --count 1
      the decision on one import
  importguard tail --json --durable archive >> events.jsonl
      every event, including those published while tail was not running

Exit codes:
  0  after --count events, on Ctrl-C, and when standard output is closed
  1  when NATS refuses the connection
  2  on usage errors
While NATS is unreachable or has no stream yet, tail reports that on standard error and waits.";

/// Print decisions from NATS as they are made
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tail {
    /// Start with the events of the last DURATION, for example 30s, 1h or 7d [default: new events only]
    #[arg(long, value_name = "DURATION", value_parser = duration_or_zero)]
    since: Option<Duration>,

    /// Save the position under NAME in NATS and resume there next time. Events that the filters skip also advance the position.
    /// --since applies only on first use
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
    /// Prints until Ctrl-C, until `--count` is reached, or until standard output is closed.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let shutdown = signals::shutdown()?;
        let begin = match self.since {
            None => Begin::Next,
            Some(since) => Begin::ago(since),
        };
        let mut printer = Printer {
            matcher: self.filter.matcher(&self.pseudonyms.pseudonyms()?),
            json: self.json,
            paint: Paint::for_terminal(io::stdout().is_terminal()),
            left: self.count,
        };
        let mut source = tokio::select! {
            source = Source::connect(&self.nats, begin, self.durable) => source?,
            () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
        };
        source
            .follow(shutdown, self.count, |payload| printer.print(payload))
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints the events that match.
struct Printer {
    matcher: Matcher,
    json: bool,
    paint: Paint,
    /// How many more to print, if there is a limit.
    left: Option<u64>,
}

impl Printer {
    fn print(&mut self, payload: &[u8]) -> anyhow::Result<Consumed> {
        let event = match serde_json::from_slice::<TailEvent>(payload) {
            Ok(event) => event,
            Err(error) => {
                source::report(&format!("skipped a message that is not an event: {error}"));
                return Ok(self.consumed());
            }
        };
        if !self.matcher.matches(&event) {
            return Ok(self.consumed());
        }
        let written = if self.json {
            write_json(payload)
        } else {
            writeln!(io::stdout(), "{}", self.paint.line(&event))
                .and_then(|()| io::stdout().flush())
        };
        match written {
            Ok(()) => {
                self.left = self.left.map(|left| left.saturating_sub(1));
                Ok(self.consumed())
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Consumed::Stop),
            Err(error) => Err(error).context("cannot write to standard output"),
        }
    }

    fn consumed(&self) -> Consumed {
        match self.left {
            Some(0) => Consumed::Last,
            left => Consumed::More(left),
        }
    }
}

/// importguard's payloads are single lines already; others are reformatted.
fn write_json(payload: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if payload.contains(&b'\n') {
        let value: serde_json::Value = serde_json::from_slice(payload)?;
        serde_json::to_writer(&mut out, &value)?;
    } else {
        out.write_all(payload)?;
    }
    out.write_all(b"\n")?;
    out.flush()
}

/// Parses a name that NATS accepts for a consumer.
fn consumer_name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !text.is_empty() && text.len() <= 64 && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits, - or _".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_name_has_no_special_characters_of_nats() {
        assert!(consumer_name("archive-2_b").is_ok());
        for bad in ["", "a.b", "a*", ">", "a b", "ä"] {
            assert!(consumer_name(bad).is_err(), "{bad}");
        }
    }
}
