//! Lists of ids: how they are written, held and looked up. Nothing here reads a file; [`crate::load`] does.

mod id_set;
mod revision;
mod text;

pub use id_set::{IdHash, IdHasher, IdSet};
pub use revision::digest;
pub use text::{LineError, MAX_LIST_BYTES, parse};

use std::sync::Arc;

use importguard_core::ListRevision;

/// A list as a policy holds it: what it is called, which content it has, and the ids.
#[derive(Clone, Debug)]
pub struct List {
    /// Its name, digest and size.
    pub revision: ListRevision,
    /// Its ids, shared with every policy that was loaded with the same content.
    pub ids: Arc<IdSet>,
}

/// The content of a list before a policy gave it a name.
#[derive(Clone, Debug)]
pub struct ListContent {
    /// Over the bytes that the ids were read from.
    pub digest: String,
    /// The ids.
    pub ids: Arc<IdSet>,
}

impl ListContent {
    /// A list written out in the policy itself. Its digest is the one a file with these ids, one a line, would have.
    pub fn from_values<S: AsRef<str>>(values: &[S]) -> Self {
        let mut text = String::with_capacity(values.iter().map(|id| id.as_ref().len() + 1).sum());
        for id in values {
            text.push_str(id.as_ref());
            text.push('\n');
        }
        Self {
            digest: digest(text.as_bytes()),
            ids: Arc::new(IdSet::from_ids(values.iter().map(AsRef::as_ref))),
        }
    }

    /// The list under the name that a policy gives it.
    pub fn named(&self, name: &str) -> List {
        List {
            revision: ListRevision {
                name: name.to_owned(),
                digest: self.digest.clone(),
                size: self.ids.len() as u64,
            },
            ids: Arc::clone(&self.ids),
        }
    }
}

/// Why a list's file gave no list.
#[derive(Clone, Debug)]
pub enum ListError {
    /// The file could not be read at all.
    Unreadable {
        /// What is wrong with the file.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// The file was read, and some of its lines are no ids.
    Invalid {
        /// The file's path, for the message.
        path: String,
        /// What is wrong with which lines.
        lines: Vec<LineError>,
    },
}
