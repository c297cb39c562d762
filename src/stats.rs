//! `importguard stats`: counts the decisions in the stream by rule, owner, code or verdict.

use std::{
    collections::HashMap,
    io::{self, Write},
    process::ExitCode,
    time::SystemTime,
};

use clap::{Args, ValueEnum};
use importguard_detector::DECISIONS;
use importguard_nats::NatsSettings;
use importguard_runtime::{settings::count, signals};
use serde::Serialize;

use crate::{
    events::{
        Begin, Console, Data, Delivered, Event, Range, Source, past, printable, printable_json,
        rfc3339, time,
    },
    output,
};

const CONSOLE: Console = Console::new("stats");

const EXAMPLES: &str = r#"Examples:
  importguard stats --since 7d
      which rules refused most in the last week
  importguard stats --since yesterday --until today --by owner --top 10
      who asked most yesterday

DECISIONS is the number of decisions, by rule of those in which it fired; REFUSED of those that refused the import, TRIMMED of those that removed friends, SHADOW of those in which a shadow rule would have done either, FAILED of those in which the rule's expression failed. SHARE is of the column before it.
A decision by a fallback is counted under its cause, such as deciderTimeout, whatever the answer was. An event that was stored twice is counted twice.

--since and --until go by when NATS stored an event, which is later than the decision for events from a spool.
Times without an offset are in the local time zone (TZ). Printed times are in UTC.

Exit codes: 0 on success, also without any event; 1 when NATS cannot be read; 2 on usage errors."#;

/// Count decisions in NATS by rule, owner, code or verdict
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Stats {
    /// Count events stored since TIME: a duration before now (30s, 1h, 7d), or for example 2026-11-27T14:00,
    /// "2026-11-27 14:05 +01:00", 14:05, today, "yesterday 14:05"
    #[arg(long, value_name = "TIME", value_parser = past, default_value = "24h")]
    since: SystemTime,

    /// Count events stored before TIME [default: all that are stored now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<SystemTime>,

    /// What to count by
    #[arg(long, default_value = "rule")]
    by: By,

    /// How many rows to print, those with the highest counts
    #[arg(long, value_name = "N", default_value = "20", value_parser = count::<usize>(1..=u64::MAX))]
    top: usize,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    nats: NatsSettings,
}

/// What decisions are counted by.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
enum By {
    /// The rules that fired
    Rule,
    /// Who imports
    Owner,
    /// The error code of refusals
    Code,
    /// Allow, modify or refuse
    Verdict,
}

impl Stats {
    /// Counts what is stored, and prints the table.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let shutdown = signals::shutdown()?;
        if self.until.is_some_and(|until| until <= self.since) {
            return Ok(CONSOLE.empty_range());
        }
        // Not until now: NATS's clock, by which events are stored, may be ahead of this one. Reading ends with the last event anyway.
        let range = Range {
            begin: Begin::At(self.since),
            until: None,
            follow: false,
        };
        let mut source = Source::connect(&self.nats, range, None, CONSOLE, &shutdown).await?;
        source.only(&[DECISIONS]);
        let mut counts = Counts::default();
        let mut progress = CONSOLE.progress("read", "events");
        source
            .follow(shutdown.clone(), None, |delivered| {
                // Events in the stream have the time of the server that stored them, so earlier ones may follow.
                if !is_after(delivered, self.until) {
                    counts.read(delivered, self.by);
                }
                progress.show(counts.read, delivered.pending);
                Ok(None)
            })
            .await?;
        drop(progress);
        if shutdown.is_cancelled() {
            CONSOLE.report("interrupted: these are not all events of the time range");
        }
        if counts.foreign > 0 {
            CONSOLE.report(&format!(
                "skipped {} messages that are not events",
                counts.foreign
            ));
        }
        let now = SystemTime::now();
        let report = Report {
            by: self.by,
            since: rfc3339(self.since),
            until: rfc3339(self.until.unwrap_or(now).min(now)),
            gap: source.gap(self.since),
            decisions: counts.decisions,
            refused: counts.refused,
            groups: counts.groups.len(),
            rows: counts.rows(self.by, self.top),
        };
        let mut out = output::stdout();
        match self.json {
            true => {
                let report = serde_json::to_string(&report)?;
                writeln!(out, "{}", printable_json(&report))?;
            }
            false => report.write(&mut out)?,
        }
        Ok(match shutdown.is_cancelled() {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }
}

/// Whether an event was stored at or after `until`.
fn is_after(delivered: &Delivered<'_>, until: Option<SystemTime>) -> bool {
    until.is_some_and(|until| delivered.stored.is_some_and(|stored| stored >= until))
}

/// How many decisions there were of each kind, in one group.
#[derive(Clone, Copy, Default)]
struct Tally {
    decisions: u64,
    refused: u64,
    trimmed: u64,
    shadow: u64,
    failed: u64,
}

#[derive(Default)]
struct Counts {
    /// All messages.
    read: u64,
    /// Messages that are not events.
    foreign: u64,
    decisions: u64,
    refused: u64,
    groups: HashMap<String, Tally>,
}

impl Counts {
    fn read(&mut self, delivered: &Delivered<'_>, by: By) {
        self.read += 1;
        match serde_json::from_slice::<Event>(delivered.payload) {
            Ok(event) => self.count(&event.data, by),
            Err(_) => self.foreign += 1,
        }
    }

    fn count(&mut self, data: &Data, by: By) {
        // Without a verdict it is OpenIM's report of a completed import.
        let Some(verdict) = data.verdict.as_deref() else {
            return;
        };
        let refused = verdict == "refuse";
        self.decisions += 1;
        self.refused += u64::from(refused);
        let all = Tally {
            decisions: 1,
            refused: u64::from(refused),
            trimmed: u64::from(verdict == "modify"),
            ..Tally::default()
        };
        match by {
            By::Rule => self.count_rules(data),
            By::Owner => self.add(&data.owner_user_id, all),
            By::Verdict => self.add(verdict, all),
            By::Code => {
                if let Some(refusal) = &data.refusal {
                    self.add(&refusal.code.to_string(), all);
                }
            }
        }
    }

