mod comparison;
mod live;
mod recorded;
mod report;

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use clap::{ArgGroup, Args};
use importguard_core::{IdError, OperationId, UserId};
use importguard_decider::{load::load, tabletest::parse_rollout};

use self::{
    live::{Live, LiveFile},
    recorded::Recorded,
    report::Import,
};
use super::{LargestImport, input_file};
use crate::{
    events::{printable_json, time},
    output::{print, report, usage_error},
};

const AFTER_HELP: &str = r#"Examples:
  importguard policy explain --owner user123 --friends user456,bot_7
  importguard tail --since 7d --no-follow --json > week.jsonl
  importguard policy explain --policy new.yaml --event week.jsonl
      which of last week's decisions a new policy would change, and how; the last line counts them
  importguard list export blocked > blocked.jsonl
  importguard policy explain --owner user123 --live blocked=blocked.jsonl
      with the entries of a live list, which nobody is on otherwise

Exit codes:
  0  the import was explained; with --event, every decision is the same
  1  the policy or its lists have errors; with --event, a decision differs
  2  on usage errors; with --event, if there is no decision, or one that cannot be repeated

Events with pseudonyms, and those that were too large for NATS, cannot be decided again: they do not have the IDs that a policy needs. Events have no entries of live lists, either: give them with --live."#;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
#[command(group = ArgGroup::new("import").args(["owner", "event"]).required(true).multiple(true))]
pub(crate) struct Explain {
    /// User who imports friends (OpenIM's ownerUserID)
    #[arg(long, value_name = "ID", value_parser = user_id)]
    owner: Option<String>,

    /// Friends to import (OpenIM's friendUserIDs), comma-separated; may be repeated
    #[arg(long, value_name = "ID,…", value_delimiter = ',', value_parser = user_id)]
    friends: Vec<String>,

    /// Another friend to import, whose ID may contain commas; may be repeated
    #[arg(long, value_name = "ID", value_parser = user_id)]
    friend: Vec<String>,

    /// operationID in expressions
    #[arg(long, value_name = "ID", default_value = "explain", value_parser = operation_id)]
    operation_id: String,

    /// Time for `now` in expressions, such as 2026-01-31T12:00:00Z; without an offset in the local zone: "2026-01-31 13:00",
    /// "yesterday 14:05"; or 2h for two hours ago [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<SystemTime>,

    /// Decide the events in FILE, or in standard input with "-", again: each as if it were its time, by the current policy and
    /// lists. FILE has one or more events as JSON, such as `importguard tail --json` prints
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["owner", "friends", "friend", "operation_id", "at"]
    )]
    event: Option<PathBuf>,

    /// Explain as if every rollout had this percentage; in and out are 100 and 0 [default: as in the policy]
    #[arg(long, value_name = "PERCENT", value_parser = rollout)]
    rollout: Option<u8>,

    /// Use the entries in FILE for the live list NAME ({ live: NAME } in the policy), as `importguard list export NAME` prints them;
    /// may be repeated [default: nobody is on a live list]
    #[arg(long, value_name = "NAME=FILE")]
    live: Vec<LiveFile>,

    /// Policy file
    #[arg(
        long,
        env = "IMPORTGUARD_POLICY",
        value_name = "FILE",
        default_value = "policy/policy.yaml",
        value_parser = input_file()
    )]
    policy: PathBuf,

    #[command(flatten)]
    largest: LargestImport,

    /// Print JSON instead of a table; with --event, a line for each decision
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let policy = match load(&self.policy, self.largest.max_friends) {
            Ok(policy) => policy,
            Err(diagnostics) => {
                print(&diagnostics)?;
                return Ok(ExitCode::FAILURE);
            }
        };
        let live = match Live::read(&policy, &self.live) {
            Ok(live) => live,
            Err(error) => return Ok(usage_error(format_args!("{error:#}"))),
        };
        if let Some(note) = live.note() {
            report(note);
        }
        if let Some(file) = &self.event {
            return Recorded::new((&policy, &live), self.rollout, self.json).run(file);
        }
        let friends = [&self.friends[..], &self.friend].concat();
        let import = Import {
            operation_id: &self.operation_id,
            owner: self.owner.as_deref().unwrap_or_default(),
            friends: &friends,
            now: self.at.unwrap_or_else(SystemTime::now),
            rollout: self.rollout,
        };
        let explanation = import.explain(&policy, &live.lists);
        if self.json {
            let output = import.json(&policy, &explanation);
            print(printable_json(&format!("{output:#}")))?;
        } else {
            print(import.table(&policy, &explanation))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Parses a user ID as in a callback, where the gateway rejects others.
fn user_id(text: &str) -> Result<String, IdError> {
    UserId::parse_in_callback(text).map(String::from)
}

/// Parses an operation ID as in a callback, where the gateway rejects others.
fn operation_id(text: &str) -> Result<String, IdError> {
    OperationId::parse(text).map(String::from)
}

/// Parses a rollout as `policy test` does.
fn rollout(text: &str) -> Result<u8, &'static str> {
    parse_rollout(text).ok_or("use in, out, or a percentage from 0 to 100")
}
