//! A few hundred entries of a list, with little overhead: one string with all IDs and texts, and a hash table of 14 bytes each.

use hashbrown::{HashTable, hash_table::Entry as Place};

use super::super::IdHasher;

/// Set in a slot's length if the ID was removed. IDs have at most 256 bytes.
const REMOVED: u16 = 1 << 15;

/// What a list says of an ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'l> {
    /// Who added it; empty if it is not said.
    pub by: &'l str,
    /// Why; empty if it is not said.
    pub reason: &'l str,
    /// From when on it no longer counts, in Unix seconds.
    pub until: Option<u32>,
    /// Whether the ID was removed. It is kept as long as the bucket keeps it.
    pub removed: bool,
}

impl Entry<'_> {
    /// Whether it counts at `now`, in Unix seconds.
    #[inline]
    pub fn counts(&self, now: u64) -> bool {
        !self.removed && self.until.is_none_or(|until| u64::from(until) > now)
    }
}

/// Packed to 14 bytes: a table of 250 has 512 places of that and a byte each, 7.7 KB, for which the allocator takes 8 KB; at 16 bytes
/// they are 8.7 KB, for which it takes 10. In a million entries, 69 bytes each instead of 80.
#[derive(Clone, Copy)]
#[repr(Rust, packed(2))]
struct Slot {
    /// The ID in the text.
    start: u32,
    /// Zero for never: nothing expires in 1970.
    until: u32,
    len: u16,
    /// Indexes of the texts.
    by: u16,
    reason: u16,
}

#[derive(Clone, Default)]
pub(super) struct Leaf {
    text: String,
    /// Authors and reasons, each once: where they are in the text. The first is empty.
    texts: Vec<(u32, u16)>,
    slots: HashTable<Slot>,
    /// Changes since it was packed; they leave IDs and texts behind that nobody needs.
    changes: usize,
}

impl Leaf {
    pub(super) fn get(&self, id: &str, hash: u64) -> Option<Entry<'_>> {
        let slot = self.slots.find(hash, |slot| self.id(slot) == id)?;
        Some(self.entry(slot))
    }

    /// Inserts or replaces an entry, and returns whether there was one that had not been removed, or one at all.
    pub(super) fn insert(&mut self, id: &str, hash: u64, entry: Entry<'_>) -> Option<bool> {
        let (by, reason) = (self.intern(entry.by), self.intern(entry.reason));
        let flag = if entry.removed { REMOVED } else { 0 };
        let Self { text, slots, .. } = self;
        let find = |slot: &Slot| of(text, slot) == id;
        let hash_of = |slot: &Slot| hash_of(text, slot);
        let until = entry.until.unwrap_or_default();
        let before = match slots.entry(hash, find, hash_of) {
            Place::Occupied(mut place) => {
                let slot = place.get_mut();
                let existed = slot.len & REMOVED == 0;
                slot.len = slot.len & !REMOVED | flag;
                (slot.until, slot.by, slot.reason) = (until, by, reason);
                Some(existed)
            }
            Place::Vacant(place) => {
                place.insert(Slot {
                    start: offset(text.len()),
                    until,
                    len: length(id) | flag,
                    by,
                    reason,
                });
                text.push_str(id);
                None
            }
        };
        self.changes += usize::from(before.is_some());
        self.pack_if_worn();
        before
    }

    /// Removes an entry, and returns whether there was one that had not been removed, or one at all.
    pub(super) fn remove(&mut self, id: &str, hash: u64) -> Option<bool> {
        let text = &self.text;
        let place = self
            .slots
            .find_entry(hash, |slot| of(text, slot) == id)
            .ok()?;
        let (slot, _) = place.remove();
        self.changes += 1;
        self.pack_if_worn();
        Some(slot.len & REMOVED == 0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Entry<'_>)> {
        self.slots
            .iter()
            .map(|slot| (self.id(slot), self.entry(slot)))
    }

    /// The heap memory that it uses beside its IDs and texts, in bytes.
    #[cfg(test)]
    pub(super) fn overhead(&self) -> usize {
        let ids: usize = self.slots.iter().map(|slot| self.id(slot).len()).sum();
        let texts: usize = self.texts.iter().map(|&(_, len)| usize::from(len)).sum();
        self.text.capacity() - ids - texts
            + self.texts.capacity() * size_of::<(u32, u16)>()
            + self.slots.allocation_size()
    }

    /// Returns memory that was reserved for more.
    pub(super) fn shrink(&mut self) {
        let Self {
            text, texts, slots, ..
        } = self;
        text.shrink_to_fit();
        texts.shrink_to_fit();
        slots.shrink_to_fit(|slot| hash_of(text, slot));
    }

    /// Copies what is needed once as much has changed as there is, so that each change costs the same on average.
    fn pack_if_worn(&mut self) {
        if self.changes <= self.slots.len().max(64) {
            return;
        }
        let mut packed = Self::default();
        packed
            .slots
            .reserve(self.slots.len(), |slot| hash_of(&self.text, slot));
        for (id, entry) in self.iter() {
            packed.insert(id, IdHasher::get().hash(id).get(), entry);
        }
        *self = packed;
    }

    /// The index of a text, which is stored if it is new. An empty text has the index zero.
    fn intern(&mut self, text: &str) -> u16 {
        if self.texts.is_empty() {
            self.texts.push((0, 0));
        }
        let found = (0..)
            .zip(&self.texts)
            .find(|(_, place)| self.part(**place) == text);
        if let Some((index, _)) = found {
            return index;
        }
        // A leaf never has as many: there are thousands of leaves. If it had, the text would be missing, but not the entry.
        let Ok(index) = u16::try_from(self.texts.len()) else {
            return 0;
        };
        self.texts.push((offset(self.text.len()), length(text)));
        self.text.push_str(text);
        index
    }

    fn entry(&self, slot: &Slot) -> Entry<'_> {
        let text = |index: u16| {
            self.texts
                .get(usize::from(index))
                .map_or("", |place| self.part(*place))
        };
        Entry {
            by: text(slot.by),
            reason: text(slot.reason),
            until: (slot.until > 0).then_some(slot.until),
            removed: slot.len & REMOVED != 0,
        }
    }

    fn part(&self, (start, len): (u32, u16)) -> &str {
        part(&self.text, start, len)
    }

    fn id(&self, slot: &Slot) -> &str {
        of(&self.text, slot)
    }
}

