//! Compiles a [`Document`] to rules: resolves names, and compiles patterns and expressions.

use std::{collections::HashMap, sync::Arc};

use importguard_core::{Mode, Refusal};

use super::{
    cost::{self, PolicyCost},
    diagnostic::{Diagnostic, Report, Span, Spanned, closest, quoted},
    document::{
        Document, LimitDefinition, ListDefinition, ListMode, MatcherDefinition, OnErrorDefinition,
        OnExceed, Otherwise, RefusalDefinition, RuleDefinition, RuleMode,
    },
    expression::{Expression, ListValues, Scope},
    guards,
    matcher::{Matcher, NamedIds},
    patterns::{Patterns, check_pattern},
    read::{FAILS_WITHOUT_REFUSAL, NOBODY_LEFT, fails_remedy},
    rule::{Action, OnError, Rollout, Rule},
};
use crate::lists::{Ids, List, ListContent, ListError};

/// The contents of list files, or the errors, by the path in the policy.
pub type ListFiles = HashMap<String, Result<ListContent, ListError>>;

/// The default code of `nobodyLeft`.
const NOBODY_LEFT_CODE: i32 = 5002;
/// The maximum number of regular expressions in a policy. One takes up to 10 ms to compile, all of them a few seconds.
const MAX_PATTERNS: usize = 256;

pub(super) struct Compiled {
    pub(super) rules: Vec<Rule>,
    pub(super) nobody_left: Refusal,
    pub(super) lists: Vec<List>,
    /// The names of lists that neither a rule nor another list uses.
    pub(super) unused_lists: Vec<String>,
    pub(super) list_values: ListValues,
    pub(super) cost: PolicyCost,
}

/// Compiles a document. The result is valid only if nothing was reported, here or before.
pub(super) fn compile(
    document: Document,
    max_friends: usize,
    files: &ListFiles,
    report: &mut Report<'_>,
) -> Compiled {
    let mut list_values = ListValues::default();
    // Exceptions come first, because the lists that name them need them.
    let (exceptions, others): (Vec<_>, Vec<_>) = document
        .lists
        .iter()
        .partition(|definition| definition.unless.is_none());
    let mut loaded = HashMap::new();
    for definition in exceptions.into_iter().chain(others) {
        let name = &definition.name.value;
        let except = definition.unless.as_ref().and_then(|unless| {
            exception(unless, (definition, &document.lists), &list_values, report)
        });
        let list = content(definition, files, report).map(|content| {
            let file = guards::list_file(definition, report.file());
            let live = definition.live.as_ref().map(|live| live.value.as_str());
            let ids = Ids::new(Arc::clone(&content.ids), definition.fold)
                .with(live, except)
                .in_shadow(definition.mode == ListMode::Shadow);
            content.named(name, ids, file)
        });
        if let Some(list) = &list {
            guards::check(definition, list, report);
        }
        // A list that failed to load has been reported; it is defined as empty.
        let ids = list.as_ref().map(|list| list.ids.clone());
        list_values.insert(name, ids.unwrap_or_default());
        loaded.extend(list.map(|list| (name.clone(), list)));
    }
    let in_order = document.lists.iter();
    let lists = in_order.filter_map(|definition| loaded.remove(&definition.name.value));
    let nobody_left = document.nobody_left.unwrap_or_else(|| RefusalDefinition {
        code: NOBODY_LEFT_CODE,
        message: "No importable friends".to_owned(),
        detail: String::new(),
    });
    let nobody_left = named_refusal(nobody_left, NOBODY_LEFT);
    let definitions = bounded(document.rules, report);
    let ids: Vec<Spanned<String>> = definitions.iter().map(|rule| rule.id.clone()).collect();
    let mut rules = Vec::new();
    let mut end: Option<(String, u32)> = None;
    for definition in definitions {
        let Spanned { value: id, span } = definition.id.clone();
        if let Some((last, line)) = &end
            && definition.mode != RuleMode::Off
        {
            report.error(
                span,
                format!(
                    "this rule is never reached: {} on line {line} refuses every import",
                    quoted(last)
                ),
                "move it up, or add this to that rule: mode: shadow",
            );
        }
        let rule = rule(definition, &list_values, &nobody_left, report);
        if rule.is_none() && report.is_empty() {
            // A bug in this program. Without this error, the policy would become active without the rule.
            report.error(
                span,
                format!("the rule {} cannot be compiled", quoted(&id)),
                "report this as a bug, with the rule",
            );
        }
        if end.is_none() && rule.as_ref().is_some_and(Rule::refuses_everything) {
            end = Some((id, span.line));
        }
        rules.extend(rule);
    }
    let cost = PolicyCost::of(&rules, max_friends);
    let place = |rule: &str| ids.iter().find(|id| id.value == rule).map(|id| id.span);
    cost::check((&cost, &rules), place, report);
    let names = document.lists.iter().map(|list| list.name.value.as_str());
    let exceptions = document.lists.iter().filter_map(|it| it.unless.as_ref());
    let is_unused = |list: &&str| {
        let is_exception = exceptions.clone().any(|it| it.value == *list);
        !is_exception && !rules.iter().any(|rule| rule.uses(list))
    };
    let unused_lists = names.filter(is_unused).map(str::to_owned).collect();
    Compiled {
        rules,
        nobody_left,
        unused_lists,
        lists: lists.collect(),
        list_values,
        cost,
    }
}

