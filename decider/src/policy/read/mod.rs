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

use importguard_yaml::document::{FileKind, MAX_NAME_BYTES, api_version, name};

use super::{
    diagnostic::{Report, Span},
    document::Document,
    fields::Fields,
    yaml::Node,
};

/// IDs of the built-in rules.
pub(super) const SELF: &str = "self";
pub(super) const DUPLICATE: &str = "duplicate";
pub(super) const NOBODY_LEFT: &str = "nobodyLeft";

pub(super) fn document(root: Node, report: &mut Report<'_>) -> Option<Document> {
    FileKind::Policy.check(&root, report)?;
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
