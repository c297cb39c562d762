//! Reads a [`Document`] from the YAML tree: keys, types and names.
//!
//! An error leaves a placeholder in the document, so that compiling can continue and report further errors. A document with
//! errors never becomes a policy.

mod matcher;
mod refusal;
mod rule;

use super::{
    diagnostic::{Report, Span, Spanned, quoted},
    document::{API_VERSION, Document, ListDefinition},
    expression::is_reserved,
    fields::{Fields, mapping, text, texts},
    yaml::{Entry, Node},
};

/// IDs of the built-in rules.
pub(super) const SELF: &str = "self";
pub(super) const DUPLICATE: &str = "duplicate";
pub(super) const NOBODY_LEFT: &str = "nobodyLeft";

/// The maximum number of lists: as many as rules.
const MAX_LISTS: usize = 256;
/// The maximum length of a policy, rule or list name, in bytes. Names are part of every event and of metric labels.
const MAX_NAME_BYTES: usize = 64;

pub(super) fn document(root: Node, report: &mut Report<'_>) -> Option<Document> {
    let example = "\"apiVersion: importguard/v1\", then \"name:\" and \"rules:\"";
    let mut fields = Fields::open(root, "a policy", example, report)?;
    let remedy = "add the line \"apiVersion: importguard/v1\"";
    fields.required("apiVersion", remedy, report, api_version);
    let remedy = "add the line \"name: default\"; events carry the name";
    let name = fields.required("name", remedy, report, name);
    let lists = fields.optional("lists", report, lists);
    let remedy =
        "add \"rules:\" and under it the rules, or \"rules: []\" to have the built-in ones only";
    let rules = fields.required("rules", remedy, report, rule::rules);
    let nobody_left = fields.optional("nobodyLeft", report, refusal::refusal);
    fields.close(report);
    Some(Document {
        name: name.map(|name| name.value).unwrap_or_default(),
        lists: lists.unwrap_or_default(),
        rules: rules.unwrap_or_default(),
        nobody_left,
    })
}

fn api_version(node: Node, report: &mut Report<'_>) -> Option<()> {
    let version = text(node, report)?;
    if version.value != API_VERSION {
        report.error(
            version.span,
            format!("unsupported version {}", quoted(&version.value)),
            format!("write \"{API_VERSION}\", the only supported version"),
        );
    }
    Some(())
}

fn lists(node: Node, report: &mut Report<'_>) -> Option<Vec<ListDefinition>> {
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
    check_list_name(&name, report);
    let mut definition = ListDefinition {
        name,
        file: None,
        values: None,
    };
    let example = "{ file: lists/some.txt } or { values: [\"user1\"] }";
    let Some(mut fields) = Fields::open(entry.value, "a list", example, report) else {
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
            format!("write {example}"),
        ),
        _ => {}
    }
    definition.file = file.and_then(|entry| text(entry.value, report));
    definition.values = values
        .and_then(|entry| texts(entry.value, report))
        .map(|ids| ids.into_iter().map(|id| id.value).collect());
    fields.close(report);
    definition
}

/// A list's name is a variable in expressions, so it must be a valid and unused identifier.
fn check_list_name(name: &Spanned<String>, report: &mut Report<'_>) {
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

/// The name of a policy or of a rule.
fn name(node: Node, report: &mut Report<'_>) -> Option<Spanned<String>> {
    let name = text(node, report)?;
    let starts = name
        .value
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if !starts
        || !name
            .value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        || name.value.len() > MAX_NAME_BYTES
    {
        report.error(
            name.span,
            format!("{} is not a valid name", quoted(&name.value)),
            format!(
                "use up to {MAX_NAME_BYTES} letters, digits, \"-\", \"_\" and \".\", starting with a letter or digit: blocked-owner"
            ),
        );
        return None;
    }
    Some(name)
}

/// Reports the first item past the limit.
fn cap<T>(
    items: &[T],
    max: usize,
    what: &str,
    span: impl FnOnce(&T) -> Span,
    report: &mut Report<'_>,
) {
    if let Some(item) = items.get(max) {
        report.error(
            span(item),
            format!("{} {what}; the maximum is {max}", items.len()),
            "merge some: put IDs that are treated alike in one list",
        );
    }
}
