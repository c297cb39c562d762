use std::collections::HashMap;

use super::super::diagnostic::{Report, Span, closest, quoted};
use super::super::document::{
    LimitDefinition, MatcherDefinition, OnExceed, RuleDefinition, Spanned,
};
use super::super::fields::{Fields, integer, sequence, text};
use super::super::yaml::{Entry, Node};
use super::refusal::{EXAMPLE as REFUSAL_EXAMPLE, refusal};
use super::{DUPLICATE, NOBODY_LEFT, SELF, cap, name};

/// The most rules. A rule with a list costs some 10 ns for each friend: with 10,000 friends, 256 rules take 25 ms, well
/// within the half second that a gateway waits.
const MAX_RULES: usize = 256;
/// The most prefixes of a rule. They are tried one by one, at 1 or 2 ns: 64 cost no more than ten lists.
const MAX_PREFIXES: usize = 64;

const RULE_EXAMPLE: &str = "- id: some-name";
const MATCHER_EXAMPLE: &str = "{ in: some_list }";
const KINDS: &str = "refuseOwner, dropFriends or limitFriends";

pub(super) fn rules(node: Node, report: &mut Report<'_>) -> Option<Vec<RuleDefinition>> {
    let items = sequence(
        node,
        "a list of rules",
        "each rule as \"- id: some-name\"",
        report,
    )?;
    cap(&items, MAX_RULES, "rules", |item| item.span, report);
    let rules: Vec<_> = items
        .into_iter()
        .filter_map(|item| rule(item, report))
        .collect();
    let mut lines: HashMap<&str, u32> = HashMap::new();
    for RuleDefinition { id, .. } in rules.iter().filter(|rule| !rule.id.value.is_empty()) {
        if let Some(line) = lines.get(id.value.as_str()) {
            report.error(
                id.span,
                format!(
                    "the rule on line {line} is called {} too",
                    quoted(&id.value)
                ),
                "give one of them another id: events name rules by it",
            );
        } else {
            lines.insert(&id.value, id.span.line);
        }
    }
    Some(rules)
}

fn rule(node: Node, report: &mut Report<'_>) -> Option<RuleDefinition> {
    let mut fields = Fields::open(node, "a rule", RULE_EXAMPLE, report)?;
    let remedy = "add \"id: some-name\"; events name the rule by it";
    let id = fields.required("id", remedy, report, rule_id);
    let id = id.unwrap_or_else(|| Spanned {
        value: String::new(),
        span: fields.span,
    });
    let kinds = [
        fields.take("refuseOwner"),
        fields.take("dropFriends"),
        fields.take("limitFriends"),
    ];
    check_kinds(&id, &kinds, report);
    let [refuse_owner, drop_friends, limit_friends] = kinds;
    // Absent, or present and broken: whether a refusal is missing depends on the key alone.
    let refusal_entry = fields.take("refusal");
    let refusal_span = refusal_entry.as_ref().map(|entry| entry.key_span);
    let mut rule = RuleDefinition {
        refuse_owner: None,
        drop_friends: None,
        limit_friends: None,
        refusal: refusal_entry.and_then(|entry| refusal(entry.value, report)),
        id,
    };
    let mut can_refuse = None;
    if let Some(entry) = refuse_owner {
        rule.refuse_owner = matcher(entry.value, report);
        can_refuse = Some(true);
    }
    if let Some(entry) = drop_friends {
        rule.drop_friends = matcher(entry.value, report);
        can_refuse = Some(can_refuse.unwrap_or(false));
    }
    if let Some(entry) = limit_friends {
        rule.limit_friends = limit(entry.value, report);
        let refuses = rule
            .limit_friends
            .as_ref()
            .map(|limit| limit.on_exceed == OnExceed::Refuse);
        can_refuse = can_refuse.or(refuses);
    }
    check_refusal(&rule.id, can_refuse, refusal_span, report);
    fields.close(report);
    Some(rule)
}

fn check_kinds(id: &Spanned<String>, kinds: &[Option<Entry>; 3], report: &mut Report<'_>) {
    let mut present: Vec<&Entry> = kinds.iter().flatten().collect();
    present.sort_by_key(|entry| entry.key_span);
    let Some((first, others)) = present.split_first() else {
        report.error(
            id.span,
            "this rule does not say what it does",
            format!("add one of {KINDS}"),
        );
        return;
    };
    for other in others {
        report.error(
            other.key_span,
            format!(
                "this rule has \"{}\" and \"{}\", and a rule does one thing",
                first.key, other.key
            ),
            "make two rules, each with an id of its own",
        );
    }
}

