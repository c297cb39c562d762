//! A map of limited size that forgets the least recently used owners.

use std::collections::HashMap;

use importguard_core::UserId;

/// The memory that a value takes.
pub(crate) trait Weight {
    /// Returns the approximate size in bytes. It must not change unless the value does.
    fn weight(&self) -> usize;
}

/// A map from owners to values with a limited weight.
///
/// It has two generations. An owner who is used moves to the young generation. When that would exceed half of the room, the old generation
/// is forgotten, and the young one becomes old. So recently used owners are kept without the cost of maintaining an order.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    young: HashMap<Box<str>, V>,
    old: HashMap<Box<str>, V>,
    /// The weight of the young generation, in bytes.
    weight: usize,
    room: usize,
    /// How many owners were forgotten although their value was still of use, according to [`put`](Self::put).
    forgotten: u64,
}

/// The weight of an owner in addition to the ID and the value: the allocation of the key, and its slot in the map.
const OWNER_BYTES: usize = 96;

/// How many values of the maximum weight must fit. An owner with such a value, who is used again and again, leaves others half of the young
/// generation.
const LEAST_OWNERS: usize = 4;

/// Returns the least room for values of up to this weight.
pub(crate) const fn least_room(heaviest: usize) -> usize {
    LEAST_OWNERS * (OWNER_BYTES + UserId::MAX_BYTES + heaviest)
}

impl<V: Weight> Recent<V> {
    /// Creates an empty map of at most about `room` bytes.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            weight: 0,
            room,
            forgotten: 0,
        }
    }

    /// Removes and returns the value of an owner.
    pub(crate) fn take(&mut self, owner: &str) -> Option<V> {
        if let Some(value) = self.young.remove(owner) {
            self.weight = self.weight.saturating_sub(weight(owner, &value));
            return Some(value);
        }
        self.old.remove(owner)
    }

    /// Inserts the value of an owner who has none. If the map is full, `is_of_use` tells which of the dropped values count as forgotten.
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

    /// How many owners were forgotten although their value was still of use.
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
    fn one_heavy_owner_does_not_make_others_forgotten() {
        let mut recent = Recent::new(least_room(10_000));
        for owner in 0..50 {
            recent.put(&format!("light{owner}"), 100, |_| true);
            for _ in 0..3 {
                let _ = recent.take("heavy");
                recent.put("heavy", 10_000, |_| true);
            }
        }
        assert_eq!(recent.forgotten(), 0);
        assert_eq!(recent.len(), 51);
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