    fn count_rules(&mut self, data: &Data) {
        let mut rules: HashMap<&str, Tally> = HashMap::new();
        // A fallback counts even if it allows.
        if let Some(cause) = &data.cause {
            rules.entry(cause).or_default();
        }
        if let Some(refusal) = &data.refusal {
            let by = refusal.rule.as_deref().or(data.cause.as_deref());
            rules.entry(by.unwrap_or("(none)")).or_default().refused = 1;
        }
        for removal in &data.removed {
            rules.entry(&removal.rule).or_default().trimmed = 1;
        }
        for rule in &data.rules {
            let tally = rules.entry(&rule.id).or_default();
            match (rule.mode.as_str(), rule.outcome.as_str()) {
                (_, "error") => tally.failed = 1,
                ("shadow", "refuse" | "remove") => tally.shadow = 1,
                _ => {}
            }
        }
        for (rule, tally) in rules {
            self.add(
                rule,
                Tally {
                    decisions: 1,
                    ..tally
                },
            );
        }
    }

    fn add(&mut self, group: &str, one: Tally) {
        let tally = match self.groups.get_mut(group) {
            Some(tally) => tally,
            None => self.groups.entry(group.to_owned()).or_default(),
        };
        tally.decisions += one.decisions;
        tally.refused += one.refused;
        tally.trimmed += one.trimmed;
        tally.shadow += one.shadow;
        tally.failed += one.failed;
    }

    /// The `top` rows with the highest counts: of refusals by rule and code, of decisions by owner and verdict.
    fn rows(&self, by: By, top: usize) -> Vec<Row> {
        let ranked_by_refusals = matches!(by, By::Rule | By::Code);
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by(|(a, x), (b, y)| {
            let rank = |tally: &Tally| {
                let refusals = if ranked_by_refusals { tally.refused } else { 0 };
                (refusals, tally.decisions, tally.trimmed)
            };
            rank(y).cmp(&rank(x)).then_with(|| a.cmp(b))
        });
        let rows = groups.into_iter().take(top).map(|(group, tally)| {
            let (part, whole) = if ranked_by_refusals {
                (tally.refused, self.refused)
            } else {
                (tally.decisions, self.decisions)
            };
            let rules = matches!(by, By::Rule);
            Row {
                group: group.clone(),
                decisions: tally.decisions,
                refused: tally.refused,
                trimmed: tally.trimmed,
                shadow: rules.then_some(tally.shadow),
                failed: rules.then_some(tally.failed),
                share: share(part, whole),
            }
        });
        rows.collect()
    }
}

/// A fraction between 0 and 1, to four digits.
fn share(part: u64, whole: u64) -> f64 {
    // Counts of events are far below the precision of f64.
    #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
    let ratio = part as f64 / whole.max(1) as f64;
    (ratio * 10_000.0).round() / 10_000.0
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    by: By,
    since: String,
    until: String,
    /// That earlier events may be missing, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<String>,
    decisions: u64,
    refused: u64,
    /// Total number of rows, printed or not.
    groups: usize,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    group: String,
    decisions: u64,
    refused: u64,
    trimmed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<u64>,
    /// Of all refusals (by rule or code), or of all decisions (by owner or verdict).
    share: f64,
}

impl Report {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { since, until, .. } = self;
        writeln!(
            out,
            "{} decisions from {since} to {until}, {} refused",
            self.decisions, self.refused
        )?;
        if let Some(gap) = &self.gap {
            writeln!(out, "Note: {gap}")?;
        }
        if self.rows.is_empty() {
            return Ok(());
        }
        let (name, columns): (_, &[&str]) = match self.by {
            By::Rule => (
                "RULE",
                &[
                    "DECISIONS",
                    "REFUSED",
                    "SHARE",
                    "TRIMMED",
                    "SHADOW",
                    "FAILED",
                ],
            ),
            By::Code => ("CODE", &["REFUSED", "SHARE"]),
            By::Owner => ("OWNER", &["DECISIONS", "SHARE", "REFUSED", "TRIMMED"]),
            By::Verdict => ("VERDICT", &["DECISIONS", "SHARE"]),
        };
        let groups: Vec<_> = self.rows.iter().map(|row| printable(&row.group)).collect();
        let widths = groups.iter().map(|group| group.chars().count());
        let width = widths.max().unwrap_or_default().max(name.len());
        write!(out, "\n{name:width$}")?;
        for column in columns {
            write!(out, "  {column:>9}")?;
        }
        writeln!(out)?;
        for (group, row) in groups.iter().zip(&self.rows) {
            write!(out, "{group:width$}")?;
            for column in columns {
                match *column {
                    "REFUSED" => write!(out, "  {:>9}", row.refused)?,
                    "TRIMMED" => write!(out, "  {:>9}", row.trimmed)?,
                    "SHADOW" => write!(out, "  {:>9}", row.shadow.unwrap_or_default())?,
                    "FAILED" => write!(out, "  {:>9}", row.failed.unwrap_or_default())?,
                    "SHARE" => write!(out, "  {:>8.1}%", row.share * 100.0)?,
                    _ => write!(out, "  {:>9}", row.decisions)?,
                }
            }
            writeln!(out)?;
        }
        if self.groups > self.rows.len() {
            let more = self.groups - self.rows.len();
            writeln!(out, "… and {more} more; --top prints more rows")?;
        }
        Ok(())
    }
}
