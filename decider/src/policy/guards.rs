//! Checks that keep a policy that lost its rules, or a list that lost its IDs, from letting everybody in.
//!
//! A list file that is below its minimum, or empty without `allowEmpty`, is an error whenever it is read. Whether a file lost too much can
//! be determined only where there is an active policy to compare it with.

use std::sync::Arc;

use super::{
    Policy,
    diagnostic::{Diagnostic, Diagnostics, Report, quoted},
    document::ListDefinition,
    matcher::Matcher,
    numbers::{grouped, number_of_ids},
    rule::Rule,
};
use crate::lists::{List, ListFile};

/// Lists with fewer IDs may shrink freely. People who edit such a list by hand occasionally remove half of it, and so short a file is
/// written in one piece.
const MIN_COMPARED_IDS: u64 = 10;

/// A list needs a confirmation if it has less than one in this many of the active IDs. Lists of people change by a few percent from one
/// version to the next; a file that was truncated, or written by a query that failed midway, may have lost any share. A threshold of one
/// half catches every second such file, and hardly any intended change.
const MIN_SHARE: u64 = 2;

/// The file of a list in the policy `file`, or `None` if its IDs are in the policy.
pub(super) fn list_file(definition: &ListDefinition, file: &Arc<str>) -> Option<ListFile> {
    Some(ListFile {
        policy: Arc::clone(file),
        span: definition.file.as_ref()?.span,
        allow_empty: definition.allow_empty,
        allow_shrink: definition.allow_shrink,
        at_least: definition.at_least.as_ref().map(|least| least.value),
    })
}

/// Reports a list whose file has too few IDs, regardless of how many it had before.
pub(super) fn check(definition: &ListDefinition, list: &List, report: &mut Report<'_>) {
    let (Some(file), size) = (&definition.file, list.revision.size) else {
        return;
    };
    match &definition.at_least {
        None if size == 0 && !definition.allow_empty => report.error(
            file.span,
            format!("the list {} has no IDs", quoted(&file.value)),
            "restore the file; if it may be empty, add allowEmpty: true to the list",
        ),
        Some(least) if size < least.value => report.error(
            least.span,
            format!(
                "the list {} has {}; it must have at least {}",
                quoted(&file.value),
                number_of_ids(size),
                least.value
            ),
            "restore the file, or lower atLeast",
        ),
        _ => {}
    }
}

impl Policy {
    /// Why this policy should not replace `active` without a confirmation by the operator: its file was cut off, none of its rules is
    /// enforced, or lists lost more than half of their IDs or seem to be half written. `None` if there is no reason.
    pub fn doubts(&self, active: &Self) -> Option<Diagnostics> {
        let mut report = Report::new(&self.file, "");
        for doubt in self.losses(active) {
            let remedy =
                "restore the file; if it is right, send SIGHUP to the decider to confirm it";
            report.add(Diagnostic::of_file(Arc::clone(&self.file), doubt, remedy));
        }
        for new in &self.lists {
            let old = |old: &&List| old.revision.name == new.revision.name;
            let Some(old) = active.lists.iter().find(old) else {
                continue;
            };
            if let (Some(file), Some(doubt)) = (&new.file, doubt(new, old)) {
                report.add(Diagnostic::at(
                    Arc::clone(&file.policy),
                    file.span,
                    "",
                    doubt,
                    "restore the file; if it is right, send SIGHUP to the decider to confirm it, or add allowShrink: true to the list",
                ));
            }
        }
        report.finish()
    }

    /// What the policy file itself lost since `active`.
    fn losses(&self, active: &Self) -> impl Iterator<Item = String> {
        let rest = active.source.strip_prefix(&self.source);
        // An editor may remove the white space at the end.
        let is_cut = rest.is_some_and(|rest| !rest.trim().is_empty());
        let cut = is_cut.then(|| {
            let (now, before) = (self.source.len(), active.source.len());
            format!(
                "the policy has only the first {} of the active one's {} bytes, so it may be half written",
                grouped(now as u64),
                grouped(before as u64)
            )
        });
        let enforces = |policy: &Self| policy.rules.iter().any(Rule::is_enforced);
        let lost = enforces(active) && !enforces(self);
        let lost =
            lost.then(|| "the policy enforces none of its rules, unlike the active one".to_owned());
        cut.into_iter().chain(lost)
    }

    /// The lists with files that have IDs with white space in them, and the number of these IDs. OpenIM may have such IDs, but they may
    /// as well be several on one line, which match nobody.
    pub fn ids_with_spaces(&self) -> impl Iterator<Item = (&str, usize)> {
        self.lists.iter().filter_map(|list| {
            list.file.as_ref()?;
            let spaced = list
                .ids
                .iter()
                .filter(|id| id.contains(char::is_whitespace));
            let count = spaced.count();
            (count > 0).then_some((list.revision.name.as_str(), count))
        })
    }

    /// The lists that neither a rule nor another list uses.
    pub fn unused_lists(&self) -> &[String] {
        &self.unused_lists
    }

    /// The rules with a matcher that nearly every ID matches, because it has both keys for IDs that fit and for IDs that do not.
    pub fn mixed_rules(&self) -> impl Iterator<Item = &str> {
        let is_mixed = |rule: &&Rule| rule.matcher().is_some_and(Matcher::is_mixed);
        self.rules
            .iter()
            .filter(is_mixed)
            .map(|rule| rule.id.as_str())
    }

    /// The lists with files that could lose IDs unnoticed while no decider runs, each with a suggested minimum for `atLeast`.
    pub fn suggested_minimums(&self) -> impl Iterator<Item = (&str, u64)> {
        self.lists.iter().filter_map(|list| {
            let file = list.file.as_ref()?;
            let minimum = list.revision.size / MIN_SHARE;
            // At least one ID is required anyway.
            let suggested = file.at_least.is_none() && !file.allow_empty && minimum > 1;
            suggested.then_some((list.revision.name.as_str(), minimum))
        })
    }
}

fn doubt(new: &List, old: &List) -> Option<String> {
    if new.file.as_ref()?.allow_shrink || old.revision.size < MIN_COMPARED_IDS {
        return None;
    }
    let (name, before, now) = (&new.revision.name, old.revision.size, new.revision.size);
    let shrank = format!(
        "the list {name} shrank from {} to {}",
        grouped(before),
        number_of_ids(now)
    );
    if now < before.div_ceil(MIN_SHARE) {
        return Some(format!("{shrank}, less than half"));
    }
    // A writer that never terminates the last line did not terminate the previous one either.
    let is_cut = now < before && old.is_terminated && !new.is_terminated;
    is_cut.then(|| format!("{shrank} and its last line has no end, so it may be half written"))
}
