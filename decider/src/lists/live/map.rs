//! The entries of a live list: a persistent map that is cheap to clone.
//!
//! Its leaves hold a few hundred entries each. If an earlier clone of the map still exists, a change copies its leaf and the two levels
//! above it. So an evaluation sees one state of a list, whatever changes meanwhile, and a change to a list of a million entries copies
//! some 15 KB.

use std::sync::Arc;

use super::{
    super::{IdHash, IdHasher},
    leaf::{Entry, Leaf},
};

/// The number of children of a node: two levels make 4,096 leaves, with some 250 entries each in a list of a million.
const FANOUT: usize = 64;

/// The position of the hash bits that select a child of the root. A leaf's table uses the lowest and the highest bits.
const ROOT_SHIFT: u32 = 32;

/// The position of the hash bits that select a leaf.
const NODE_SHIFT: u32 = ROOT_SHIFT + FANOUT.trailing_zeros();

type Node = Vec<Arc<Leaf>>;

/// The entries of a live list. Clones share the parts that neither changes.
#[derive(Clone, Default)]
pub struct LiveMap {
    /// Empty, or [`FANOUT`] nodes with [`FANOUT`] leaves each.
    root: Arc<Vec<Arc<Node>>>,
    /// The number of entries, including removed ones.
    keys: usize,
    /// The number of entries, excluding removed ones.
    entries: usize,
}

impl LiveMap {
    /// The entry of `id`, whose hash is `hash`.
    #[inline]
    pub fn get(&self, id: &str, hash: IdHash) -> Option<Entry<'_>> {
        let hash = hash.get();
        let node = self.root.get(child(hash, ROOT_SHIFT))?;
        node.get(child(hash, NODE_SHIFT))?.get(id, hash)
    }

    /// Inserts or replaces an entry.
    pub fn insert(&mut self, id: &str, entry: Entry<'_>) {
        let hash = IdHasher::get().hash(id).get();
        let before = self.leaf(hash).insert(id, hash, entry);
        self.keys += usize::from(before.is_none());
        self.entries -= usize::from(before == Some(true));
        self.entries += usize::from(!entry.removed);
    }

    /// Deletes an entry without keeping a record of its removal.
    pub fn remove(&mut self, id: &str) {
        let hash = IdHasher::get().hash(id).get();
        if !self.root.is_empty()
            && let Some(existed) = self.leaf(hash).remove(id, hash)
        {
            self.keys -= 1;
            self.entries -= usize::from(existed);
        }
    }

    /// The number of entries, including removed ones.
    pub const fn keys(&self) -> usize {
        self.keys
    }

    /// The number of entries, excluding removed ones. Expired entries are included until they are cleared.
    pub const fn entries(&self) -> usize {
        self.entries
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Entry<'_>)> {
        let leaves = self.root.iter().flat_map(|node| node.iter());
        leaves.flat_map(|leaf| leaf.iter())
    }

    /// Shrinks the capacity to fit. Call it only on a map that is not shared, because it copies shared parts.
    pub fn shrink(&mut self) {
        for node in Arc::make_mut(&mut self.root) {
            for leaf in Arc::make_mut(node) {
                Arc::make_mut(leaf).shrink();
            }
        }
    }

    fn leaf(&mut self, hash: u64) -> &mut Leaf {
        let root = Arc::make_mut(&mut self.root);
        if root.is_empty() {
            // All children share one leaf until they are written to.
            let leaf = Arc::<Leaf>::default();
            let node = Arc::new(vec![leaf; FANOUT]);
            *root = vec![node; FANOUT];
        }
        let node = Arc::make_mut(&mut root[child(hash, ROOT_SHIFT)]);
        Arc::make_mut(&mut node[child(hash, NODE_SHIFT)])
    }
}

impl std::fmt::Debug for LiveMap {
    /// Formats only the size: a map may have millions of entries.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LiveMap({} entries)", self.entries)
    }
}

fn child(hash: u64, shift: u32) -> usize {
    // Always less than FANOUT, so a valid index.
    (hash >> shift) as usize % FANOUT
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn entry(reason: &str) -> Entry<'_> {
        Entry {
            by: "detector",
            reason,
            until: None,
            removed: false,
        }
    }

    fn get<'m>(map: &'m LiveMap, id: &str) -> Option<Entry<'m>> {
        map.get(id, IdHasher::get().hash(id))
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut map = LiveMap::default();
        for number in 0..10_000 {
            map.insert(&format!("user{number}"), entry("first"));
        }
        let before = map.clone();
        map.insert("user1", entry("second"));
        map.remove("user2");
        map.insert("new", entry("new"));
        assert_eq!(get(&before, "user1").unwrap().reason, "first");
        assert!(get(&before, "user2").is_some() && get(&before, "new").is_none());
        assert_eq!((before.keys(), map.keys()), (10_000, 10_000));
        assert_eq!(get(&map, "user1").unwrap().reason, "second");
        assert!(get(&map, "user2").is_none());
        // Three changes copy at most three nodes; the others are shared.
        let nodes = before.root.iter().zip(map.root.iter());
        let shared = nodes.filter(|(one, other)| Arc::ptr_eq(one, other)).count();
        assert!(shared >= FANOUT - 3, "{shared}");
    }

    #[test]
    fn an_entry_takes_at_most_80_bytes_beside_its_id_and_texts() {
        for count in [100_000, 150_000, 230_000, 300_000] {
            let mut map = LiveMap::default();
            for number in 0..count {
                map.insert(
                    &format!("{number:016}"),
                    entry(&format!("case {}", number % 100)),
                );
            }
            let each = |map: &LiveMap| {
                let leaves = map.root.iter().flat_map(|node| node.iter());
                let overhead: usize = leaves
                    .map(|leaf| leaf.overhead() + size_of::<Leaf>() + 16)
                    .sum();
                overhead / count
            };
            // Each leaf stores a text once, so a text that many leaves have is counted once per leaf.
            let grown = each(&map);
            assert!(grown <= 80, "{grown} bytes with {count} entries");
            map.shrink();
            let shrunk = each(&map);
            assert!(shrunk <= grown, "{shrunk} bytes, {grown} before");
            assert_eq!(map.iter().count(), count);
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u8..40, 0u8..3, "[a-c]{0,2}"), 0..400)) {
            let mut map = LiveMap::default();
            let mut model: HashMap<String, (String, bool)> = HashMap::new();
            for (id, what, reason) in steps {
                let id = format!("user{id}");
                if what == 0 {
                    map.remove(&id);
                    model.remove(&id);
                } else {
                    let removed = what == 2;
                    map.insert(&id, Entry { removed, ..entry(&reason) });
                    model.insert(id, (reason, removed));
                }
            }
            prop_assert_eq!(map.keys(), model.len());
            prop_assert_eq!(map.entries(), model.values().filter(|(_, removed)| !removed).count());
            prop_assert_eq!(map.iter().count(), model.len());
            for (id, (reason, removed)) in &model {
                let found = get(&map, id).unwrap();
                prop_assert_eq!((found.reason, found.removed), (reason.as_str(), *removed));
            }
        }
    }
}
