//! The friends of a request, and which of them remain.

use hashbrown::{HashTable, hash_table::Entry};

use super::units::{Meter, PREPARE};
use crate::lists::{IdHash, IdHasher};

/// The friends of a request, identified by their indexes into it; a message cannot hold 2³² of them.
pub(super) struct Friends<'r, S> {
    ids: &'r [S],
    hashes: Vec<IdHash>,
    remaining: Remaining,
}

pub(super) enum Remaining {
    All,
    Only(Vec<u32>),
}

/// Friends that were removed before any rule.
pub(super) struct Removed {
    pub(super) owners: Vec<u32>,
    pub(super) repeated: Vec<u32>,
}

impl<'r, S: AsRef<str>> Friends<'r, S> {
    /// The friends of a request without the owner and duplicates. Fails if the meter stops it.
    pub(super) fn new<E>(
        owner: &str,
        ids: &'r [S],
        hasher: IdHasher,
        meter: &mut Meter<'_, E>,
    ) -> Result<(Self, Removed), E> {
        meter.spend(0)?;
        let mut hashes: Vec<IdHash> = Vec::with_capacity(ids.len());
        let mut seen: HashTable<u32> = HashTable::with_capacity(ids.len());
        let mut owners = Vec::new();
        let mut repeated = Vec::new();
        for (index, id) in (0u32..).zip(ids) {
            let id = id.as_ref();
            meter.spend(PREPARE.units(id.len()))?;
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
                Entry::Vacant(entry) => {
                    entry.insert(index);
                }
            }
        }
        let mut friends = Self {
            ids,
            hashes,
            remaining: Remaining::All,
        };
        friends.remove(&owners);
        friends.remove(&repeated);
        Ok((friends, Removed { owners, repeated }))
    }

    pub(super) fn id(&self, index: u32) -> &'r str {
        self.ids[index as usize].as_ref()
    }

    pub(super) fn hash(&self, index: u32) -> IdHash {
        self.hashes[index as usize]
    }

    /// The number of remaining friends.
    pub(super) fn count(&self) -> usize {
        match &self.remaining {
            Remaining::All => self.ids.len(),
            Remaining::Only(left) => left.len(),
        }
    }

    /// Returns the remaining friends for which `matches` returns true, or its first error. Allocates only if any friend matches.
    pub(super) fn select<E>(
        &self,
        mut matches: impl FnMut(u32) -> Result<bool, E>,
    ) -> Result<Vec<u32>, E> {
        let mut selected = Vec::new();
        let mut visit = |index| {
            if matches(index)? {
                selected.push(index);
            }
            Ok(())
        };
        match &self.remaining {
            Remaining::All => self.indexes().try_for_each(&mut visit)?,
            Remaining::Only(left) => left.iter().copied().try_for_each(&mut visit)?,
        }
        Ok(selected)
    }

    /// The total length of the remaining IDs, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |index| self.id(index).len() as u64;
        match &self.remaining {
            Remaining::All => self.indexes().map(bytes).sum(),
            Remaining::Only(left) => left.iter().copied().map(bytes).sum(),
        }
    }

    /// The remaining friends after the first `max`.
    pub(super) fn after(&self, max: usize) -> Vec<u32> {
        match &self.remaining {
            Remaining::All => self.indexes().skip(max).collect(),
            Remaining::Only(left) => left.get(max..).unwrap_or_default().to_vec(),
        }
    }

    /// Removes the friends with these ascending indexes, all of which remain.
    pub(super) fn remove(&mut self, removed: &[u32]) {
        if removed.is_empty() {
            return;
        }
        let mut removed = removed.iter().copied().peekable();
        let mut stays = |index: u32| removed.next_if_eq(&index).is_none();
        match &mut self.remaining {
            Remaining::Only(left) => left.retain(|&index| stays(index)),
            Remaining::All => {
                let mut left = Vec::with_capacity(self.ids.len());
                left.extend(self.indexes().filter(|&index| stays(index)));
                self.remaining = Remaining::Only(left);
            }
        }
    }

    /// Takes the remaining friends, and resets to all friends of the request.
    pub(super) fn take_remaining(&mut self) -> Remaining {
        std::mem::replace(&mut self.remaining, Remaining::All)
    }

    fn indexes(&self) -> impl Iterator<Item = u32> + use<'r, S> {
        (0u32..).zip(self.ids).map(|(index, _)| index)
    }
}