/// `can_refuse` is unknown where the rule's kind is missing or broken.
fn check_refusal(
    id: &Spanned<String>,
    can_refuse: Option<bool>,
    refusal: Option<Span>,
    report: &mut Report<'_>,
) {
    match (can_refuse, refusal) {
        (Some(true), None) => report.error(
            id.span,
            "this rule refuses imports and does not say with which code and message",
            format!("add refusal: {REFUSAL_EXAMPLE}"),
        ),
        (Some(false), Some(span)) => report.error(
            span,
            "this rule never refuses, so its refusal would never be sent",
            "remove it; what is answered when nobody is left stands under \"nobodyLeft\" at the end of the policy",
        ),
        _ => {}
    }
}

fn rule_id(node: Node, report: &mut Report<'_>) -> Option<Spanned<String>> {
    let id = name(node, report)?;
    if [SELF, DUPLICATE, NOBODY_LEFT].contains(&id.value.as_str()) {
        report.error(
            id.span,
            format!("{} is the id of a built-in rule", quoted(&id.value)),
            "choose another id",
        );
        return None;
    }
    Some(id)
}

fn matcher(node: Node, report: &mut Report<'_>) -> Option<MatcherDefinition> {
    let mut fields = Fields::open(node, "a matcher", MATCHER_EXAMPLE, report)?;
    let in_list = fields.take("in");
    let not_in = fields.take("notIn");
    let prefixes = fields.take("prefixes");
    if in_list.is_none() && not_in.is_none() && prefixes.is_none() {
        report.error(
            fields.span,
            "this matches nobody",
            format!("write at least one of in, notIn and prefixes: {MATCHER_EXAMPLE}"),
        );
    }
    fields.close(report);
    Some(MatcherDefinition {
        in_list: in_list.and_then(|entry| text(entry.value, report)),
        not_in: not_in.and_then(|entry| text(entry.value, report)),
        prefixes: prefixes
            .and_then(|entry| some_prefixes(entry.value, report))
            .unwrap_or_default(),
    })
}

fn some_prefixes(node: Node, report: &mut Report<'_>) -> Option<Vec<String>> {
    let span = node.span;
    let items = sequence(node, "a list of texts", "[\"bot_\", \"test-\"]", report)?;
    if items.is_empty() {
        report.error(
            span,
            "this list is empty, so it matches nobody",
            "write [\"bot_\"], or remove the key",
        );
    }
    cap(&items, MAX_PREFIXES, "prefixes", |item| item.span, report);
    let prefixes = items.into_iter().filter_map(|item| text(item, report));
    Some(prefixes.map(|prefix| prefix.value).collect())
}

fn limit(node: Node, report: &mut Report<'_>) -> Option<LimitDefinition> {
    let example = "{ max: 500, onExceed: truncate }";
    let mut fields = Fields::open(node, "limitFriends", example, report)?;
    let remedy = "add \"max: 500\", the most friends of one import";
    let max = fields.required("max", remedy, report, maximum);
    let remedy = "add \"onExceed: truncate\" to import the first ones, or \"onExceed: refuse\"";
    let on_exceed = fields.required("onExceed", remedy, report, on_exceed);
    fields.close(report);
    Some(LimitDefinition {
        max: max?,
        on_exceed: on_exceed?,
    })
}

fn maximum(node: Node, report: &mut Report<'_>) -> Option<u32> {
    let max = integer(node, report)?;
    let valid = u32::try_from(max.value).ok().filter(|&max| max > 0);
    if valid.is_none() {
        report.error(
            max.span,
            format!("max is {} and may be 1 to {}", max.value, u32::MAX),
            "write the most friends of one import, such as 500",
        );
    }
    valid
}

fn on_exceed(node: Node, report: &mut Report<'_>) -> Option<OnExceed> {
    let word = text(node, report)?;
    match word.value.as_str() {
        "truncate" => Some(OnExceed::Truncate),
        "refuse" => Some(OnExceed::Refuse),
        other => {
            let remedy = match closest(other, ["truncate", "refuse"]) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "write \"truncate\" to import the first ones, or \"refuse\"".to_owned(),
            };
            report.error(
                word.span,
                format!("onExceed cannot be {}", quoted(other)),
                remedy,
            );
            None
        }
    }
}
