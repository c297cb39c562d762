//! A few hundred entries of a list with little overhead: one string with all IDs and texts, and a hash table with 14 bytes per entry.

use hashbrown::{HashTable, hash_table::Entry as Place};

use super::super::IdHasher;

/// Set in a slot's length if the ID was removed. IDs have at most 256 bytes.
const REMOVED: u16 = 1 << 15;

/// The entry of an ID in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'l> {
    /// Who added or removed the ID; empty if unknown.
    pub by: &'l str,
    /// Why; empty if unknown.
    pub reason: &'l str,
    /// When the entry expires, in Unix seconds; `None` if never.
    pub until: Option<u32>,
    /// Whether the ID was removed. Such an entry is kept as long as the bucket keeps it.
    pub removed: bool,
}

impl Entry<'_> {
    /// Whether the entry is active at `now`, in Unix seconds: neither removed nor expired.
    #[inline]
    pub fn counts(&self, now: u64) -> bool {
        !self.removed && self.until.is_none_or(|until| u64::from(until) > now)
    }
}

/// An entry in the hash table, packed to 14 bytes: a table of 250 entries has 512 slots of 14 bytes and a control byte each, 7.7 KB, for
/// which the allocator takes 8 KB. With 16 bytes, it would be 8.7 KB, for which the allocator takes 10 KB. With a million entries, that is
/// 69 bytes per entry instead of 80.
#[derive(Clone, Copy)]
#[repr(Rust, packed(2))]
struct Slot {
    /// The offset of the ID in the text.
    start: u32,
    /// Zero if the entry never expires: none expires in 1970.
    until: u32,
    len: u16,
    /// The indexes of the author and the reason in [`Leaf::texts`].
    by: u16,
    reason: u16,
}

#[derive(Clone, Default)]
pub(super) struct Leaf {
    text: String,
    /// The offset and length in the text of each distinct author and reason. The first is empty.
    texts: Vec<(u32, u16)>,
    slots: HashTable<Slot>,
    /// The number of changes since the leaf was packed. Changes leave unused IDs and texts behind.
    changes: usize,
}

impl Leaf {
    pub(super) fn get(&self, id: &str, hash: u64) -> Option<Entry<'_>> {
        let slot = self.slots.find(hash, |slot| self.id(slot) == id)?;
        Some(self.entry(slot))
    }

    /// Inserts or replaces an entry. Returns `None` if the ID had none, otherwise whether its previous entry was not marked as removed.
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

    /// Deletes an entry. Returns `None` if the ID had none, otherwise whether that entry was not marked as removed.
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

    /// The heap memory that the leaf uses in addition to its IDs and texts, in bytes.
    #[cfg(test)]
    pub(super) fn overhead(&self) -> usize {
        let ids: usize = self.slots.iter().map(|slot| self.id(slot).len()).sum();
        let texts: usize = self.texts.iter().map(|&(_, len)| usize::from(len)).sum();
        self.text.capacity() - ids - texts
            + self.texts.capacity() * size_of::<(u32, u16)>()
            + self.slots.allocation_size()
    }

    /// Shrinks the capacity to fit.
    pub(super) fn shrink(&mut self) {
        let Self {
            text, texts, slots, ..
        } = self;
        text.shrink_to_fit();
        texts.shrink_to_fit();
        slots.shrink_to_fit(|slot| hash_of(text, slot));
    }

    /// Copies what is still in use once there were more changes than entries, so that the amortised cost of a change is constant.
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

    /// Returns the index of a text, storing the text if it is new. An empty text has index 0.
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
        // A leaf never has 65,536 texts: there are thousands of leaves. If it did, the entry would lose the text but still count.
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

/// Returns a part of `text`. Every stored offset and length is valid for its text, so the fallback is unreachable.
fn part(text: &str, start: u32, len: u16) -> &str {
    let start = start as usize;
    text.get(start..start + usize::from(len))
        .unwrap_or_default()
}

fn hash_of(text: &str, slot: &Slot) -> u64 {
    IdHasher::get().hash(of(text, slot)).get()
}

/// Converts an offset in a leaf's text, which is far smaller than 4 GiB: IDs and texts have at most 256 bytes each.
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
