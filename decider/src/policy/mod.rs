//! The engine: a policy file's text becomes a [`Policy`], and a policy turns requests into [`Decision`]s.
//!
//! A pure function throughout: no file, network or clock is touched here. [`Draft::read`] takes the policy's text and
//! says which list files it wants; whoever has read those gives them to [`Draft::compile`]. ([`crate::load`] does both.)

mod compile;
mod decision;
pub(crate) mod diagnostic;
pub(crate) mod document;
mod evaluate;
mod explain;
mod expression;
pub(crate) mod fields;
mod friends;
mod matcher;
mod read;
mod rule;
mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod yaml;

pub use compile::ListFiles;
pub use decision::{Decision, Fired, Mode, Outcome, Refusal, RefusalCode, Removal, Verdict};
pub use diagnostic::{Diagnostic, Diagnostics, MAX_REPORTED, Span};
pub use explain::{Explanation, Happened, Reason, Step};
pub use schema::json_schema;

use std::time::SystemTime;

use crate::lists::{Digest, List, ListRevision};
use diagnostic::Report;
use document::Document;
use expression::ListValues;
use rule::Rule;

/// The largest policy file in bytes. What is larger need not even be read.
pub const MAX_POLICY_BYTES: usize = yaml::MAX_SOURCE_BYTES;

/// A policy that was found free of mistakes, with its lists. It never changes; a changed file makes another one.
#[derive(Debug)]
pub struct Policy {
    name: String,
    digest: Digest,
    lists: Vec<List>,
    list_values: ListValues,
    rules: Vec<Rule>,
    nobody_left: Refusal,
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

impl Policy {
    /// What the policy calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The digest over the bytes of the policy file.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The lists that the policy holds, in the order of the file.
    pub fn lists(&self) -> impl Iterator<Item = &ListRevision> {
        self.lists.iter().map(|list| &list.revision)
    }

    /// Decides on an import: the same answer for the same policy and request.
    pub fn evaluate<S: AsRef<str>>(&self, request: &Request<'_, S>) -> Decision<'_> {
        evaluate::evaluate(self, request, &mut evaluate::Nobody)
    }

    /// Decides on an import as [`Policy::evaluate`] does, and tells rule by rule what happened and why.
    pub fn explain<S: AsRef<str>>(&self, request: &Request<'_, S>) -> Explanation<'_> {
        explain::explain(self, request)
    }
}

/// A policy file that was read, perhaps with mistakes, and waits for its list files.
pub struct Draft<'s> {
    digest: Digest,
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
                    "the file has {} bytes and may have {MAX_POLICY_BYTES}",
                    source.len()
                ),
                "move long lists to files of their own: { file: lists/name.txt }",
            ));
            None
        } else {
            yaml::parse(source, &mut report).and_then(|root| read::document(root, &mut report))
        };
        Self {
            digest: Digest::of(source.as_bytes()),
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
    /// [`Draft::list_files`].
    pub fn compile(mut self, files: &ListFiles) -> Result<Policy, Diagnostics> {
        let compiled = self.document.map(|document| {
            let name = document.name.clone();
            (name, compile::compile(document, files, &mut self.report))
        });
        match (self.report.finish(), compiled) {
            (None, Some((name, compiled))) => Ok(Policy {
                name,
                digest: self.digest,
                lists: compiled.lists,
                list_values: compiled.list_values,
                rules: compiled.rules,
                nobody_left: compiled.nobody_left,
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