fn content(
    definition: &ListDefinition,
    files: &ListFiles,
    report: &mut Report<'_>,
) -> Option<ListContent> {
    if let Some(values) = &definition.values {
        return Some(ListContent::from_values(values));
    }
    let Some(file) = &definition.file else {
        let only_live = definition.live.is_some();
        return only_live.then(|| ListContent::from_values::<&str>(&[]));
    };
    match files.get(&file.value) {
        Some(Ok(content)) => return Some(content.clone()),
        Some(Err(ListError::Unreadable(error))) => report.error(
            file.span,
            format!("the list {} {}", quoted(&file.value), error.reason),
            error.remedy,
        ),
        Some(Err(ListError::Invalid { path, lines })) => {
            let path: Arc<str> = Arc::from(path.as_str());
            report.count_more(lines.more);
            for error in &lines.first {
                let span = Span {
                    line: error.line,
                    column: error.column,
                    width: 1,
                };
                report.add(Diagnostic::at(
                    Arc::clone(&path),
                    span,
                    &error.text,
                    error.message.clone(),
                    error.remedy,
                ));
            }
        }
        None => report.error(
            file.span,
            format!("the list {} was not loaded", quoted(&file.value)),
            "load it before compiling",
        ),
    }
    None
}

/// Returns the exceptions of a list: the IDs of the list that its `unless` names.
fn exception(
    unless: &Spanned<String>,
    (definition, all): (&ListDefinition, &[ListDefinition]),
    lists: &ListValues,
    report: &mut Report<'_>,
) -> Option<Ids> {
    if unless.value == definition.name.value {
        report.error(
            unless.span,
            "a list cannot be its own exception",
            "name another list",
        );
        return None;
    }
    let named = all.iter().find(|list| list.name.value == unless.value);
    if named.is_some_and(|list| list.unless.is_some()) {
        report.error(
            unless.span,
            format!(
                "the list {} has exceptions of its own",
                quoted(&unless.value)
            ),
            "name a list without \"unless\"",
        );
        return None;
    }
    let ids = find_list(unless.clone(), lists, report)?.ids;
    if ids.is_shadow() {
        report.error(
            unless.span,
            format!(
                "the list {} is in shadow, so it makes no exceptions",
                quoted(&unless.value)
            ),
            "remove its mode, or name another list",
        );
    }
    Some(ids)
}

/// Compiles a rule. Returns `None` if the rule has an error, which is reported here or was reported when the rule was read.
fn rule(
    definition: RuleDefinition,
    lists: &ListValues,
    nobody_left: &Refusal,
    report: &mut Report<'_>,
) -> Option<Rule> {
    let Spanned { value: id, span } = definition.id;
    let refusal = definition
        .refusal
        .map(|refusal| Arc::new(named_refusal(refusal, &id)));
    let mode = definition.mode;
    let when = definition
        .when
        .and_then(|source| condition(&source, (Scope::Request, mode), lists, report));
    let owners = definition.refuse_owner.map(|it| matcher(it, lists, report));
    let friends = definition.drop_friends.map(|it| matcher(it, lists, report));
    let refuse_if = definition
        .refuse_if
        .map(|source| condition(&source, (Scope::Request, mode), lists, report));
    let drop_friend_if = definition
        .drop_friend_if
        .map(|source| condition(&source, (Scope::Friend, mode), lists, report));
    let limit = definition.limit_friends;
    let compiled = [
        when.as_ref(),
        refuse_if.as_ref().and_then(Option::as_ref),
        drop_friend_if.as_ref().and_then(Option::as_ref),
    ];
    let can_fail = compiled.into_iter().flatten().any(|it| it.can_fail);
    let on_error = match (definition.on_error, &refusal) {
        (Some(OnErrorDefinition::Skip), _) => OnError::Skip,
        (_, Some(refusal)) => OnError::Refuse(Arc::clone(refusal)),
        (None, None) if can_fail => {
            report.error(span, FAILS_WITHOUT_REFUSAL, fails_remedy());
            return None;
        }
        // Nothing in it can fail. Should this be wrong, the import must not be allowed.
        (_, None) => OnError::Refuse(Arc::new(Refusal {
            rule: Some(id.clone()),
            ..nobody_left.clone()
        })),
    };
    let action = match (owners, friends, limit, refuse_if, drop_friend_if) {
        (Some(owners), None, None, None, None) => Action::RefuseOwner(owners, refusal?),
        (None, Some(friends), None, None, None) => Action::DropFriends(friends),
        (None, None, Some(LimitDefinition { max, on_exceed }), None, None) => match on_exceed {
            OnExceed::Truncate => Action::KeepFirst(max as usize),
            OnExceed::Refuse => Action::RefuseOver(max as usize, refusal?),
        },
        (None, None, None, Some(expression), None) => Action::RefuseIf(expression?, refusal?),
        (None, None, None, None, Some(expression)) => Action::DropFriendIf(expression?),
        // No action, or several.
        _ => return None,
    };
    Some(Rule {
        id,
        description: definition.description,
        mode: match mode {
            RuleMode::Enforce => Some(Mode::Enforce),
            RuleMode::Shadow => Some(Mode::Shadow),
            RuleMode::Off => None,
        },
        rollout: definition.rollout.map(|rollout| Rollout {
            per_cent: rollout.percent,
            shadow: rollout.otherwise == Otherwise::Shadow,
        }),
        when,
        on_error,
        action,
    })
}

