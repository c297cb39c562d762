//! A map that forgets who was quiet for longest when it is full.

use std::collections::HashMap;

/// What a value takes of the room.
pub(crate) trait Weight {
    /// In bytes, approximately; the same until the value is changed.
    fn weight(&self) -> usize;
}

/// A map from owners to values with a limited weight.
///
/// It has two generations: what is used moves to the young one, and when that has half of the room, the old one is forgotten and the
/// young one becomes old. So whoever was used since then is kept, at no cost for an order.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    young: HashMap<Box<str>, V>,
    old: HashMap<Box<str>, V>,
    /// Of the young ones.
    weight: usize,
    room: usize,
    /// How many were forgotten that [`put`](Self::put) found to be of use.
    forgotten: u64,
}

/// The weight of an owner beside the value: the key, its allocation, and its place in the map.
const OWNER_BYTES: usize = 96;

impl<V: Weight> Recent<V> {
    /// An empty map of at most `room` bytes.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            weight: 0,
            room,
            forgotten: 0,
        }
    }

    /// Takes the value of an owner out.
    pub(crate) fn take(&mut self, owner: &str) -> Option<V> {
        if let Some(value) = self.young.remove(owner) {
            self.weight = self.weight.saturating_sub(weight(owner, &value));
            return Some(value);
        }
        self.old.remove(owner)
    }

    /// Puts the value of an owner, who has none, in. `is_of_use` says which of the values count if there is no more room.
    pub(crate) fn put(&mut self, owner: &str, value: V, is_of_use: impl Fn(&V) -> bool) {
        let weight = weight(owner, &value);
        if self.weight + weight > self.room / 2 {
            let left = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            let left = left.values().filter(|value| is_of_use(value)).count();
            self.forgotten += left as u64;
            self.weight = 0;
        }
        self.weight += weight;
        self.young.insert(owner.into(), value);
    }

    /// The number of owners.
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// How many owners of use were forgotten.
    pub(crate) const fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

fn weight<V: Weight>(owner: &str, value: &V) -> usize {
    OWNER_BYTES + owner.len() + value.weight()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weight for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    #[test]
    fn who_is_used_is_kept_and_who_is_quiet_is_forgotten() {
        let mut recent = Recent::new(100 * 1000);
        recent.put("busy", 900, |_| true);
        for quiet in 0..1000 {
            recent.put(&format!("quiet{quiet}"), 900, |_| true);
            let busy = recent.take("busy").unwrap();
            recent.put("busy", busy, |_| true);
        }
        assert!(recent.len() <= 100, "{}", recent.len());
        assert_eq!(recent.forgotten() + recent.len() as u64, 1001);
        assert_eq!(recent.take("quiet0"), None);
        assert_eq!(recent.take("quiet999"), Some(900));
    }

    #[test]
    fn what_is_of_no_use_is_not_counted_as_forgotten() {
        let mut recent = Recent::new(1000);
        for owner in 0..100 {
            recent.put(&owner.to_string(), 300, |_| false);
        }
        assert_eq!(recent.forgotten(), 0);
        assert!(recent.len() <= 2);
    }
}
