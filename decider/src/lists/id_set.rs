use std::fmt;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use hashbrown::HashTable;

/// The hash of one id. Every [`IdSet`] of the process takes it, so an id is hashed once and looked up anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdHash(u64);

impl IdHash {
    /// The hash as a hash table wants it.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Makes [`IdHash`]es. Its seed is random and the same throughout the process: whoever chooses ids cannot choose
/// ones that collide.
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
        // As bytes: a str's hash writes a terminator, which a lone id does not need.
        use std::hash::Hasher;
        let mut hasher = self.0.build_hasher();
        hasher.write(id.as_bytes());
        IdHash(hasher.finish())
    }
}

/// A set of ids that costs few bytes over the ids themselves: one text with all of them, and a hash table of where
/// in it each one stands.
#[derive(Default)]
pub struct IdSet {
    text: String,
    places: HashTable<Place>,
}

/// Where in the text an id stands. 32 bits each are enough: [`IdSet::from_ids`] takes no more text than that.
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    len: u32,
}

impl IdSet {
    /// The set of these ids. Those whose text would go past 4 GiB are left out; [`super::MAX_LIST_BYTES`] keeps
    /// every list far below.
    pub fn from_ids<'a>(ids: impl Iterator<Item = &'a str> + Clone) -> Self {
        let (count, bytes) = ids
            .clone()
            .fold((0, 0), |(count, bytes), id| (count + 1, bytes + id.len()));
        let hasher = IdHasher::get();
        let mut set = Self {
            text: String::with_capacity(bytes),
            places: HashTable::with_capacity(count),
        };
        for id in ids {
            let hash = hasher.hash(id);
            let (Ok(start), Ok(len)) = (u32::try_from(set.text.len()), u32::try_from(id.len()))
            else {
                break;
            };
            if !set.contains_hashed(id, hash) {
                set.text.push_str(id);
                let text = &set.text;
                set.places
                    .insert_unique(hash.get(), Place { start, len }, |place| {
                        hasher.hash(place.of(text)).get()
                    });
            }
        }
        // Both were made for a list without repetitions; this gives back what repetitions would have taken.
        let Self { text, places } = &mut set;
        text.shrink_to_fit();
        places.shrink_to_fit(|place| hasher.hash(place.of(text)).get());
        set
    }

    /// Whether `id` is in the set.
    pub fn contains(&self, id: &str) -> bool {
        self.contains_hashed(id, IdHasher::get().hash(id))
    }

    /// Whether `id`, whose hash is `hash`, is in the set.
    pub fn contains_hashed(&self, id: &str, hash: IdHash) -> bool {
        self.places
            .find(hash.get(), |place| place.of(&self.text) == id)
            .is_some()
    }

    /// How many ids it holds.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many bytes of the heap it takes.
    pub fn heap_bytes(&self) -> usize {
        self.text.capacity() + self.places.allocation_size()
    }
}

impl fmt::Debug for IdSet {
    /// Its size only: it may hold millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdSet({} ids)", self.len())
    }
}

impl Place {
    fn of(self, text: &str) -> &str {
        let start = self.start as usize;
        // Every place was made from an id of this very text; the empty text stands for what cannot happen.
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
        let set = IdSet::from_ids(std::iter::empty());
        assert!(set.is_empty());
        assert!(!set.contains(""));
        assert_eq!(set.heap_bytes(), 0);
    }

    /// A hash table doubles, so the price of an id swings with the count: the counts straddle a doubling.
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
    fn gives_back_what_repetitions_would_have_taken() {
        let ids = vec!["0123456789abcdef"; 100_000];
        let set = IdSet::from_ids(ids.into_iter());
        assert!(set.heap_bytes() < 1024, "{}", set.heap_bytes());
    }
}
