//! Lists of IDs: parsing, storage and look-up. [`crate::load`] reads the files.

mod id_set;
mod revision;
mod text;

pub use id_set::{IdHash, IdHasher, IdSet};
pub use revision::digest;
pub use text::{LineError, MAX_LIST_BYTES, parse};

use std::sync::Arc;

use importguard_core::ListRevision;

/// A list of a policy.
#[derive(Clone, Debug)]
pub struct List {
    /// Its name, digest and size.
    pub revision: ListRevision,
    /// Its IDs.
    pub ids: Arc<IdSet>,
}

/// The content of a list, without its name.
#[derive(Clone, Debug)]
pub struct ListContent {
    /// Digest of the bytes that the IDs were read from.
    pub digest: String,
    /// The IDs.
    pub ids: Arc<IdSet>,
}

impl ListContent {
    /// An inline list of a policy. Its digest is that of a file with these IDs, one per line.
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

    /// The list with its name in a policy.
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

/// Why a list could not be loaded.
#[derive(Clone, Debug)]
pub enum ListError {
    /// The file could not be read.
    Unreadable {
        /// The reason, as a predicate such as "cannot be read".
        reason: String,
        /// How to correct it.
        remedy: String,
    },
    /// The file has invalid lines.
    Invalid {
        /// The file's path, for messages.
        path: String,
        /// The invalid lines.
        lines: Vec<LineError>,
    },
}
