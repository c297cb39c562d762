//! Lists of IDs: parsing, storage and look-up. [`crate::load`] reads the files.

mod fold;
mod id_set;
mod ids;
pub mod live;
mod shape;
mod text;

pub use fold::Fold;
pub use id_set::{IdHash, IdHasher, IdSet};
pub use ids::{Hit, Ids, View};
pub use shape::{Misfit, misfit};
pub use text::{LineError, LineErrors, MAX_LIST_BYTES, id as id_on_line, parse};

use std::sync::Arc;

use importguard_core::{ListRevision, digest};
use importguard_yaml::{diagnostic::Span, file::FileError};

use self::live::LiveLists;

/// A list of a policy.
#[derive(Clone, Debug)]
pub struct List {
    /// Its name, digest and size.
    pub revision: ListRevision,
    /// Its IDs.
    pub ids: Ids,
    /// Whether the last line of its file ends with a line feed.
    pub is_terminated: bool,
    /// Its file, as named in the policy; `None` if the IDs are in the policy itself.
    pub file: Option<ListFile>,
}

/// The file of a list, as named in a policy, with the limits that the policy sets on its size.
#[derive(Clone, Debug)]
pub struct ListFile {
    /// The policy's file.
    pub policy: Arc<str>,
    /// The position of the list's path in the policy.
    pub span: Span,
    /// Whether the file may contain no IDs.
    pub allow_empty: bool,
    /// Whether the list may lose any number of IDs without a confirmation.
    pub allow_shrink: bool,
    /// The minimum number of IDs.
    pub at_least: Option<u64>,
}

/// The content of a list, without its name.
#[derive(Clone, Debug)]
pub struct ListContent {
    /// Digest of the bytes that the IDs were read from.
    pub digest: String,
    /// The IDs.
    pub ids: Arc<IdSet>,
    /// Whether the last line ends with a line feed. If not, a writer may have been interrupted.
    pub is_terminated: bool,
}

impl ListContent {
    /// Creates the content of an inline list of a policy. Its digest is that of a file with these IDs, one per line.
    pub fn from_values<S: AsRef<str>>(values: &[S]) -> Self {
        let mut text = String::with_capacity(values.iter().map(|id| id.as_ref().len() + 1).sum());
        for id in values {
            text.push_str(id.as_ref());
            text.push('\n');
        }
        Self {
            digest: digest(text.as_bytes()),
            ids: Arc::new(IdSet::from_ids(values.iter())),
            is_terminated: true,
        }
    }

    /// Builds the list `name` of a policy from this content. `ids` are the content's IDs with the policy's options applied.
    pub fn named(&self, name: &str, ids: Ids, file: Option<ListFile>) -> List {
        List {
            revision: ListRevision {
                name: name.to_owned(),
                digest: self.digest.clone(),
                size: ids.len() as u64,
                revision: None,
            },
            ids,
            is_terminated: self.is_terminated,
            file,
        }
    }
}

impl List {
    /// Returns the list's revision. If the list has a live list, this includes the revision and the size of that list in `live`.
    pub fn revision_with(&self, live: &LiveLists) -> ListRevision {
        let mut revision = self.revision.clone();
        if let Some(name) = self.ids.live() {
            let list = live.get(name);
            revision.revision = Some(list.map_or(0, |list| list.revision));
            revision.size += list.map_or(0, |list| list.entries.entries() as u64);
        }
        revision
    }
}

/// Why a list could not be loaded.
#[derive(Clone, Debug)]
pub enum ListError {
    /// The file could not be read.
    Unreadable(FileError),
    /// The file has invalid lines.
    Invalid {
        /// The file's path, for messages.
        path: String,
        /// The invalid lines.
        lines: LineErrors,
    },
}
