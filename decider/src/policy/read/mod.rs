//! Reads a [`Document`] from the YAML tree: keys, types and names.
//!
//! An error leaves a placeholder in the document, so that compiling can continue and report further errors. A document with
//! errors never becomes a policy.

mod list;
mod matcher;
mod refusal;
mod rollout;
mod rule;

pub(super) use rule::{FAILS_WITHOUT_REFUSAL, fails_remedy};

use super::{
    diagnostic::{Report, Span, Spanned, quoted},
    document::{API_VERSION, Document},
    fields::{Fields, text},
    yaml::Node,
};

/// IDs of the built-in rules.
pub(super) const SELF: &str = "self";
pub(super) const DUPLICATE: &str = "duplicate";
pub(super) const NOBODY_LEFT: &str = "nobodyLeft";

/// The maximum length of a policy, rule or list name, in bytes. Names are part of every event and of metric labels.
const MAX_NAME_BYTES: usize = 64;

pub(super) fn document(root: Node, report: &mut Report<'_>) -> Option<Document> {
    let example = "\"apiVersion: importguard/v1\", then \"name:\" and \"rules:\"";
    let mut fields = Fields::open(root, "a policy", example, report)?;
    let remedy = "add the line \"apiVersion: importguard/v1\"";
    fields.required("apiVersion", remedy, report, api_version);
    let remedy = "add the line \"name: default\"; events carry the name";
    let name = fields.required("name", remedy, report, name);
    let lists = fields.optional("lists", report, list::lists);
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
