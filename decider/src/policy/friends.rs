//! The friends of a request, and which of them are left.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::lists::{IdHash, IdHasher};

/// Friends are named by their indexes into the request, of which a message cannot hold 2³².
pub(super) struct Friends<'r, S> {
    ids: &'r [S],
    hashes: Vec<IdHash>,
    kept: Kept,
}

pub(super) enum Kept {
    All,
    These(Vec<u32>),
}

/// Who was taken out of a request before any rule.
pub(super) struct Unusable {
    pub(super) owners: Vec<u32>,
    pub(super) repeated: Vec<u32>,
}

impl<'r, S: AsRef<str>> Friends<'r, S> {
    /// Takes a request's friends without the owner and without repetitions.
    pub(super) fn new(owner: &str, ids: &'r [S], hasher: IdHasher) -> (Self, Unusable) {
        let mut hashes: Vec<IdHash> = Vec::with_capacity(ids.len());
        let mut seen: HashTable<u32> = HashTable::with_capacity(ids.len());
        let mut owners = Vec::new();
        let mut repeated = Vec::new();
        for (index, id) in (0u32..).zip(ids) {
            let id = id.as_ref();
            let hash = hasher.hash(id);
            hashes.push(hash);
            if id == owner {
                owners.push(index);
                continue;
            }
            let same = |&other: &u32| {
                let other = other as usize;
                hashes[other] == hash && ids[other].as_ref() == id
            };
            let hash_of = |&other: &u32| hashes[other as usize].get();
            match seen.entry(hash.get(), same, hash_of) {
                Entry::Occupied(_) => repeated.push(index),
                Entry::Vacant(place) => {
                    place.insert(index);
                }
            }
        }
        let mut friends = Self {
            ids,
            hashes,
            kept: Kept::All,
        };
        friends.remove(&owners);
        friends.remove(&repeated);
        (friends, Unusable { owners, repeated })
    }

    pub(super) fn id(&self, index: u32) -> &'r str {
        self.ids[index as usize].as_ref()
    }

    pub(super) fn hash(&self, index: u32) -> IdHash {
        self.hashes[index as usize]
    }

    /// How many are left.
    pub(super) fn count(&self) -> usize {
        match &self.kept {
            Kept::All => self.ids.len(),
            Kept::These(kept) => kept.len(),
        }
    }

    /// Those who are left and for whom `matches` is true. Allocates only if there are any.
    pub(super) fn select(&self, mut matches: impl FnMut(u32) -> bool) -> Vec<u32> {
        match &self.kept {
            Kept::All => self.indexes().filter(|&index| matches(index)).collect(),
            Kept::These(kept) => kept
                .iter()
                .copied()
                .filter(|&index| matches(index))
                .collect(),
        }
    }

    /// Those who are left after the first `max`.
    pub(super) fn after(&self, max: usize) -> Vec<u32> {
        match &self.kept {
            Kept::All => self.indexes().skip(max).collect(),
            Kept::These(kept) => kept.get(max..).unwrap_or_default().to_vec(),
        }
    }

    /// Removes the friends with these ascending indexes, each of whom is left.
    pub(super) fn remove(&mut self, removed: &[u32]) {
        if removed.is_empty() {
            return;
        }
        let mut removed = removed.iter().copied().peekable();
        let mut stays = |index: u32| removed.next_if_eq(&index).is_none();
        match &mut self.kept {
            Kept::These(kept) => kept.retain(|&index| stays(index)),
            Kept::All => {
                let mut kept = Vec::with_capacity(self.ids.len());
                kept.extend(self.indexes().filter(|&index| stays(index)));
                self.kept = Kept::These(kept);
            }
        }
    }

    pub(super) fn into_kept(self) -> Kept {
        self.kept
    }

    fn indexes(&self) -> impl Iterator<Item = u32> + use<'r, S> {
        (0u32..).zip(self.ids).map(|(index, _)| index)
    }
}
