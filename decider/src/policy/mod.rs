//! The engine: a policy file's text becomes a [`Policy`], and a policy turns requests into [`Evaluation`]s.
//!
//! A pure function throughout: no file, network or clock is touched here. [`Draft::read`] takes the policy's text and
//! says which list files it wants; whoever has read those gives them to [`Draft::compile`]. ([`crate::load`] does both.)

mod compile;
mod cost;
pub(crate) mod diagnostic;
pub(crate) mod document;
mod evaluate;
mod explain;
mod expression;
pub(crate) mod fields;
mod friends;
mod matcher;
mod meter;
mod read;
mod refusal_code;
mod rule;
mod schema;
#[cfg(test)]
mod tests;
mod trail;
pub(crate) mod yaml;

pub use compile::ListFiles;
pub use cost::{
    DEFAULT_MAX_FRIENDS, MAX_COST, NANOS_PER_UNIT, PolicyCost, RuleCost, SHADOW_BUDGET,
};
pub use diagnostic::{Diagnostic, Diagnostics, MAX_REPORTED, Span};
pub use evaluate::Progress;
pub use explain::{Explanation, Happened, Reason, Step};
pub use schema::json_schema;

use std::convert::Infallible;
use std::time::SystemTime;

use importguard_core::{Evaluation, ListRevision, PolicyRevision, Refusal};

use crate::lists::{List, digest};
use cost::{Size, Totals};
use diagnostic::Report;
use document::Document;
use evaluate::Watched;
use expression::ListValues;
use rule::Rule;

/// The largest policy file in bytes. What is larger need not even be read.
pub const MAX_POLICY_BYTES: usize = yaml::MAX_SOURCE_BYTES;

/// A policy that was found free of mistakes, with its lists. It never changes; a changed file makes another one.
#[derive(Debug)]
pub struct Policy {
    revision: PolicyRevision,
    lists: Vec<List>,
    list_values: ListValues,
    rules: Vec<Rule>,
    nobody_left: Refusal,
    totals: Totals,
    cost: PolicyCost,
}

/// What is asked of a policy.
#[derive(Debug)]
pub struct Request<'r, S> {
    /// OpenIM's operationID.
    pub operation_id: &'r str,
    /// OpenIM's ownerUserID: who imports.
    pub owner: &'r str,
    /// OpenIM's friendUserIDs as they were sent: unchecked, in order.
    pub friends: &'r [S],
    /// When it is asked: expressions know it as `now`. The engine itself looks at no clock.
    pub now: SystemTime,
}

impl<S> Clone for Request<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Request<'_, S> {}

/// An evaluation was told to stop before it was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the evaluation was stopped")]
pub struct Stopped;

impl Policy {
    /// What the policy calls itself.
    pub fn name(&self) -> &str {
        &self.revision.name
    }

    /// The digest over the bytes of the policy file.
    pub fn digest(&self) -> &str {
        &self.revision.digest
    }

    /// The lists that the policy holds, in the order of the file.
    pub fn lists(&self) -> impl Iterator<Item = &ListRevision> {
        self.lists.iter().map(|list| &list.revision)
    }

