//! The engine: a policy file's text becomes a [`Policy`], and a policy turns requests into [`Evaluation`]s.
//!
//! The engine is a pure function: it uses no files, network or clock. [`Draft::read`] parses the policy and names the list
//! files it refers to; the caller reads those and passes them to [`Draft::compile`]. ([`crate::load`] does both.)

mod changes;
mod compile;
mod cost;
pub(crate) mod document;
mod evaluate;
mod explain;
mod expression;
mod friends;
mod guards;
mod matcher;
mod matches;
mod numbers;
mod patterns;
mod read;
mod rule;
#[cfg(test)]
mod tests;
mod trail;
mod units;

pub use changes::Changes;
pub use compile::ListFiles;
pub use cost::{DEFAULT_MAX_FRIENDS, MAX_COST, PolicyCost, RuleCost, SHADOW_BUDGET};
pub use document::json_schema;
pub use evaluate::Progress;
pub use explain::{Explanation, Happened, Outside, Reason, Step};
pub use importguard_yaml::diagnostic::{
    BriefDiagnostics, Diagnostic, Diagnostics, MAX_REPORTED, Span,
};
pub use matcher::Part;
pub use numbers::number_of_ids;
pub use units::NANOS_PER_UNIT;

pub(crate) use importguard_yaml::{diagnostic, fields, yaml};

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use changes::Definitions;
use cost::{Size, Totals};
use diagnostic::Report;
use document::Document;
use evaluate::ProgressObserver;
use expression::ListValues;
use importguard_core::{Evaluation, ListRevision, PolicyRevision, Refusal, content_digest, digest};
use rule::Rule;

use crate::lists::{List, live::LiveLists};

/// The maximum size of a policy file, in bytes.
pub const MAX_POLICY_BYTES: usize = yaml::MAX_SOURCE_BYTES;

/// A valid policy with its lists. Immutable: a changed file makes a new one.
#[derive(Debug)]
pub struct Policy {
    /// Its file, as given by the operator.
    file: Arc<str>,
    /// The content of the file. A file that is only a part of it was cut off.
    source: String,
    revision: PolicyRevision,
    lists: Vec<List>,
    /// The names of lists that neither a rule nor another list uses.
    unused_lists: Vec<String>,
    list_values: ListValues,
    rules: Vec<Rule>,
    definitions: Definitions,
    nobody_left: Refusal,
    totals: Totals,
    cost: PolicyCost,
}

/// An import request to evaluate.
#[derive(Debug)]
pub struct Request<'r, S> {
    /// OpenIM's operationID.
    pub operation_id: &'r str,
    /// OpenIM's ownerUserID: the user who imports friends.
    pub owner: &'r str,
    /// OpenIM's friendUserIDs as received: unchecked, in order.
    pub friends: &'r [S],
    /// The time of the request, `now` in expressions. The engine reads no clock.
    pub now: SystemTime,
}

impl<S> Clone for Request<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Request<'_, S> {}

impl<S> Request<'_, S> {
    /// The length of the longer of owner ID and operation ID, in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.owner.len().max(self.operation_id.len())
    }
}

/// An evaluation was stopped before it finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the evaluation was stopped")]
pub struct StoppedError;

impl Policy {
    /// The policy's name.
    pub fn name(&self) -> &str {
        &self.revision.name
    }

    /// The digest of the policy file.
    pub fn digest(&self) -> &str {
        &self.revision.digest
    }

    /// The policy's name, and the digest of its file.
    pub fn revision(&self) -> &PolicyRevision {
        &self.revision
    }

    /// The digest of the policy file and the content of its lists. Policies with the same digest give the same verdicts, as long as the
    /// entries of their live lists are the same.
    pub fn content_digest(&self) -> String {
        content_digest(&self.revision, self.lists())
    }

    /// The policy's lists, in file order.
    pub fn lists(&self) -> impl Iterator<Item = &ListRevision> {
        self.lists.iter().map(|list| &list.revision)
    }

    /// The IDs of the rules, in file order.
    pub fn rule_ids(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.id.as_str())
    }

    /// The cost of the largest import that the policy was compiled for.
    pub fn cost(&self) -> &PolicyCost {
        &self.cost
    }

    /// The maximum cost of evaluating a request, in units of about [`NANOS_PER_UNIT`]. `friends` is the number of friends,
    /// `friend_bytes` the total length of their IDs, and `longest` the length of the longer of owner ID and operation ID.
    pub fn expected_cost(&self, friends: usize, friend_bytes: usize, longest: usize) -> u64 {
        self.totals.units(Size {
            friends,
            friend_bytes: friend_bytes as u64,
            longest,
        })
    }

    /// The live lists that the policy uses: the name of each in the bucket, and the name of the list in the policy.
    pub fn live_lists(&self) -> impl Iterator<Item = (&str, &str)> {
        let lists = self.lists.iter();
        lists.filter_map(|list| Some((list.ids.live()?, list.revision.name.as_str())))
    }

    /// Adds the live lists at one revision. The methods of [`Policy`] itself evaluate as if all live lists were empty.
    pub fn with_live<'p>(&'p self, live: &'p LiveLists) -> Evaluator<'p> {
        Evaluator { policy: self, live }
    }

    /// Evaluates an import as [`Evaluator::evaluate`] does, without live lists.
    pub fn evaluate<S: AsRef<str>>(&self, request: &Request<'_, S>) -> Evaluation {
        self.with_live(LiveLists::none()).evaluate(request)
    }

    /// Explains an import as [`Evaluator::explain`] does, without live lists.
    pub fn explain<S: AsRef<str>>(&self, request: &Request<'_, S>) -> Explanation<'_> {
        self.with_live(LiveLists::none()).explain(request, None)
    }
}