fn named_refusal(definition: RefusalDefinition, rule: &str) -> Refusal {
    Refusal {
        rule: Some(rule.to_owned()),
        code: definition.code,
        message: definition.message,
        detail: definition.detail,
    }
}

fn condition(
    source: &Spanned<String>,
    (scope, mode): (Scope, RuleMode),
    lists: &ListValues,
    report: &mut Report<'_>,
) -> Option<Expression> {
    match Expression::compile(&source.value, scope, lists) {
        Ok(expression) => {
            // A rule that is off has no effect anyway.
            if expression.constant == Some(false) && mode != RuleMode::Off {
                report.error(
                    source.span,
                    "this is always false, so the rule has no effect",
                    "remove the rule, or disable it with mode: off",
                );
            }
            Some(expression)
        }
        Err(errors) => {
            for error in errors {
                report.error_inside(source, error.place, error.message, error.remedy);
            }
            None
        }
    }
}

fn matcher(definition: MatcherDefinition, lists: &ListValues, report: &mut Report<'_>) -> Matcher {
    let mut find =
        |name: Option<Spanned<String>>| name.and_then(|name| find_list(name, lists, report));
    let (in_list, not_in) = (find(definition.in_list), find(definition.not_in));
    Matcher {
        in_list,
        not_in,
        prefixes: definition.prefixes,
        suffixes: definition.suffixes,
        patterns: patterns(&definition.matches, report),
        not_prefixes: definition.not_prefixes,
        not_suffixes: definition.not_suffixes,
        not_patterns: patterns(&definition.not_matches, report),
    }
}

fn find_list(
    name: Spanned<String>,
    lists: &ListValues,
    report: &mut Report<'_>,
) -> Option<NamedIds> {
    if let Some(ids) = lists.get(&name.value) {
        let ids = ids.clone();
        return Some(NamedIds {
            name: name.value,
            ids,
        });
    }
    let remedy = match closest(&name.value, lists.names()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!(
            "define it under \"lists\": {}: {{ file: lists/{0}.txt }}",
            quoted(&name.value).trim_matches('"')
        ),
    };
    let message = format!("unknown list {}", quoted(&name.value));
    report.error(name.span, message, remedy);
    None
}

/// Returns the rules; removes their regular expressions if there are too many to compile.
fn bounded(mut rules: Vec<RuleDefinition>, report: &mut Report<'_>) -> Vec<RuleDefinition> {
    let mut matchers: Vec<&mut MatcherDefinition> = rules
        .iter_mut()
        .flat_map(|rule| [&mut rule.refuse_owner, &mut rule.drop_friends])
        .flatten()
        .collect();
    let mut patterns = matchers
        .iter()
        .flat_map(|matcher| matcher.matches.iter().chain(&matcher.not_matches));
    if let Some(pattern) = patterns.nth(MAX_PATTERNS) {
        report.error(
            pattern.span,
            format!("the policy has more than {MAX_PATTERNS} regular expressions"),
            "use prefixes, suffixes or lists, or join some with |",
        );
        for matcher in &mut matchers {
            matcher.matches.clear();
            matcher.not_matches.clear();
        }
    }
    rules
}

fn patterns(definitions: &[Spanned<String>], report: &mut Report<'_>) -> Option<Patterns> {
    let first = definitions.first()?;
    let mut valid = true;
    for Spanned { value, span } in definitions {
        if let Err(why) = check_pattern(value) {
            valid = false;
            report.error(
                *span,
                format!("invalid regular expression: {why}"),
                "use the syntax of Rust's regex crate, such as \"^tmp[_-]\", or use prefixes, suffixes or a list",
            );
        }
    }
    if !valid {
        return None;
    }
    let texts: Vec<&str> = definitions.iter().map(|it| it.value.as_str()).collect();
    match Patterns::compile(&texts) {
        Ok(set) => Some(set),
        Err(why) => {
            report.error(first.span, why, "split it into several rules");
            None
        }
    }
}
