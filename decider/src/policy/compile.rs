//! From the [`Document`] to rules that can be evaluated: what names mean.

use std::collections::HashMap;
use std::sync::Arc;

use crate::lists::{IdSet, List, ListContent, ListError};

use super::decision::{Refusal, RefusalCode};
use super::diagnostic::{Diagnostic, Report, Span, closest, quoted};
use super::document::{
    Document, LimitDefinition, ListDefinition, MatcherDefinition, OnExceed, RefusalDefinition,
    RuleDefinition, Spanned,
};
use super::read::NOBODY_LEFT;
use super::rule::{Action, Matcher, Rule};

/// The content of list files by the path that the policy gives, or why there is none.
pub type ListFiles = HashMap<String, Result<ListContent, ListError>>;

pub(super) struct Compiled {
    pub(super) rules: Vec<Rule>,
    pub(super) nobody_left: Refusal,
    pub(super) lists: Vec<List>,
}

/// The result is worth something only if nothing was reported, now or before.
pub(super) fn compile(document: Document, files: &ListFiles, report: &mut Report<'_>) -> Compiled {
    let mut lists = Lists {
        by_name: HashMap::new(),
        in_order: Vec::new(),
    };
    for definition in &document.lists {
        let list = content(definition, files, report).map(|it| it.named(&definition.name.value));
        let ids = list
            .as_ref()
            .map(|list| Arc::clone(&list.ids))
            .unwrap_or_default();
        lists.by_name.insert(definition.name.value.clone(), ids);
        lists.in_order.extend(list);
    }
    let rules = document
        .rules
        .into_iter()
        .filter_map(|definition| rule(definition, &lists, report))
        .collect();
    let nobody_left = document.nobody_left.unwrap_or_else(|| RefusalDefinition {
        code: RefusalCode::NOBODY_LEFT,
        message: "No importable friends".to_owned(),
        detail: String::new(),
    });
    Compiled {
        rules,
        nobody_left: named_refusal(nobody_left, NOBODY_LEFT),
        lists: lists.in_order,
    }
}

struct Lists {
    /// Those that could not be loaded are here too, empty: what is wrong with them was reported.
    by_name: HashMap<String, Arc<IdSet>>,
    in_order: Vec<List>,
}

fn content(
    definition: &ListDefinition,
    files: &ListFiles,
    report: &mut Report<'_>,
) -> Option<ListContent> {
    if let Some(values) = &definition.values {
        return Some(ListContent::from_values(values));
    }
    let file = definition.file.as_ref()?;
    match files.get(&file.value) {
        Some(Ok(content)) => return Some(content.clone()),
        Some(Err(ListError::Unreadable { reason, remedy })) => report.error(
            file.span,
            format!("the list {} {reason}", quoted(&file.value)),
            remedy,
        ),
        Some(Err(ListError::Invalid { path, lines })) => {
            let path: Arc<str> = Arc::from(path.as_str());
            for error in lines {
                let span = Span {
                    line: error.line,
                    column: error.column,
                    width: 1,
                };
                report.add(Diagnostic::at(
                    Arc::clone(&path),
                    span,
                    &error.text,
                    error.message,
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

fn rule(definition: RuleDefinition, lists: &Lists, report: &mut Report<'_>) -> Option<Rule> {
    let id = definition.id.value;
    let refusal = definition
        .refusal
        .map(|refusal| named_refusal(refusal, &id));
    let owners = definition
        .refuse_owner
        .map(|matcher| resolve(matcher, lists, report));
    let friends = definition
        .drop_friends
        .map(|matcher| resolve(matcher, lists, report));
    let action = match (owners, friends, definition.limit_friends) {
        (Some(owners), None, None) => Action::RefuseOwner {
            owners,
            refusal: refusal?,
        },
        (None, Some(friends), None) => Action::DropFriends(friends),
        (None, None, Some(LimitDefinition { max, on_exceed })) => {
            let max = max as usize;
            match on_exceed {
                OnExceed::Truncate => Action::KeepFirst { max },
                OnExceed::Refuse => Action::RefuseOver {
                    max,
                    refusal: refusal?,
                },
            }
        }
        // No kind or several: reported when it was read.
        _ => return None,
    };
    Some(Rule { id, action })
}

fn named_refusal(definition: RefusalDefinition, rule: &str) -> Refusal {
    Refusal {
        rule: rule.to_owned(),
        code: definition.code,
        message: definition.message,
        detail: definition.detail,
    }
}

fn resolve(definition: MatcherDefinition, lists: &Lists, report: &mut Report<'_>) -> Matcher {
    let mut find = |name: Option<Spanned<String>>| name.and_then(|name| lists.find(&name, report));
    Matcher {
        in_list: find(definition.in_list),
        not_in: find(definition.not_in),
        prefixes: definition.prefixes,
    }
}

impl Lists {
    fn find(&self, name: &Spanned<String>, report: &mut Report<'_>) -> Option<Arc<IdSet>> {
        let found = self.by_name.get(&name.value);
        if found.is_none() {
            let names = || self.by_name.keys().map(String::as_str);
            let remedy = match closest(&name.value, names()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!(
                    "define it under \"lists\": {}: {{ file: lists/{0}.txt }}",
                    quoted(&name.value).trim_matches('"')
                ),
            };
            report.error(
                name.span,
                format!("there is no list {}", quoted(&name.value)),
                remedy,
            );
        }
        found.cloned()
    }
}
