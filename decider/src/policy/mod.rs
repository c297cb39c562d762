//! The engine: a policy file's text becomes a [`Policy`], and a policy turns requests into [`Decision`]s.
//!
//! A pure function throughout: no file, network or clock is touched here. [`Draft::read`] takes the policy's text and
//! says which list files it wants; whoever has read those gives them to [`Draft::compile`]. ([`crate::load`] does both.)

mod compile;
mod decision;
mod diagnostic;
mod document;
mod evaluate;
mod fields;
mod read;
mod rule;
#[cfg(test)]
mod tests;
mod yaml;

pub use compile::ListFiles;
pub use decision::{Decision, Fired, Mode, Outcome, Refusal, RefusalCode, Removal, Verdict};
pub use diagnostic::{Diagnostic, Diagnostics, MAX_REPORTED, Span};

use crate::lists::{Digest, List, ListRevision};
use diagnostic::Report;
use document::Document;
use rule::Rule;

/// The largest policy file in bytes. What is larger need not even be read.
pub const MAX_POLICY_BYTES: usize = yaml::MAX_SOURCE_BYTES;

/// A policy that was found free of mistakes, with its lists. It never changes; a changed file makes another one.
#[derive(Debug)]
pub struct Policy {
    name: String,
    digest: Digest,
    lists: Vec<List>,
    rules: Vec<Rule>,
    nobody_left: Refusal,
}

/// What is asked of a policy.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r, S> {
    /// OpenIM's operationID.
    pub operation_id: &'r str,
    /// OpenIM's ownerUserID: who imports.
    pub owner: &'r str,
    /// OpenIM's friendUserIDs as they were sent: unchecked, in order.
    pub friends: &'r [S],
}

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
        evaluate::evaluate(self, request)
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