/// A policy and the live lists at one revision.
#[derive(Clone, Copy, Debug)]
pub struct Evaluator<'p> {
    policy: &'p Policy,
    live: &'p LiveLists,
}

impl<'p> Evaluator<'p> {
    /// Evaluates an import. The result depends only on the policy, the live lists and the request. There is no time limit.
    pub fn evaluate<S: AsRef<str>>(&self, request: &Request<'_, S>) -> Evaluation {
        let Ok::<_, Infallible>(evaluation) = evaluate::evaluate(
            (self.policy, self.live),
            request,
            None,
            &mut ProgressObserver(&mut ()),
            &mut || Ok(()),
        );
        evaluation
    }

    /// Evaluates an import as [`evaluate`](Self::evaluate) does, until `should_stop` returns true. It is called before anything is
    /// evaluated and then about every 100 µs (every 2 ms during an expensive expression). There are no partial results.
    /// `progress` is notified of each rule.
    ///
    /// # Errors
    /// If `should_stop` returned true.
    pub fn evaluate_until<S: AsRef<str>>(
        &self,
        request: &Request<'_, S>,
        mut should_stop: impl FnMut() -> bool,
        progress: &mut impl Progress,
    ) -> Result<Evaluation, StoppedError> {
        let mut stop = || {
            if should_stop() {
                Err(StoppedError)
            } else {
                Ok(())
            }
        };
        evaluate::evaluate(
            (self.policy, self.live),
            request,
            None,
            &mut ProgressObserver(progress),
            &mut stop,
        )
    }

    /// Evaluates an import as [`evaluate`](Self::evaluate) does, and explains the effect of every rule. `per_cent`, 0 to 100, replaces
    /// the percentages of rollouts.
    pub fn explain<S: AsRef<str>>(
        &self,
        request: &Request<'_, S>,
        per_cent: Option<u8>,
    ) -> Explanation<'p> {
        explain::explain((self.policy, self.live), request, per_cent)
    }
}

/// A parsed policy file, possibly with errors, to be compiled with its list files.
pub struct Draft<'s> {
    source: &'s str,
    digest: String,
    document: Option<Document>,
    definitions: Definitions,
    report: Report<'s>,
}

impl<'s> Draft<'s> {
    /// Parses a policy file. `file` is its name in messages.
    pub fn read(file: &str, source: &'s str) -> Self {
        let digest = digest(source.as_bytes());
        let mut report = Report::new(file, source);
        let mut definitions = Definitions::default();
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
            yaml::parse(&mut report).and_then(|root| {
                definitions = Definitions::of(&root);
                read::document(root, &mut report)
            })
        };
        Self {
            source,
            definitions,
            digest,
            document,
            report,
        }
    }

    /// The list files that the policy refers to, relative to its directory. May contain duplicates.
    pub fn list_files(&self) -> impl Iterator<Item = &str> {
        let lists = self.document.iter().flat_map(|document| &document.lists);
        lists.filter_map(|list| Some(list.file.as_ref()?.value.as_str()))
    }

    /// Compiles the policy for imports of up to [`DEFAULT_MAX_FRIENDS`]. `files` has an entry for each of
    /// [`Draft::list_files`].
    ///
    /// # Errors
    /// Every error in the file and its lists.
    pub fn compile(self, files: &ListFiles) -> Result<Policy, Diagnostics> {
        self.compile_for(DEFAULT_MAX_FRIENDS, files)
    }

    /// Compiles the policy as [`Draft::compile`] does, for imports of up to `max_friends` friends, whose cost must not exceed
    /// [`MAX_COST`].
    ///
    /// # Errors
    /// Every error in the file and its lists.
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
        let example = "\"apiVersion: importguard/v1\"";
        let file = Arc::clone(self.report.file());
        let (name, compiled) = self.report.conclude(compiled, example)?;
        Ok(Policy {
            file,
            source: self.source.to_owned(),
            revision: PolicyRevision {
                name,
                digest: self.digest,
            },
            lists: compiled.lists,
            unused_lists: compiled.unused_lists,
            list_values: compiled.list_values,
            totals: Totals::of(&compiled.rules),
            rules: compiled.rules,
            definitions: self.definitions,
            nobody_left: compiled.nobody_left,
            cost: compiled.cost,
        })
    }
}
