//! An explanation as a table and as JSON.

use std::{iter, time::SystemTime};

use importguard_core::{Evaluation, Mode, Verdict};
use importguard_decider::{
    lists::live::LiveLists,
    policy::{Explanation, Happened, Outside, Policy, Reason, Request, Step},
};
use serde_json::{Map, Value, json};

use crate::events::{exact_rfc3339, friends, printable, rfc3339};

/// An import that is explained.
pub(super) struct Import<'a> {
    pub(super) operation_id: &'a str,
    pub(super) owner: &'a str,
    pub(super) friends: &'a [String],
    pub(super) now: SystemTime,
    /// Replaces the percentages of rollouts.
    pub(super) rollout: Option<u8>,
}

impl Import<'_> {
    pub(super) fn explain<'p>(&self, policy: &'p Policy, live: &'p LiveLists) -> Explanation<'p> {
        let request = Request {
            operation_id: self.operation_id,
            owner: self.owner,
            friends: self.friends,
            now: self.now,
        };
        policy.with_live(live).explain(&request, self.rollout)
    }

    pub(super) fn table(&self, policy: &Policy, explanation: &Explanation<'_>) -> String {
        format!(
            "policy {} ({}), owner \"{}\", {}, {}\n\n{}\n{}",
            printable(policy.name()),
            policy.digest(),
            printable(self.owner),
            friends(self.friends.len()),
            rfc3339(self.now),
            self.steps(explanation),
            printable(&self.verdict(&explanation.evaluation))
        )
    }

    /// A line for each rule.
    pub(super) fn steps(&self, explanation: &Explanation<'_>) -> String {
        let rows: Vec<[String; 4]> = explanation
            .steps
            .iter()
            .map(|step| {
                [
                    printable(step.rule),
                    step.kind.to_owned(),
                    mode(step.mode).to_owned(),
                    printable(&step.describe(self.friends)),
                ]
            })
            .collect();
        let head = ["rule", "kind", "mode", "result"].map(str::to_owned);
        let width = |column: usize| {
            let cells = rows.iter().chain([&head]).map(|row| &row[column]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths = [width(0), width(1), width(2)];
        let descriptions = explanation.steps.iter().map(|step| step.description);
        let descriptions = iter::once(None).chain(descriptions);
        let mut text = String::new();
        for ([rule, kind, mode, happened], description) in
            iter::once(&head).chain(&rows).zip(descriptions)
        {
            let [a, b, c] = widths;
            text.push_str(&format!("  {rule:a$}  {kind:b$}  {mode:c$}  {happened}\n"));
            if let Some(description) = description {
                let words: Vec<_> = description.split_whitespace().collect();
                text.push_str(&format!("      # {}\n", printable(&words.join(" "))));
            }
        }
        text
    }

    pub(super) fn verdict(&self, decision: &Evaluation) -> String {
        match &decision.verdict {
            Verdict::Allow if self.friends.is_empty() => "allow: there are no friends".to_owned(),
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

    pub(super) fn json(&self, policy: &Policy, explanation: &Explanation<'_>) -> Value {
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
                "now": exact_rfc3339(self.now.into()),
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
        set("text", step.describe(self.friends).into());
        if let Some(Outside { bucket, per_cent }) = step.outside {
            set("bucket", bucket.into());
            set("rollout", per_cent.into());
        }
        if let Some(more) = &step.lists_in_shadow {
            let mut would = json!({ "happened": happened(more) });
            match more {
                Happened::Removed { friends, .. } => would["removed"] = self.removed(friends),
                Happened::Refused(reason) => would["because"] = reason.to_string().into(),
                _ => {}
            }
            set("listsInShadow", would);
        }
        match &step.happened {
            Happened::Removed { friends, failure } => {
                set("removed", self.removed(friends));
                if let Some(failure) = failure {
                    set("failure", failure.as_str().into());
                }
            }
            Happened::Refused(reason) => {
                set("because", reason.to_string().into());
            }
            Happened::Skipped { failure } => {
                set("failure", failure.as_str().into());
            }
            Happened::OverBudget { cost, left } => {
                set("cost", (*cost).into());
                set("left", (*left).into());
            }
            Happened::NotWhen { when } => {
                set("when", (*when).into());
            }
            Happened::WithinLimit { friends, max } => {
                set("friends", (*friends).into());
                set("max", (*max).into());
            }
            Happened::NotReached | Happened::Off | Happened::OutsideRollout | Happened::Nothing => {
            }
        }
        Value::Object(output)
    }

    fn removed(&self, friends: &[(u32, Reason<'_>)]) -> Value {
        let removed = friends.iter().map(|(index, reason)| {
            json!({ "index": index, "friend": self.friend(*index), "because": reason.to_string() })
        });
        removed.collect()
    }
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
        Happened::OutsideRollout => "outsideRollout",
        Happened::NotWhen { .. } => "notWhen",
        Happened::Nothing | Happened::WithinLimit { .. } => "nothing",
        Happened::Refused(_) => "refused",
        Happened::Removed { .. } => "removed",
        Happened::Skipped { .. } => "skipped",
        Happened::OverBudget { .. } => "overBudget",
    }
}
