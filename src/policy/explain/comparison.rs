//! Compares a recorded decision with that of the current policy.

use std::{
    collections::HashSet,
    fmt::{self, Display, Formatter},
};

use importguard_core::{Evaluation, ListRevision, Mode, Outcome, Verdict};
use importguard_decider::policy::{Policy, number_of_ids};
use serde_json::{Map, Value, json};

use crate::{
    events::{Data, printable},
    text::first_ids,
};

/// The differences between a recorded decision and the current policy's.
pub(super) struct Comparison {
    then: String,
    /// Differences between the decisions.
    differences: Vec<Difference>,
    /// Differences between the policies and their lists.
    changed: Vec<Difference>,
}

struct Difference {
    what: String,
    then: String,
    now: String,
}

impl Comparison {
    pub(super) fn of(data: &Data, policy: &Policy, evaluation: &Evaluation) -> Self {
        let verdict = data.verdict.as_deref().unwrap_or_default();
        let mut differences = Vec::new();
        let mut compare = |what: &str, then: String, now: String| {
            if then != now {
                let what = what.to_owned();
                differences.push(Difference { what, then, now });
            }
        };
        compare(
            "verdict",
            verdict.to_owned(),
            evaluation.verdict.kind().into_str().to_owned(),
        );
        compare(
            "refusal",
            refusal_then(data),
            refusal_now(&evaluation.verdict),
        );
        // A fallback evaluated no rules.
        if data.policy.is_some() {
            compare("rules", rules_then(data), rules_now(evaluation));
        }
        differences.extend(kept(data, &evaluation.verdict));
        Self {
            then: then(data, verdict),
            differences,
            changed: changed(data, policy, &evaluation.lists),
        }
    }

    /// Whether the current policy makes the same decision.
    pub(super) fn is_same(&self) -> bool {
        self.differences.is_empty()
    }

    /// The recorded decision, in words.
    pub(super) fn then(&self) -> &str {
        &self.then
    }

    pub(super) fn differences_as_json(&self) -> Value {
        as_json(&self.differences)
    }

    pub(super) fn changed_as_json(&self) -> Value {
        as_json(&self.changed)
    }
}

impl Display for Comparison {
    /// The differences, over several lines.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_same() {
            writeln!(f, "  same decision")?;
        }
        for (title, differences) in [
            ("different decision", &self.differences),
            ("changed since then", &self.changed),
        ] {
            if !differences.is_empty() {
                writeln!(f, "  {title}:")?;
            }
            for Difference { what, then, now } in differences {
                writeln!(f, "    {what}: {then} -> {now}")?;
            }
        }
        Ok(())
    }
}

fn as_json(differences: &[Difference]) -> Value {
    let differences = differences
        .iter()
        .map(|Difference { what, then, now }| (what.clone(), json!({ "then": then, "now": now })));
    Value::Object(differences.collect::<Map<_, _>>())
}

fn then(data: &Data, verdict: &str) -> String {
    let result = match verdict {
        "refuse" => format!("refuse: {}", refusal_then(data)),
        "modify" => format!(
            "modify: {} of {} friends are imported",
            data.imported(),
            data.requested()
        ),
        other => printable(other),
    };
    match (&data.cause, &data.policy) {
        (Some(cause), _) => format!("{result}, by the fallback for {}", printable(cause)),
        (None, Some(policy)) => format!(
            "{result}, by policy {} ({})",
            printable(&policy.name),
            printable(&policy.digest)
        ),
        (None, None) => result,
    }
}

/// Maximum number of IDs that are named.
const NAMED: usize = 10;

