//! The friends of a request, and which of them are left.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::lists::{IdHash, IdHasher};

use super::cost::PREPARE;
use super::meter::Meter;

/// Friends are named by their indexes into the request, of which a message cannot hold 2³².
pub(super) struct Friends<'r, S> {
    ids: &'r [S],
    hashes: Vec<IdHash>,
    left: Left,
}

pub(super) enum Left {
    All,
    These(Vec<u32>),
}

/// Who was taken out of a request before any rule.
pub(super) struct Unusable {
    pub(super) owners: Vec<u32>,
    pub(super) repeated: Vec<u32>,
}

impl<'r, S: AsRef<str>> Friends<'r, S> {
    /// Takes a request's friends without the owner and without repetitions. Fails where the meter stops it.
    pub(super) fn new<E>(
        owner: &str,
        ids: &'r [S],
        hasher: IdHasher,
        meter: &mut Meter<'_, E>,
    ) -> Result<(Self, Unusable), E> {
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
                Entry::Vacant(place) => {
                    place.insert(index);
                }
            }
        }
        let mut friends = Self {
            ids,
            hashes,
            left: Left::All,
        };
        friends.remove(&owners);
        friends.remove(&repeated);
        Ok((friends, Unusable { owners, repeated }))
    }

    pub(super) fn id(&self, index: u32) -> &'r str {
        self.ids[index as usize].as_ref()
    }

    pub(super) fn hash(&self, index: u32) -> IdHash {
        self.hashes[index as usize]
    }

    /// How many are left.
    pub(super) fn count(&self) -> usize {
        match &self.left {
            Left::All => self.ids.len(),
            Left::These(left) => left.len(),
        }
    }

    /// Those who are left and for whom `matches` is true, up to its first error. Allocates only if there are any.
    pub(super) fn select<E>(
        &self,
        mut matches: impl FnMut(u32) -> Result<bool, E>,
    ) -> Result<Vec<u32>, E> {
        let mut selected = Vec::new();
        let mut look_at = |index| {
            if matches(index)? {
                selected.push(index);
            }
            Ok(())
        };
        match &self.left {
            Left::All => self.indexes().try_for_each(&mut look_at)?,
            Left::These(left) => left.iter().copied().try_for_each(&mut look_at)?,
        }
        Ok(selected)
    }

    /// How many bytes the ids of those who are left have together.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |index| self.id(index).len() as u64;
        match &self.left {
            Left::All => self.indexes().map(bytes).sum(),
            Left::These(left) => left.iter().copied().map(bytes).sum(),
        }
    }

    /// Those who are left after the first `max`.
    pub(super) fn after(&self, max: usize) -> Vec<u32> {
        match &self.left {
            Left::All => self.indexes().skip(max).collect(),
            Left::These(left) => left.get(max..).unwrap_or_default().to_vec(),
        }
    }

    /// Removes the friends with these ascending indexes, each of whom is left.
    pub(super) fn remove(&mut self, removed: &[u32]) {
        if removed.is_empty() {
            return;
        }
        let mut removed = removed.iter().copied().peekable();
        let mut stays = |index: u32| removed.next_if_eq(&index).is_none();
        match &mut self.left {
            Left::These(left) => left.retain(|&index| stays(index)),
            Left::All => {
                let mut left = Vec::with_capacity(self.ids.len());
                left.extend(self.indexes().filter(|&index| stays(index)));
                self.left = Left::These(left);
            }
        }
    }

    /// Who is left. From then on everybody is left again whom the request holds.
    pub(super) fn take_left(&mut self) -> Left {
        std::mem::replace(&mut self.left, Left::All)
    }

    fn indexes(&self) -> impl Iterator<Item = u32> + use<'r, S> {
        (0u32..).zip(self.ids).map(|(index, _)| index)
    }
}
