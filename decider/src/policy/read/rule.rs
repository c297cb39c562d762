use std::collections::HashMap;

use super::super::{
    diagnostic::{Report, Spanned, quoted},
    document::{KINDS, LimitDefinition, OnErrorDefinition, OnExceed, RuleDefinition, RuleMode},
    fields::{Fields, any_text, integer, sequence, text, word},
    yaml::{Entry, Node},
};
use super::{
    DUPLICATE, NOBODY_LEFT, SELF, cap,
    matcher::matcher,
    name,
    refusal::{EXAMPLE as REFUSAL_EXAMPLE, refusal},
    rollout::rollout,
};

/// The maximum number of rules. A rule with a list costs about 10 ns per friend: 256 rules take 25 ms for 10,000 friends, well
/// within a gateway's timeout of 500 ms.
const MAX_RULES: usize = 256;

const RULE_EXAMPLE: &str = "- id: some-name";

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
        // Rules over the limit are not compiled either.
        .take(MAX_RULES)
        .filter_map(|item| rule(item, report))
        .collect();
    let mut lines: HashMap<&str, u32> = HashMap::new();
    for RuleDefinition { id, .. } in rules.iter().filter(|rule| !rule.id.value.is_empty()) {
        if let Some(line) = lines.get(id.value.as_str()) {
            report.error(
                id.span,
                format!(
                    "the rule on line {line} also has the id {}",
                    quoted(&id.value)
                ),
                "change one of them: events identify rules by id",
            );
        } else {
            lines.insert(&id.value, id.span.line);
        }
    }
    Some(rules)
}

fn rule(node: Node, report: &mut Report<'_>) -> Option<RuleDefinition> {
    let mut fields = Fields::open(node, "a rule", RULE_EXAMPLE, report)?;
    let remedy = "add \"id: some-name\"; events identify the rule by it";
    let id = fields.required("id", remedy, report, rule_id);
    let id = id.unwrap_or_else(|| Spanned {
        value: String::new(),
        span: fields.span,
    });
    let kinds = KINDS.map(|kind| fields.take(kind));
    if kinds.iter().any(Option::is_some) || !fields.misspells(&KINDS) {
        check_kinds(&id, &kinds, report);
    }
    let [
        refuse_owner,
        drop_friends,
        limit_friends,
        refuse_if,
        drop_friend_if,
    ] = kinds;
    let when = fields.take("when");
    let on_error = fields.take("onError");
    let refusal_entry = fields.take("refusal");
    let has_expression = refuse_if.is_some() || drop_friend_if.is_some() || when.is_some();
    if let (false, Some(entry)) = (has_expression, &on_error) {
        report.error(
            entry.key_span,
            "nothing in this rule can fail at run time",
            "remove it: it applies only to rules with refuseIf, dropFriendIf or when",
        );
    }
    let default = on_error.is_none();
    let on_error = on_error.and_then(|entry| {
        let words = [
            ("skip", OnErrorDefinition::Skip),
            ("refuse", OnErrorDefinition::Refuse),
        ];
        word(entry.value, "onError", &words, report)
    });
    let mut refuses = Refuses {
        by_kind: false,
        by_error: has_expression && on_error == Some(OnErrorDefinition::Refuse),
        // Whether its expression can fail is known only once it is compiled.
        perhaps: has_expression && default,
        unknown: true,
    };
    refuses.by_kind(refuse_owner.is_some() || refuse_if.is_some(), true);
    refuses.by_kind(drop_friends.is_some() || drop_friend_if.is_some(), false);
    let has_limit = limit_friends.is_some();
    let limit_friends = limit_friends.and_then(|entry| limit(entry.value, report));
    if let Some(limit) = &limit_friends {
        refuses.by_kind(true, limit.on_exceed == OnExceed::Refuse);
    }
    refuses.unknown |= has_limit && limit_friends.is_none();
    check_refusal(&id, &refuses, refusal_entry.as_ref(), report);
    let mut expression = |entry: Option<Entry>| entry.and_then(|entry| text(entry.value, report));
    let (when, refuse_if, drop_friend_if) = (
        expression(when),
        expression(refuse_if),
        expression(drop_friend_if),
    );
    let mode = fields.optional("mode", report, |node, report| {
        let words = [
            ("enforce", RuleMode::Enforce),
            ("shadow", RuleMode::Shadow),
            ("off", RuleMode::Off),
        ];
        word(node, "mode", &words, report)
    });
    let mode = mode.unwrap_or_default();
    let rule = RuleDefinition {
        id,
        description: fields
            .optional("description", report, any_text)
            .map(|text| text.value),
        refuse_owner: refuse_owner.and_then(|entry| matcher(entry.value, report)),
        drop_friends: drop_friends.and_then(|entry| matcher(entry.value, report)),
        limit_friends,
        refuse_if,
        drop_friend_if,
        when,
        mode,
        rollout: fields.optional("rollout", report, |node, report| {
            rollout(node, mode, report)
        }),
        on_error,
        refusal: refusal_entry.and_then(|entry| refusal(entry.value, report)),
    };
    fields.close(report);
    Some(rule)
}