    /// The IDs of the rules, in the order of the file.
    pub fn rule_ids(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.id.as_str())
    }

    /// What the largest import costs that the policy was made for.
    pub fn cost(&self) -> &PolicyCost {
        &self.cost
    }

    /// What evaluating a request costs at most, in units of some [`NANOS_PER_UNIT`]. `friends` are as many and have
    /// `friend_bytes` together; the longer of the owner's id and the operation's has `longest` bytes.
    pub fn expected_cost(&self, friends: usize, friend_bytes: usize, longest: usize) -> u64 {
        self.totals.units(Size {
            friends,
            friend_bytes: friend_bytes as u64,
            longest,
        })
    }

    /// Decides on an import: the same answer for the same policy and request. Takes as long as it takes.
    pub fn evaluate<S: AsRef<str>>(&self, request: &Request<'_, S>) -> Evaluation {
        let Ok::<_, Infallible>(evaluation) =
            evaluate::evaluate(self, request, &mut Watched(&mut ()), &mut || Ok(()));
        evaluation
    }

    /// Decides on an import as [`Policy::evaluate`] does, unless `should_stop` says yes. It is asked before anything is
    /// evaluated, and then after each 100 µs or so (2 ms where one expression takes so long). There is no other answer than
    /// the whole one: where it stops, it is as if nothing had been evaluated. `progress` watches.
    pub fn evaluate_until<S: AsRef<str>>(
        &self,
        request: &Request<'_, S>,
        mut should_stop: impl FnMut() -> bool,
        progress: &mut impl Progress,
    ) -> Result<Evaluation, Stopped> {
        let mut stop = || if should_stop() { Err(Stopped) } else { Ok(()) };
        evaluate::evaluate(self, request, &mut Watched(progress), &mut stop)
    }

    /// Decides on an import as [`Policy::evaluate`] does, and tells rule by rule what happened and why.
    pub fn explain<S: AsRef<str>>(&self, request: &Request<'_, S>) -> Explanation<'_> {
        explain::explain(self, request)
    }
}

/// A policy file that was read, perhaps with mistakes, and waits for its list files.
pub struct Draft<'s> {
    digest: String,
    document: Option<Document>,
    report: Report<'s>,
}

impl<'s> Draft<'s> {
    /// Reads the text of a policy file. `file` is what messages call it.
    pub fn read(file: &str, source: &'s str) -> Self {
        let mut report = Report::new(file, source);
        let document = if source.len() > MAX_POLICY_BYTES {
            report.add(Diagnostic::of_file(
                file.into(),
                format!(
                    "the file has {} bytes; the maximum is {MAX_POLICY_BYTES}",
                    source.len()
                ),
                "move long lists to separate files: { file: lists/name.txt }",
            ));
            None
        } else {
            yaml::parse(source, &mut report).and_then(|root| read::document(root, &mut report))
        };
        Self {
            digest: digest(source.as_bytes()),
            document,
            report,
        }
    }

    /// The list files that the policy names, relative to its own directory. Repetitions are possible.
    pub fn list_files(&self) -> impl Iterator<Item = &str> {
        let lists = self.document.iter().flat_map(|document| &document.lists);
        lists.filter_map(|list| Some(list.file.as_ref()?.value.as_str()))
    }

    /// Makes the policy, or tells everything that is wrong with the file and its lists. `files` has an entry for each of
    /// [`Draft::list_files`]. The largest import has [`DEFAULT_MAX_FRIENDS`].
    pub fn compile(self, files: &ListFiles) -> Result<Policy, Diagnostics> {
        self.compile_for(DEFAULT_MAX_FRIENDS, files)
    }

    /// Makes the policy as [`Draft::compile`] does, for imports of up to so many friends: what they cost must be within
    /// [`MAX_COST`].
    pub fn compile_for(
        mut self,
        max_friends: usize,
        files: &ListFiles,
    ) -> Result<Policy, Diagnostics> {
        let compiled = self.document.map(|document| {
            let name = document.name.clone();
            let compiled = compile::compile(document, max_friends, files, &mut self.report);
            (name, compiled)
        });
        match (self.report.finish(), compiled) {
            (None, Some((name, compiled))) => Ok(Policy {
                revision: PolicyRevision {
                    name,
                    digest: self.digest,
                },
                lists: compiled.lists,
                list_values: compiled.list_values,
                totals: Totals::of(&compiled.rules),
                rules: compiled.rules,
                nobody_left: compiled.nobody_left,
                cost: compiled.cost,
            }),
            (Some(diagnostics), _) => Err(diagnostics),
            // No document without a report: this only keeps the types honest.
            (None, None) => Err(Diagnostics::one(Diagnostic::of_file(
                "policy".into(),
                "the file could not be read as a policy",
                "start it with \"apiVersion: importguard/v1\"",
            ))),
        }
    }
}
