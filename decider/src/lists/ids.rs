use std::{borrow::Cow, sync::Arc, time::SystemTime};

use super::{Fold, IdHash, IdHasher, IdSet};

/// The IDs of a list, and how they are compared.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    /// As folded.
    set: Arc<IdSet>,
    fold: Fold,
}

/// What a list says of an ID that it contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// The entry, if it differs from the ID.
    pub entry: Option<String>,
    /// Why it is on the list, if that is known.
    pub reason: Option<Arc<str>>,
    /// When it expires, if it does.
    pub until: Option<SystemTime>,
}

impl Ids {
    /// The IDs of `set`, compared without the differences that `fold` ignores.
    pub fn new(set: Arc<IdSet>, fold: Fold) -> Self {
        let set = match fold.is_none() {
            true => set,
            false => Arc::new(IdSet::from_ids(set.iter().map(|id| fold.apply(id)))),
        };
        Self { set, fold }
    }

    /// Whether the list contains `id`.
    pub fn contains(&self, id: &str) -> bool {
        self.contains_hashed(id, IdHasher::get().hash(id))
    }

    /// Whether the list contains `id`, whose hash is `hash`.
    #[inline]
    pub fn contains_hashed(&self, id: &str, hash: IdHash) -> bool {
        if self.fold.is_none() {
            self.set.contains_hashed(id, hash)
        } else {
            self.contains_folded(id)
        }
    }

    // Cold in the sense that lists without `fold` pay nothing for it: otherwise a look-up in them takes a nanosecond more.
    #[cold]
    #[inline(never)]
    fn contains_folded(&self, id: &str) -> bool {
        self.set.contains(&self.fold.apply(id))
    }

    /// What the list says of `id`, which it contains.
    pub fn hit(&self, id: &str) -> Hit {
        Hit {
            entry: match self.fold.apply(id) {
                Cow::Owned(entry) => Some(entry).filter(|entry| entry != id),
                Cow::Borrowed(_) => None,
            },
            ..Hit::default()
        }
    }

    /// How they are compared.
    pub fn fold(&self) -> Fold {
        self.fold
    }

    /// The number of IDs that differ.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}