/// The difference between the friends that were imported and those that would be.
fn kept(data: &Data, verdict: &Verdict) -> Option<Difference> {
    let requested = data.friend_user_ids.len();
    let removals = data.removed.iter();
    let removed: HashSet<usize> = removals.flat_map(|it| &it.friends).copied().collect();
    let was_kept = |index| match data.verdict.as_deref() {
        Some("refuse") => false,
        Some("modify") => !removed.contains(&index),
        _ => true,
    };
    let (mut then, mut now) = (0, 0);
    let (mut added, mut lost) = (Vec::new(), Vec::new());
    for (index, id) in data.friend_user_ids.iter().enumerate() {
        let (before, after) = (was_kept(index), is_kept(verdict, index));
        then += usize::from(before);
        now += usize::from(after);
        match (before, after) {
            (false, true) => added.push(id.as_str()),
            (true, false) => lost.push(id.as_str()),
            _ => {}
        }
    }
    if added.is_empty() && lost.is_empty() {
        return None;
    }
    let named = |what: &str, ids: &[&str]| match ids.is_empty() {
        true => String::new(),
        false => format!(", {what} {}", first_ids(ids, NAMED)),
    };
    Some(Difference {
        what: "kept".to_owned(),
        then: format!("{then} of {requested}"),
        now: format!(
            "{now} of {requested}{}{}",
            named("also", &added),
            named("without", &lost)
        ),
    })
}

fn is_kept(verdict: &Verdict, index: usize) -> bool {
    match verdict {
        Verdict::Allow => true,
        Verdict::Refuse(_) => false,
        Verdict::Modify(kept) => {
            u32::try_from(index).is_ok_and(|index| kept.indexes().binary_search(&index).is_ok())
        }
    }
}

fn refusal_then(data: &Data) -> String {
    let refusal = data.refusal.as_ref().map(|it| {
        let detail = it.detail.as_deref().unwrap_or_default();
        told(it.rule.as_deref(), it.code, &it.message, detail)
    });
    refusal.unwrap_or_else(|| "none".to_owned())
}

fn refusal_now(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Refuse(it) => told(it.rule.as_deref(), it.code.into(), &it.message, &it.detail),
        Verdict::Allow | Verdict::Modify(_) => "none".to_owned(),
    }
}

fn told(rule: Option<&str>, code: i64, message: &str, detail: &str) -> String {
    let by = rule.map(|rule| format!("by rule {rule}: "));
    let by = by.unwrap_or_default();
    printable(&format!("{by}{code} \"{message}\" \"{detail}\""))
}

fn rules_then(data: &Data) -> String {
    let rules = data.rules.iter();
    fired(rules.map(|rule| (rule.id.as_str(), rule.mode.as_str(), rule.outcome.as_str())))
}

fn rules_now(evaluation: &Evaluation) -> String {
    let rules = evaluation.rules.iter();
    fired(rules.map(|rule| {
        let (mode, outcome): (Mode, Outcome) = (rule.mode, rule.outcome);
        (rule.id.as_str(), mode.into_str(), outcome.into_str())
    }))
}

/// `[bots remove, big-import refuse (shadow)]`
fn fired<'r>(rules: impl Iterator<Item = (&'r str, &'r str, &'r str)>) -> String {
    let rules = rules.map(|(id, mode, outcome)| match mode {
        "enforce" => printable(&format!("{id} {outcome}")),
        mode => printable(&format!("{id} {outcome} ({mode})")),
    });
    format!("[{}]", rules.collect::<Vec<_>>().join(", "))
}

fn changed(data: &Data, policy: &Policy, lists: &[ListRevision]) -> Vec<Difference> {
    let mut changed = Vec::new();
    let mut compare = |what: String, then: String, now: String| {
        if then != now {
            changed.push(Difference { what, then, now });
        }
    };
    let Some(then) = &data.policy else {
        return changed;
    };
    compare(
        "policy".to_owned(),
        printable(&format!("{} {}", then.name, then.digest)),
        format!("{} {}", policy.name(), policy.digest()),
    );
    let described =
        |digest: &str, size: u64| printable(&format!("{}, {digest}", number_of_ids(size)));
    for list in lists {
        let before = data.lists.iter().find(|it| it.name == list.name);
        compare(
            format!("list {}", list.name),
            before.map_or("none".to_owned(), |it| described(&it.digest, it.size)),
            described(&list.digest, list.size),
        );
    }
    for list in &data.lists {
        if !lists.iter().any(|it| it.name == list.name) {
            compare(
                format!("list {}", printable(&list.name)),
                described(&list.digest, list.size),
                "none".to_owned(),
            );
        }
    }
    changed
}