fn check_kinds(id: &Spanned<String>, kinds: &[Option<Entry>], report: &mut Report<'_>) {
    let mut present: Vec<&Entry> = kinds.iter().flatten().collect();
    present.sort_by_key(|entry| entry.key_span);
    let Some((first, others)) = present.split_first() else {
        report.error(
            id.span,
            "this rule has no action",
            format!("add one of {}", KINDS.join(", ")),
        );
        return;
    };
    for other in others {
        report.error(
            other.key_span,
            format!(
                "this rule has \"{}\" and \"{}\"; a rule has one action",
                first.key, other.key
            ),
            "split it into two rules, each with its own id",
        );
    }
}

/// Whether a rule can refuse and so requires a refusal. Only its keys count, so that an invalid value does not cause a second
/// message.
struct Refuses {
    by_kind: bool,
    by_error: bool,
    /// It refuses if its expression can fail.
    perhaps: bool,
    /// The rule's action is missing or invalid.
    unknown: bool,
}

impl Refuses {
    fn by_kind(&mut self, present: bool, refuses: bool) {
        if present {
            self.unknown = false;
            self.by_kind |= refuses;
        }
    }
}

/// The error of a rule that refuses when its expression fails, but has no refusal.
pub(in super::super) const FAILS_WITHOUT_REFUSAL: &str =
    "this rule refuses imports when its expression fails, but has no refusal";

/// How to correct [`FAILS_WITHOUT_REFUSAL`].
pub(in super::super) fn fails_remedy() -> String {
    format!("add onError: skip, or refusal: {REFUSAL_EXAMPLE}")
}

fn check_refusal(
    id: &Spanned<String>,
    refuses: &Refuses,
    refusal: Option<&Entry>,
    report: &mut Report<'_>,
) {
    match refusal {
        _ if refuses.unknown => {}
        None if refuses.by_kind => report.error(
            id.span,
            "this rule refuses imports but has no refusal",
            format!("add refusal: {REFUSAL_EXAMPLE}"),
        ),
        None if refuses.by_error => report.error(
            id.span,
            FAILS_WITHOUT_REFUSAL,
            fails_remedy(),
        ),
        Some(entry) if !refuses.by_kind && !refuses.by_error && !refuses.perhaps => report.error(
            entry.key_span,
            "this rule never refuses, so its refusal is never used",
            "remove it; the answer to imports with no friends left is \"nobodyLeft\", at the end of the policy",
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

fn limit(node: Node, report: &mut Report<'_>) -> Option<LimitDefinition> {
    let example = "{ max: 500, onExceed: truncate }";
    let mut fields = Fields::open(node, "limitFriends", example, report)?;
    let remedy = "add \"max: 500\", the maximum number of friends per import";
    let max = fields.required("max", remedy, report, maximum);
    let remedy = "add \"onExceed: truncate\" to import the first ones, or \"onExceed: refuse\"";
    let on_exceed = fields.required("onExceed", remedy, report, |node, report| {
        let words = [
            ("truncate", OnExceed::Truncate),
            ("refuse", OnExceed::Refuse),
        ];
        word(node, "onExceed", &words, report)
    });
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
            format!("max is {}; it must be 1 to {}", max.value, u32::MAX),
            "write the maximum number of friends per import, such as 500",
        );
    }
    valid
}
