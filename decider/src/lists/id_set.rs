use std::{fmt, hash::BuildHasher, sync::LazyLock};

use hashbrown::HashTable;

/// The hash of an ID. It is valid for every [`IdSet`] of the process, so an ID is hashed only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdHash(u64);

impl IdHash {
    /// The hash as a number.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Computes [`IdHash`]es. Its seed is random per process, so that an attacker cannot choose IDs that collide.
#[derive(Clone, Copy, Debug)]
pub struct IdHasher(&'static foldhash::fast::RandomState);

impl IdHasher {
    /// The process's hasher.
    pub fn get() -> Self {
        static STATE: LazyLock<foldhash::fast::RandomState> = LazyLock::new(Default::default);
        Self(&STATE)
    }

    /// Hashes `id`.
    pub fn hash(self, id: &str) -> IdHash {
        // As bytes: hashing a str adds a terminator, which a single ID does not need.
        use std::hash::Hasher;
        let mut hasher = self.0.build_hasher();
        hasher.write(id.as_bytes());
        IdHash(hasher.finish())
    }
}

/// A set of IDs with little overhead: one string with all of them, and a hash table of their offsets.
#[derive(Default)]
pub struct IdSet {
    text: String,
    ranges: HashTable<Range>,
}

/// The range of an ID in the string. 32 bits are enough: [`IdSet::from_ids`] stops there.
#[derive(Clone, Copy)]
struct Range {
    start: u32,
    len: u32,
}

impl IdSet {
    /// Builds a set from `ids`. IDs beyond 4 GiB in total are dropped; [`super::MAX_LIST_BYTES`] keeps every list far below that.
    pub fn from_ids(ids: impl Iterator<Item: AsRef<str>> + Clone) -> Self {
        let (count, bytes) = ids.clone().fold((0, 0), |(count, bytes), id| {
            (count + 1, bytes + id.as_ref().len())
        });
        let hasher = IdHasher::get();
        let mut set = Self {
            text: String::with_capacity(bytes),
            ranges: HashTable::with_capacity(count),
        };
        for id in ids {
            let id = id.as_ref();
            let hash = hasher.hash(id);
            let (Ok(start), Ok(len)) = (u32::try_from(set.text.len()), u32::try_from(id.len()))
            else {
                break;
            };
            if !set.contains_hashed(id, hash) {
                set.text.push_str(id);
                let text = &set.text;
                set.ranges
                    .insert_unique(hash.get(), Range { start, len }, |range| {
                        hasher.hash(range.of(text)).get()
                    });
            }
        }
        // The capacity of both assumed a list without duplicates.
        let Self { text, ranges } = &mut set;
        text.shrink_to_fit();
        ranges.shrink_to_fit(|range| hasher.hash(range.of(text)).get());
        set
    }

    /// Whether `id` is in the set.
    pub fn contains(&self, id: &str) -> bool {
        self.contains_hashed(id, IdHasher::get().hash(id))
    }

    /// Whether `id`, whose hash is `hash`, is in the set.
    pub fn contains_hashed(&self, id: &str, hash: IdHash) -> bool {
        self.ranges
            .find(hash.get(), |range| range.of(&self.text) == id)
            .is_some()
    }

    /// The IDs, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.ranges.iter().map(|range| range.of(&self.text))
    }

    /// The number of IDs.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The heap memory that the set uses, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.text.capacity() + self.ranges.allocation_size()
    }
}

impl fmt::Debug for IdSet {
    /// Formats only the size: a set may have millions of IDs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdSet({} ids)", self.len())
    }
}

impl Range {
    fn of(self, text: &str) -> &str {
        let start = self.start as usize;
        // Every range is valid for this string; the fallback is unreachable.
        text.get(start..start + self.len as usize)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_it_was_given_and_nothing_else() {
        let ids: Vec<String> = (0..10_000).map(|n| format!("user{n}")).collect();
        let set = IdSet::from_ids(ids.iter().map(String::as_str));
        assert_eq!(set.len(), 10_000);
        assert!(ids.iter().all(|id| set.contains(id)));
        for absent in ["", "user", "user10000", "user1user2", "ser1", "üser1"] {
            assert!(!set.contains(absent), "{absent}");
        }
    }

    #[test]
    fn holds_a_repeated_id_once() {
        let set = IdSet::from_ids(["a", "b", "a", "a"].into_iter());
        assert_eq!(set.len(), 2);
        assert_eq!(set.text, "ab");
    }

    #[test]
    fn an_empty_set_holds_nothing_and_takes_nothing() {
        let set = IdSet::from_ids(std::iter::empty::<&str>());
        assert!(set.is_empty());
        assert!(!set.contains(""));
        assert_eq!(set.heap_bytes(), 0);
    }

    /// A hash table doubles, so the memory per ID depends on the count: the counts straddle a doubling.
    #[test]
    fn an_id_of_16_bytes_takes_at_most_64_bytes() {
        for count in [100_000, 114_688, 114_689, 131_072, 200_000] {
            let ids: Vec<String> = (0..count).map(|n| format!("{n:016}")).collect();
            let set = IdSet::from_ids(ids.iter().map(String::as_str));
            let each = set.heap_bytes() as f64 / count as f64;
            assert!(each <= 64.0, "{each:.1} bytes an id with {count} ids");
        }
    }

    #[test]
    fn shrinks_after_duplicates() {
        let ids = vec!["0123456789abcdef"; 100_000];
        let set = IdSet::from_ids(ids.into_iter());
        assert!(set.heap_bytes() < 1024, "{}", set.heap_bytes());
    }
}
