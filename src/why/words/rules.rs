//! What the rules of a policy did, in words.

use super::{friends, list};
use crate::events::{Data, Fired, printable};

/// The rule ID of a refusal because other rules removed all friends.
const NOBODY_LEFT: &str = "nobodyLeft";

/// What each rule did, in the policy's order, over one or more lines.
pub(super) fn rules(data: &Data, owner: &str) -> Vec<String> {
    let rules = data.rules.iter();
    let lines: Vec<_> = rules.flat_map(|it| rule(it, data, owner)).collect();
    if lines.is_empty() && data.policy.is_some() {
        return vec!["none matched".to_owned()];
    }
    lines
}

fn rule(rule: &Fired, data: &Data, owner: &str) -> Vec<String> {
    let id = printable(&rule.id);
    let why = rule.reason.as_deref().map(printable);
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let (line, details) = match (rule.mode.as_str(), rule.outcome.as_str()) {
        ("enforce", "remove") => removed(rule, data),
        ("enforce", "refuse") if rule.id == NOBODY_LEFT => {
            let emptied = emptied_by(data);
            let line = format!("{id} refused the import: {emptied} removed every friend");
            (line, Vec::new())
        }
        ("enforce", "refuse") => (
            format!("{id} refused the import{}", about_import(rule, owner)),
            Vec::new(),
        ),
        ("enforce", "error") => {
            let refused = data.refusal.as_ref().and_then(|it| it.rule.as_deref());
            let effect = match refused == Some(&rule.id) {
                true => "it refused the import",
                false if data.removed.iter().any(|it| it.rule == rule.id) => {
                    "the friends for which it failed were kept"
                }
                false => "it was skipped",
            };
            let line = format!("{id} failed: its expression could not be evaluated{why}; {effect}");
            (line, Vec::new())
        }
        (_, "skipped") => (
            format!("{id} (shadow) was skipped: it would have cost too much"),
            Vec::new(),
        ),
        (_, "error") => (
            format!(
                "{id} (shadow) failed: its expression could not be evaluated{why}; it had no effect"
            ),
            Vec::new(),
        ),
        (_, "remove") => {
            let count = rule.matched.iter().filter(|it| it.is_of_friends());
            let count = count.fold(rule.unlisted, |sum, it| sum.saturating_add(it.count));
            let what = match count {
                0 => "remove friends".to_owned(),
                count => format!("remove {}", friends(saturated(count))),
            };
            (
                format!(
                    "{id} (shadow) would {what}, and had no effect{}",
                    about_import(rule, owner)
                ),
                parts(rule, data),
            )
        }
        (_, outcome) => (
            format!(
                "{id} (shadow) would {}, and had no effect{}",
                printable(outcome),
                about_import(rule, owner)
            ),
            Vec::new(),
        ),
    };
    let details = details.into_iter().map(|detail| format!("  {detail}"));
    [line].into_iter().chain(details).collect()
}

fn removed(rule: &Fired, data: &Data) -> (String, Vec<String>) {
    let id = printable(&rule.id);
    let removal = data.removed.iter().find(|removal| removal.rule == rule.id);
    let count = removal.map_or(0, |removal| removal.count());
    let ids = removal.iter().flat_map(|removal| &removal.friends);
    let ids = named(ids, data);
    let of = data.requested();
    let limit = rule.matched.iter().find(|it| !it.is_of_friends());
    let limit = limit.and_then(|it| it.part());
    let limit = limit.map(|it| format!(" ({it})")).unwrap_or_default();
    let head = format!("{id} removed {count} of {of}{limit}");
    match &rule.matched[..] {
        // One part matched all of them, so the IDs are not repeated.
        [one] if one.is_of_friends() && rule.unlisted == 0 => match one.part_or_expression() {
            Some(part) => (format!("{head} by {part}{ids}"), Vec::new()),
            None => (format!("{head}{ids}"), Vec::new()),
        },
        _ => (format!("{head}{ids}"), parts(rule, data)),
    }
}

/// The parts of the rule that matched friends, with these friends.
fn parts(rule: &Fired, data: &Data) -> Vec<String> {
    let of_friends = rule.matched.iter().filter(|it| it.is_of_friends());
    let named = of_friends.map(|matched| {
        let part = matched.part_or_expression();
        let part = part.unwrap_or_else(|| "something that this version does not know".to_owned());
        let mut ids = named(&matched.friends, data);
        let rest = saturated(matched.count).saturating_sub(matched.friends.len());
        if rest > 0 && !matched.friends.is_empty() {
            ids.push_str(&format!(" and {rest} more"));
        } else if rest > 0 {
            ids = format!(": {}", friends(rest));
        }
        format!("{part}{ids}")
    });
    let mut named: Vec<_> = named.collect();
    if rule.unlisted > 0 {
        let more = friends(saturated(rule.unlisted));
        named.push(format!("other parts of the rule: {more}"));
    }
    named
}

/// Why a rule acted on the import as a whole, or on its owner.
fn about_import(rule: &Fired, owner: &str) -> String {
    let matched = rule.matched.iter().find(|it| !it.is_of_friends());
    let said = matched.and_then(|it| it.of_import(owner));
    said.map(|said| format!(": {said}")).unwrap_or_default()
}

/// The rules that removed friends.
fn emptied_by(data: &Data) -> String {
    let removals = data.removed.iter();
    let rules: Vec<_> = removals.map(|removal| printable(&removal.rule)).collect();
    match rules.is_empty() {
        true => "other rules".to_owned(),
        false => rules.join(" and "),
    }
}

fn named<'d>(indexes: impl IntoIterator<Item = &'d usize>, data: &Data) -> String {
    let ids = indexes.into_iter();
    let ids = ids.filter_map(|index| data.friend_user_ids.get(*index));
    list(&ids.map(String::as_str).collect::<Vec<_>>())
}

fn saturated(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
