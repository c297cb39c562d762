use importguard_core::UserId;
use importguard_lists::ListName;

use super::super::{
    diagnostic::{Report, Spanned, quoted},
    document::{FILE_KEYS, FoldKind, ListDefinition, ListMode},
    expression::{is_identifier, is_reserved},
    fields::{Fields, boolean, ids, integer, mapping, sequence, text, word},
    yaml::{Entry, Node},
};
use super::{MAX_NAME_BYTES, cap};
use crate::lists::Fold;

/// The maximum number of lists: as many as rules.
const MAX_LISTS: usize = 256;

const EXAMPLE: &str = "{ file: lists/some.txt }, { values: [\"user1\"] } or { live: some }";

pub(super) fn lists(node: Node, report: &mut Report<'_>) -> Option<Vec<ListDefinition>> {
    let entries = mapping(
        node,
        "lists by name",
        "some_list: { file: lists/some.txt }",
        report,
    )?;
    cap(&entries, MAX_LISTS, "lists", |entry| entry.key_span, report);
    Some(
        entries
            .into_iter()
            .map(|entry| list(entry, report))
            .collect(),
    )
}

fn list(entry: Entry, report: &mut Report<'_>) -> ListDefinition {
    let name = Spanned {
        value: entry.key,
        span: entry.key_span,
    };
    check_name(&name, report);
    let mut definition = ListDefinition {
        name,
        file: None,
        values: None,
        live: None,
        unless: None,
        mode: ListMode::default(),
        allow_empty: false,
        allow_shrink: false,
        at_least: None,
        fold: Fold::default(),
    };
    let Some(mut fields) = Fields::open(entry.value, "a list definition", EXAMPLE, report) else {
        return definition;
    };
    let file = fields.take("file");
    let values = fields.take("values");
    let live = fields.take("live");
    match (&file, &values) {
        (Some(_), Some(values)) => report.error(
            values.key_span,
            "a list has either \"file\" or \"values\", not both",
            "remove one of them, or define two lists",
        ),
        (None, None) if live.is_none() => report.error(
            definition.name.span,
            format!(
                "the list {} has none of \"file\", \"values\" and \"live\"",
                quoted(&definition.name.value)
            ),
            format!("write {EXAMPLE}"),
        ),
        _ => {}
    }
    let of_file = FILE_KEYS.map(|key| fields.take(key));
    if file.is_none() && (values.is_some() || live.is_some()) {
        for entry in of_file.iter().flatten() {
            report.error(
                entry.key_span,
                format!(
                    "{} applies only to a list with \"file\"",
                    quoted(&entry.key)
                ),
                match values {
                    Some(_) => "remove it: the IDs in the policy are what you wrote",
                    None => "remove it: only a file can lose IDs by accident",
                },
            );
        }
    }
    let [allow_empty, allow_shrink, at_least] = of_file;
    let empty_span = allow_empty.as_ref().map(|entry| entry.key_span);
    let mut flag = |entry: Option<Entry>| entry.and_then(|entry| boolean(entry.value, report));
    definition.allow_empty = flag(allow_empty).unwrap_or_default();
    definition.allow_shrink = flag(allow_shrink).unwrap_or_default();
    if let (true, Some(span), Some(_)) = (definition.allow_empty, empty_span, &at_least) {
        report.error(
            span,
            "a list that may be empty has no minimum number of IDs",
            "remove allowEmpty or atLeast",
        );
    }
    definition.at_least = at_least.and_then(|entry| minimum(entry.value, report));
    let folds = fields.take("fold");
    if let (Some(folds), Some(_)) = (&folds, &live) {
        report.error(
            folds.key_span,
            "a live list compares IDs byte by byte, so it cannot have fold",
            match (&file, &values) {
                (None, None) => "remove it, and add the IDs to the live list exactly as OpenIM has them",
                _ => "remove it; or define two lists, one with fold and one with live, and a rule for each",
            },
        );
    }
    definition.fold = folds
        .and_then(|entry| fold(entry.value, report))
        .unwrap_or_default();
    definition.live = live.and_then(|entry| live_name(entry.value, report));
    definition.unless = fields.optional("unless", report, text);
    let words = [("enforce", ListMode::Enforce), ("shadow", ListMode::Shadow)];
    let mode = fields.optional("mode", report, |node, report| {
        word(node, "mode", &words, report)
    });
    definition.mode = mode.unwrap_or_default();
    definition.file = file.and_then(|entry| text(entry.value, report));
    definition.values = values.and_then(|entry| ids(entry.value, UserId::MAX_BYTES, report));
    fields.close(report);
    definition
}

/// The name of a list in the bucket of live lists.
fn live_name(node: Node, report: &mut Report<'_>) -> Option<Spanned<String>> {
    let name = text(node, report)?;
    if let Err(error) = ListName::parse(&name.value) {
        report.error(
            name.span,
            format!("{} is not a valid name of a live list", quoted(&name.value)),
            error.to_string(),
        );
        return None;
    }
    Some(name)
}

fn minimum(node: Node, report: &mut Report<'_>) -> Option<Spanned<u64>> {
    let minimum = integer(node, report)?;
    let value = u64::try_from(minimum.value).ok().filter(|&least| least > 0);
    if value.is_none() {
        report.error(
            minimum.span,
            format!("atLeast is {}; it must be at least 1", minimum.value),
            "write the minimum number of IDs, or allowEmpty: true if there may be none",
        );
    }
    Some(Spanned {
        value: value?,
        span: minimum.span,
    })
}

fn fold(node: Node, report: &mut Report<'_>) -> Option<Fold> {
    let span = node.span;
    let items = sequence(node, "a list of case and space", "[case]", report)?;
    if items.is_empty() {
        report.error(
            span,
            "this list is empty, so it changes nothing",
            "write [case], [space] or [case, space], or remove the key",
        );
    }
    let words = [("case", FoldKind::Case), ("space", FoldKind::Space)];
    let mut fold = Fold::default();
    for item in items {
        let span = item.span;
        let Some(kind) = word(item, "fold", &words, report) else {
            continue;
        };
        let flag = match kind {
            FoldKind::Case => &mut fold.case,
            FoldKind::Space => &mut fold.space,
        };
        if std::mem::replace(flag, true) {
            report.error(span, "this is there twice", "remove one of them");
        }
    }
    Some(fold)
}

/// A list's name is a variable in expressions, so it must be a valid and unused identifier.
fn check_name(name: &Spanned<String>, report: &mut Report<'_>) {
    if is_reserved(&name.value) {
        report.error(
            name.span,
            format!("{} is reserved in expressions", quoted(&name.value)),
            "choose another name, such as: blocked_users",
        );
        return;
    }
    if is_identifier(&name.value) && name.value.len() <= MAX_NAME_BYTES {
        return;
    }
    report.error(
        name.span,
        format!("{} is not a valid list name", quoted(&name.value)),
        format!(
            "use up to {MAX_NAME_BYTES} letters, digits and _, not starting with a digit: blocked_users"
        ),
    );
}
