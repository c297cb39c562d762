use std::{iter, path::PathBuf, process::ExitCode, time::SystemTime};

use clap::Args;
use importguard_core::{Evaluation, Mode, Verdict};
use importguard_decider::{
    load::load,
    policy::{Explanation, Happened, Policy, Reason, Request, Step},
    tabletest::parse_time,
};
use serde_json::{Map, Value, json};

use super::{FINDINGS, LargestImport, friends, print};

#[derive(Args)]
pub(crate) struct Explain {
    /// User who imports friends (OpenIM's ownerUserID)
    #[arg(long, value_name = "ID")]
    owner: String,

    /// Friends to import (OpenIM's friendUserIDs), comma-separated; may be repeated
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    friends: Vec<String>,

    /// operationID in expressions
    #[arg(long, value_name = "ID", default_value = "explain")]
    operation_id: String,

    /// Time for `now` in expressions, as in tests: 2026-01-31T12:00:00Z, or with an offset, 2026-01-31T13:00:00+01:00 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<SystemTime>,

    /// Policy file
    #[arg(
        long,
        env = "IMPORTGUARD_POLICY",
        value_name = "FILE",
        default_value = "policy/policy.yaml"
    )]
    policy: PathBuf,

    #[command(flatten)]
    largest: LargestImport,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let policy = match load(&self.policy, self.largest.max_friends) {
            Ok(policy) => policy,
            Err(diagnostics) => {
                print(&diagnostics)?;
                return Ok(ExitCode::from(FINDINGS));
            }
        };
        let explanation = policy.explain(&Request {
            operation_id: &self.operation_id,
            owner: &self.owner,
            friends: &self.friends,
            now: self.at.unwrap_or_else(SystemTime::now),
        });
        if self.json {
            let output = self.as_json(&policy, &explanation);
            print(serde_json::to_string_pretty(&output)?)?;
        } else {
            print(self.as_table(&policy, &explanation))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn as_table(&self, policy: &Policy, explanation: &Explanation<'_>) -> String {
        let rows: Vec<[String; 4]> = explanation
            .steps
            .iter()
            .map(|step| {
                [
                    step.rule.to_owned(),
                    step.kind.to_owned(),
                    mode(step.mode).to_owned(),
                    step.describe(&self.friends),
                ]
            })
            .collect();
        let head = ["rule", "kind", "mode", "result"].map(str::to_owned);
        let width = |column: usize| {
            let cells = rows.iter().chain([&head]).map(|row| &row[column]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths = [width(0), width(1), width(2)];
        let mut text = format!(
            "policy {} ({}), owner \"{}\", {}\n\n",
            policy.name(),
            policy.digest(),
            self.owner,
            friends(self.friends.len())
        );
        let descriptions = explanation.steps.iter().map(|step| step.description);
        let descriptions = iter::once(None).chain(descriptions);
        for ([rule, kind, mode, happened], description) in
            iter::once(&head).chain(&rows).zip(descriptions)
        {
            let [a, b, c] = widths;
            text.push_str(&format!("  {rule:a$}  {kind:b$}  {mode:c$}  {happened}\n"));
            if let Some(description) = description {
                let words: Vec<_> = description.split_whitespace().collect();
                text.push_str(&format!("      # {}\n", words.join(" ")));
            }
        }
        text.push('\n');
        text.push_str(&self.verdict(&explanation.evaluation));
        text
    }

    fn verdict(&self, decision: &Evaluation) -> String {
        match &decision.verdict {
            Verdict::Allow => "allow: all friends are imported".to_owned(),
            Verdict::Modify(kept) => format!(
                "modify: {} of {} friends are imported: {}",
                kept.indexes().len(),
                self.friends.len(),
                self.quoted(kept.indexes())
            ),
            Verdict::Refuse(refusal) => format!(
                "refuse: by rule {}: {} \"{}\" \"{}\"",
                refusal.rule.as_deref().unwrap_or_default(),
                refusal.code,
                refusal.message,
                refusal.detail
            ),
        }
    }

    fn named(&self, indexes: &[u32]) -> Vec<&str> {
        indexes.iter().map(|&index| self.friend(index)).collect()
    }

    fn quoted(&self, indexes: &[u32]) -> String {
        let quoted = indexes
            .iter()
            .map(|&index| format!("\"{}\"", self.friend(index)));
        quoted.collect::<Vec<_>>().join(", ")
    }

    fn friend(&self, index: u32) -> &str {
        self.friends.get(index as usize).map_or("", String::as_str)
    }

    fn as_json(&self, policy: &Policy, explanation: &Explanation<'_>) -> Value {
        let steps: Vec<_> = explanation
            .steps
            .iter()
            .map(|step| self.step(step))
            .collect();
        let mut output = json!({
            "policy": { "name": policy.name(), "digest": policy.digest() },
            "request": {
                "operationID": self.operation_id,
                "ownerUserID": self.owner,
                "friendUserIDs": self.friends,
            },
            "steps": steps,
        });
        match &explanation.evaluation.verdict {
            Verdict::Allow => {
                output["verdict"] = "allow".into();
                output["kept"] = json!(self.friends);
            }
            Verdict::Modify(kept) => {
                output["verdict"] = "modify".into();
                output["kept"] = json!(self.named(kept.indexes()));
            }
            Verdict::Refuse(refusal) => {
                output["verdict"] = "refuse".into();
                output["kept"] = json!([]);
                output["refusal"] = json!({
                    "rule": refusal.rule,
                    "code": refusal.code,
                    "message": refusal.message,
                    "detail": refusal.detail,
                });
            }
        }
        output
    }

    fn step(&self, step: &Step<'_>) -> Value {
        let mut output = Map::new();
        let mut set = |name: &str, value: Value| output.insert(name.to_owned(), value);
        set("rule", step.rule.into());
        set("kind", step.kind.into());
        set("mode", mode(step.mode).into());
        if let Some(description) = step.description {
            set("description", description.into());
        }
        set("happened", happened(&step.happened).into());
        set("text", step.describe(&self.friends).into());
        match &step.happened {
            Happened::Removed { friends, failure } => {
                let removed = friends.iter().map(|(index, reason)| {
                    json!({ "index": index, "friend": self.friend(*index), "because": because(reason) })
                });
                set("removed", removed.collect());
                if let Some(failure) = failure {
                    set("failure", failure.as_str().into());
                }
            }
            Happened::Refused(reason) => {
                set("because", because(reason).into());
            }
            Happened::Skipped { failure } => {
                set("failure", failure.as_str().into());
            }
            Happened::OverBudget { cost, left } => {
                set("cost", (*cost).into());
                set("left", (*left).into());
            }
            Happened::OutsideRollout { bucket, per_cent } => {
                set("bucket", (*bucket).into());
                set("rollout", (*per_cent).into());
            }
            Happened::NotWhen { when } => {
                set("when", (*when).into());
            }
            Happened::WithinLimit { friends, max } => {
                set("friends", (*friends).into());
                set("max", (*max).into());
            }
            Happened::NotReached | Happened::Off | Happened::Nothing => {}
        }
        Value::Object(output)
    }
}

/// Parses a time as `policy test` does.
fn time(text: &str) -> Result<SystemTime, &'static str> {
    parse_time(text)
        .ok_or("use RFC 3339, such as 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00")
}

fn because(reason: &Reason<'_>) -> String {
    reason.to_string()
}

fn mode(mode: Option<Mode>) -> &'static str {
    match mode {
        Some(Mode::Enforce) => "enforce",
        Some(Mode::Shadow) => "shadow",
        None => "off",
    }
}

fn happened(happened: &Happened<'_>) -> &'static str {
    match happened {
        Happened::NotReached => "notReached",
        Happened::Off => "off",
        Happened::OutsideRollout { .. } => "outsideRollout",
        Happened::NotWhen { .. } => "notWhen",
        Happened::Nothing | Happened::WithinLimit { .. } => "nothing",
        Happened::Refused(_) => "refused",
        Happened::Removed { .. } => "removed",
        Happened::Skipped { .. } => "skipped",
        Happened::OverBudget { .. } => "overBudget",
    }
}
