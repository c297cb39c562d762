use super::super::{
    diagnostic::{Report, Spanned, quoted},
    document::{FILE_KEYS, FoldKind, ListDefinition},
    expression::is_reserved,
    fields::{Fields, boolean, ids, integer, mapping, sequence, text, word},
    yaml::{Entry, Node},
};
use super::{MAX_NAME_BYTES, cap};
use crate::lists::Fold;

/// The maximum number of lists: as many as rules.
const MAX_LISTS: usize = 256;

const EXAMPLE: &str = "{ file: lists/some.txt } or { values: [\"user1\"] }";

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
        allow_empty: false,
        allow_shrink: false,
        at_least: None,
        fold: Fold::default(),
    };
    let Some(mut fields) = Fields::open(entry.value, "a list", EXAMPLE, report) else {
        return definition;
    };
    let file = fields.take("file");
    let values = fields.take("values");
    match (&file, &values) {
        (Some(_), Some(values)) => report.error(
            values.key_span,
            "a list has either \"file\" or \"values\", not both",
            "remove one of them, or define two lists",
        ),
        (None, None) => report.error(
            definition.name.span,
            format!(
                "the list {} has neither \"file\" nor \"values\"",
                quoted(&definition.name.value)
            ),
            format!("write {EXAMPLE}"),
        ),
        _ => {}
    }
    let of_file = FILE_KEYS.map(|key| fields.take(key));
    if file.is_none() && values.is_some() {
        for entry in of_file.iter().flatten() {
            report.error(
                entry.key_span,
                format!(
                    "{} applies only to a list with \"file\"",
                    quoted(&entry.key)
                ),
                "remove it: the IDs in the policy are what you wrote",
            );
        }
    }
    let [allow_empty, allow_shrink, at_least] = of_file;
    if let (Some(empty), Some(_)) = (&allow_empty, &at_least) {
        report.error(
            empty.key_span,
            "a list that may be empty has no minimum number of IDs",
            "remove allowEmpty or atLeast",
        );
    }
    let mut flag = |entry: Option<Entry>| entry.and_then(|entry| boolean(entry.value, report));
    definition.allow_empty = flag(allow_empty).unwrap_or_default();
    definition.allow_shrink = flag(allow_shrink).unwrap_or_default();
    definition.at_least = at_least.and_then(|entry| minimum(entry.value, report));
    definition.fold = fields.optional("fold", report, fold).unwrap_or_default();
    definition.file = file.and_then(|entry| text(entry.value, report));
    definition.values = values.and_then(|entry| ids(entry.value, report));
    fields.close(report);
    definition
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
    let mut bytes = name.value.bytes();
    let starts = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if starts
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.value.len() <= MAX_NAME_BYTES
    {
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