fn of<'t>(text: &'t str, slot: &Slot) -> &'t str {
    part(text, slot.start, slot.len & !REMOVED)
}

/// Every place is valid for its text; the fallback is unreachable.
fn part(text: &str, start: u32, len: u16) -> &str {
    let start = start as usize;
    text.get(start..start + usize::from(len))
        .unwrap_or_default()
}

fn hash_of(text: &str, slot: &Slot) -> u64 {
    IdHasher::get().hash(of(text, slot)).get()
}

/// An offset in a leaf, which has far less than 4 GiB: IDs and texts have at most 256 bytes each.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn length(text: &str) -> u16 {
    u16::try_from(text.len()).unwrap_or(REMOVED - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'l>(reason: &'l str) -> Entry<'l> {
        Entry {
            by: "alice",
            reason,
            until: None,
            removed: false,
        }
    }

    fn hash(id: &str) -> u64 {
        IdHasher::get().hash(id).get()
    }

    #[test]
    fn an_entry_can_be_replaced_removed_and_added_again_for_ever() {
        let mut leaf = Leaf::default();
        for round in 0..1000 {
            for id in ["a", "b", "c"] {
                let reason = format!("{id} {round}");
                leaf.insert(id, hash(id), entry(&reason));
                assert_eq!(leaf.get(id, hash(id)).unwrap().reason, reason);
            }
            assert_eq!(leaf.remove("b", hash("b")), Some(true));
            assert_eq!(leaf.get("b", hash("b")), None);
        }
        assert_eq!(leaf.iter().count(), 2);
        assert!(leaf.text.len() < 4096, "{}", leaf.text.len());
    }

    #[test]
    fn a_removed_id_is_kept_and_does_not_count() {
        let mut leaf = Leaf::default();
        assert_eq!(leaf.insert("a", hash("a"), entry("x")), None);
        let removed = Entry {
            removed: true,
            ..entry("y")
        };
        assert_eq!(leaf.insert("a", hash("a"), removed), Some(true));
        let found = leaf.get("a", hash("a")).unwrap();
        assert!(!found.counts(0) && found.reason == "y");
        assert_eq!(leaf.insert("a", hash("a"), entry("")), Some(false));
    }

    #[test]
    fn it_counts_until_its_last_second_is_over() {
        let ends = Entry {
            until: Some(100),
            ..entry("")
        };
        assert!(ends.counts(99));
        assert!(!ends.counts(100));
        assert!(entry("").counts(u64::MAX));
    }
}
