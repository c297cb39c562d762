//! `importguard detect`: adds owners to live lists based on events about their decisions.

use std::{io::Write, process::ExitCode, time::SystemTime};

use clap::Args;
use importguard_detector::{DECISIONS, Settings, Simulation, Would};
use importguard_nats::NatsSettings;
use importguard_runtime::{RuntimeSettings, ThreadSettings, block_on, signals};

use crate::{
    events::{Begin, Console, Range, Source, past, printable, rfc3339},
    output,
    text::counted,
};

const CONSOLE: Console = Console::new("detect");

const EXAMPLES: &str = r#"Examples:
  importguard detect --rules policy/detector.yaml
      put owners on live lists, as long as it runs. Run one detector, with one process, for a file of rules
  importguard detect --dry-run --since 24h --no-follow
      whom the rules would have put on which list during the last day; nothing is written

Exit codes: 0 on success; 1 when the rules are invalid or NATS rejects the connection; 2 on usage errors.
While NATS is unreachable, a detector that runs waits for it; /readyz and /metrics say so."#;

/// Put owners on live lists by rules about their decisions: so many refusals, or different friends, within a time
#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:8083")))]
pub(crate) struct Detect {
    #[command(flatten)]
    settings: Settings,

    /// Print what would be done, and write nothing: neither lists nor a position. There is no admin listener
    #[arg(long)]
    dry_run: bool,

    /// For a dry run, start with the events stored since TIME: a duration before now (30s, 1h, 7d), or for example 2026-11-27T14:00
    /// [default: new events only]
    #[arg(long, value_name = "TIME", value_parser = past, requires = "dry_run")]
    since: Option<SystemTime>,

    /// End a dry run after the events that are stored now
    #[arg(long, requires = "since")]
    no_follow: bool,

    #[command(flatten)]
    nats: NatsSettings,

    #[command(flatten)]
    runtime: RuntimeSettings,
}

impl Detect {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        if self.dry_run {
            return block_on(ThreadSettings::TWO, self.simulate())?;
        }
        let instance = Some(self.settings.consumer.as_str());
        let (settings, nats) = (&self.settings, &self.nats);
        let run = async |runtime| Ok(importguard_detector::run(settings, nats, runtime).await?);
        self.runtime.run("importguard-detect", instance, run)
    }

    async fn simulate(&self) -> anyhow::Result<ExitCode> {
        let shutdown = signals::shutdown()?;
        let rules = self.settings.load_rules()?;
        let since = self.since.unwrap_or_else(SystemTime::now);
        let before = since.checked_sub(rules.longest_window() * 2);
        let range = Range {
            begin: Begin::At(before.unwrap_or(SystemTime::UNIX_EPOCH)),
            until: None,
            follow: !self.no_follow,
        };
        let connected = Source::connect(&self.nats, range, None, CONSOLE, &shutdown).await;
        // Ctrl-C is the way to end a dry run that follows.
        if shutdown.is_cancelled() && range.follow {
            return Ok(ExitCode::SUCCESS);
        }
        let mut source = connected?;
        source.only(&[DECISIONS]);
        let mut simulation = Simulation::new(rules, &self.settings);
        let (mut decisions, mut skipped, mut found) = (0_u64, 0_u64, 0_u64);
        source
            .follow(shutdown.clone(), None, |delivered| {
                let stored = delivered.stored.unwrap_or_else(SystemTime::now);
                let act = stored >= since;
                decisions += u64::from(act);
                let Some(would) = simulation.observe(delivered.payload, stored, act) else {
                    skipped += u64::from(act);
                    return Ok(None);
                };
                found += would.len() as u64;
                let mut out = output::stdout();
                for would in &would {
                    writeln!(out, "{}", line(would))?;
                }
                out.flush()?;
                Ok(None)
            })
            .await?;
        let unusable = match skipped {
            0 => String::new(),
            skipped => format!(", {skipped} of which are not decisions with user IDs"),
        };
        if let Some(gap) = self.since.and_then(|since| source.gap(since)) {
            CONSOLE.report(&gap);
        }
        CONSOLE.report(&format!(
            "dry run: {} read{unusable}; {} would have been made",
            counted(decisions, "event", "events"),
            counted(found, "entry", "entries"),
        ));
        if self.no_follow && shutdown.is_cancelled() {
            CONSOLE.report("interrupted: these are not all events");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Formats an entry that would be made:
/// `2026-11-23T18:04:05Z  suspects  user123  until 2026-11-23T19:04:05Z  hammering: 20 refusals within 10m`
fn line(would: &Would) -> String {
    let (at, until) = (rfc3339(would.at.into()), rfc3339(would.until.into()));
    let Would { list, evidence, .. } = would;
    let owner = printable(&would.owner);
    format!("{at}  {list}  {owner}  until {until}  {evidence}")
}
