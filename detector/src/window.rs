//! What one owner did within the window of a rule.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use importguard_core::EventId;

use crate::recent::Weight;

/// A time, in microseconds since 1970.
pub(crate) type Micros = i64;

/// The length of a window and the threshold of its rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    /// Events count together if they are less than this apart.
    pub(crate) within: Micros,
    /// The threshold; at least 1.
    pub(crate) least: usize,
}

/// What one owner did, as counted by one rule.
#[derive(Debug)]
pub(crate) struct Window<C> {
    counted: C,
    /// Events up to and including this time do not count.
    floor: Micros,
}

/// What is counted.
pub(crate) trait Counted: Default + Weight {
    /// What an event adds.
    type Item<'i>;

    /// Adds an event at `time`, unless it was already added. Returns whether it reaches the threshold.
    fn add(&mut self, time: Micros, item: Self::Item<'_>, measure: Measure) -> bool;

    /// Forgets everything up to and including `floor`.
    fn forget(&mut self, floor: Micros);

    /// Forgets things up to and including `horizon`, which no longer matter. An implementation may keep some of them.
    fn trim(&mut self, horizon: Micros);

    /// The time of the latest event; `None` if there is none.
    fn newest(&self) -> Option<Micros>;

    /// The maximum weight, with this threshold.
    fn heaviest(least: usize) -> usize;
}

/// Events, ordered by time.
#[derive(Debug, Default)]
pub(crate) struct Events(Vec<(Micros, EventId)>);

/// Different friends, as 64-bit hashes of their IDs, each with the time of the last import that requested it. In a window of 100,000
/// friends, the probability that two hashes collide is one in some billions.
#[derive(Debug, Default)]
pub(crate) struct Friends {
    last: HashMap<u64, Micros>,
    newest: Option<Micros>,
}

/// The weight of a friend: a slot of the map, and what the map needs besides.
const FRIEND_BYTES: usize = size_of::<(u64, Micros)>() + 2;

/// The friends that an event adds, and the hasher for their IDs.
pub(crate) struct Asked<'a> {
    pub(crate) friends: &'a [String],
    pub(crate) hasher: &'a RandomState,
}

impl<C: Counted> Window<C> {
    pub(crate) fn new() -> Self {
        Self {
            counted: C::default(),
            floor: Micros::MIN,
        }
    }

    /// The maximum weight of a window, with this threshold.
    pub(crate) fn heaviest(least: usize) -> usize {
        size_of::<Self>() + C::heaviest(least)
    }

    /// Whether the window can still affect what is counted after `horizon`.
    pub(crate) fn is_of_use(&self, horizon: Micros) -> bool {
        self.floor > horizon || self.counted.newest().is_some_and(|newest| newest > horizon)
    }

    /// Adds an event at `time`, and returns whether it reaches the threshold. Events up to and including `floor` do not count, and neither
    /// does this event if it is one of them. Events up to and including `horizon` no longer matter.
    pub(crate) fn add(
        &mut self,
        time: Micros,
        item: C::Item<'_>,
        floor: Micros,
        horizon: Micros,
        measure: Measure,
    ) -> bool {
        if floor > self.floor {
            self.raise(floor);
        }
        self.counted.trim(horizon);
        time > self.floor && self.counted.add(time, item, measure)
    }

    /// Restarts the window: nothing up to the latest event counts any longer.
    pub(crate) fn reset(&mut self) {
        self.floor = self.counted.newest().unwrap_or(self.floor).max(self.floor);
        self.counted = C::default();
    }

    /// Raises the floor: nothing up to and including `floor` counts any longer.
    pub(crate) fn raise(&mut self, floor: Micros) {
        self.floor = self.floor.max(floor);
        self.counted.forget(self.floor);
    }
}

impl<C: Weight> Weight for Window<C> {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.counted.weight()
    }
}

impl Counted for Events {
    type Item<'i> = EventId;

    fn add(&mut self, time: Micros, id: EventId, measure: Measure) -> bool {
        let Measure { within, least } = measure;
        let events = &mut self.0;
        if events.iter().any(|&(_, known)| known == id) {
            return false;
        }
        let place = events.partition_point(|&(before, _)| before <= time);
        events.insert(place, (time, id));
        // Only the new event can complete a window, so the first event of that window is at most `least - 1` places before it.
        let earliest = place.saturating_sub(least - 1);
        let reached = (earliest..=place).any(|first| {
            let last = events.get(first + least - 1);
            last.is_some_and(|last| last.0 - events[first].0 < within)
        });
        // A surplus consists of events that no rule acted on, because the rules were different then.
        let surplus = events.len().saturating_sub(2 * least);
        events.drain(..surplus);
        reached
    }

    fn forget(&mut self, floor: Micros) {
        let gone = self.0.partition_point(|&(time, _)| time <= floor);
        self.0.drain(..gone);
    }

    fn trim(&mut self, horizon: Micros) {
        self.forget(horizon);
    }

    fn newest(&self) -> Option<Micros> {
        self.0.last().map(|&(time, _)| time)
    }

    fn heaviest(least: usize) -> usize {
        // `add` removes a surplus only after it has inserted the event.
        (2 * least + 1).next_power_of_two().max(4) * size_of::<(Micros, EventId)>()
    }
}

impl Weight for Events {
    fn weight(&self) -> usize {
        self.0.capacity() * size_of::<(Micros, EventId)>()
    }
}

impl Counted for Friends {
    type Item<'i> = Asked<'i>;

    fn add(&mut self, time: Micros, asked: Asked<'_>, measure: Measure) -> bool {
        let newest = self.newest.map_or(time, |newest| newest.max(time));
        self.newest = Some(newest);
        for friend in asked.friends {
            let last = self
                .last
                .entry(asked.hasher.hash_one(friend))
                .or_insert(time);
            *last = time.max(*last);
        }
        if self.last.len() < measure.least {
            return false;
        }
        let begin = newest.saturating_sub(measure.within);
        self.last.retain(|_, last| *last > begin);
        let reached = self.last.len() >= measure.least;
        if self.last.len() > 2 * measure.least {
            self.keep_newest(2 * measure.least);
        }
        // A single import may have requested far more friends.
        self.last.shrink_to(2 * measure.least);
        reached
    }

    fn forget(&mut self, floor: Micros) {
        self.last.retain(|_, last| *last > floor);
        if self.last.is_empty() {
            self.newest = None;
        }
    }

    fn trim(&mut self, horizon: Micros) {
        // Single friends are kept until `add` may reach the threshold, because this is called for every event.
        if self.newest.is_some_and(|newest| newest <= horizon) {
            *self = Self::default();
        }
    }

    fn newest(&self) -> Option<Micros> {
        self.newest
    }

    fn heaviest(least: usize) -> usize {
        // At most seven eighths of a map's slots are used.
        (2 * least * 8 / 7 + 1).next_power_of_two() * FRIEND_BYTES
    }
}

impl Friends {
    /// Forgets all but the `most` most recently requested friends.
    fn keep_newest(&mut self, most: usize) {
        let mut times: Vec<_> = self.last.values().copied().collect();
        let cut = times.len().saturating_sub(most);
        let (_, &mut cut, _) = times.select_nth_unstable(cut);
        self.last.retain(|_, last| *last >= cut);
        let surplus = self.last.len().saturating_sub(most);
        let same = self.last.iter().filter(|(_, last)| **last == cut);
        let same: Vec<u64> = same.take(surplus).map(|(&friend, _)| friend).collect();
        for friend in same {
            self.last.remove(&friend);
        }
    }
}

impl Weight for Friends {
    fn weight(&self) -> usize {
        self.last.capacity() * FRIEND_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURE: Measure = Measure {
        within: 100,
        least: 3,
    };

    fn id(number: u64) -> EventId {
        EventId::parse(&format!("00000000-0000-7000-8000-{number:012x}")).unwrap()
    }

    fn events() -> impl FnMut(Micros) -> bool {
        let (mut window, mut count) = (Window::<Events>::new(), 0);
        move |time| {
            count += 1;
            window.add(time, id(count), Micros::MIN, time - 200, MEASURE)
        }
    }

    #[test]
    fn the_event_that_completes_a_window_reaches_the_threshold() {
        let mut add = events();
        assert!(!add(1000));
        assert!(!add(1050));
        assert!(add(1099));
    }

    #[test]
    fn events_as_far_apart_as_the_window_is_long_do_not_count_together() {
        let mut add = events();
        assert!(!add(1000));
        assert!(!add(1050));
        assert!(!add(1100));
        assert!(add(1149));
    }

    #[test]
    fn what_counts_is_the_time_of_events_and_not_their_order() {
        let mut add = events();
        assert!(!add(1099));
        assert!(!add(1000));
        assert!(add(1050));
        let mut add = events();
        assert!(!add(1101));
        assert!(!add(1000));
        assert!(!add(950));
        assert!(add(1045));
    }

    #[test]
    fn a_repeated_event_counts_once() {
        let mut window = Window::<Events>::new();
        for _ in 0..10 {
            assert!(!window.add(1000, id(1), Micros::MIN, 0, MEASURE));
            assert!(!window.add(1001, id(2), Micros::MIN, 0, MEASURE));
        }
        assert!(window.add(1002, id(3), Micros::MIN, 0, MEASURE));
        assert!(!window.add(1002, id(3), Micros::MIN, 0, MEASURE));
    }

    #[test]
    fn a_window_that_begins_anew_counts_nothing_of_before() {
        let mut window = Window::<Events>::new();
        for number in 0..3 {
            window.add(1000 + number, id(number as u64), Micros::MIN, 0, MEASURE);
        }
        window.reset();
        // Repeated, and late.
        assert!(!window.add(1001, id(1), Micros::MIN, 0, MEASURE));
        assert!(!window.add(1002, id(9), Micros::MIN, 0, MEASURE));
        for number in 10..12 {
            assert!(!window.add(1010, id(number), Micros::MIN, 0, MEASURE));
        }
        assert!(window.add(1010, id(12), Micros::MIN, 0, MEASURE));
    }

    #[test]
    fn what_happened_until_the_floor_does_not_count() {
        let mut window = Window::<Events>::new();
        window.add(1000, id(1), Micros::MIN, 0, MEASURE);
        assert!(!window.add(1010, id(2), 1005, 0, MEASURE));
        assert!(!window.add(1005, id(3), 1005, 0, MEASURE));
        assert!(!window.add(1011, id(4), 1005, 0, MEASURE));
        assert!(window.add(1012, id(5), 1005, 0, MEASURE));
    }

    #[test]
    fn a_window_stays_small() {
        let mut window = Window::<Events>::new();
        for number in 0..1000 {
            window.add(1000, id(number), Micros::MIN, 0, MEASURE);
        }
        assert_eq!(window.counted.0.len(), 6);
        let mut friends = Friends::default();
        let hasher = RandomState::new();
        for number in 0..1000 {
            let names: Vec<_> = (0..5).map(|friend| format!("{number}-{friend}")).collect();
            let asked = Asked {
                friends: &names,
                hasher: &hasher,
            };
            friends.add(1000 + number % 7, asked, MEASURE);
            assert!(friends.last.len() <= 6, "{}", friends.last.len());
        }
    }

    #[test]
    fn no_window_is_heavier_than_its_rule_may_make_it() {
        let hasher = RandomState::new();
        for least in [1, 2, 3, 7, 8, 100, 500] {
            let measure = Measure { within: 100, least };
            let (mut events, mut friends) = (Window::<Events>::new(), Window::<Friends>::new());
            for number in 0..3 * least {
                let asked = format!("{number}");
                let asked = Asked {
                    friends: &[asked],
                    hasher: &hasher,
                };
                events.add(1000, id(number as u64), Micros::MIN, 0, measure);
                friends.add(1000, asked, Micros::MIN, 0, measure);
                assert!(
                    events.weight() <= Window::<Events>::heaviest(least),
                    "{least}"
                );
                assert!(
                    friends.weight() <= Window::<Friends>::heaviest(least),
                    "{least}"
                );
            }
            let many: Vec<_> = (0..5000).map(|friend| format!("many{friend}")).collect();
            let asked = Asked {
                friends: &many,
                hasher: &hasher,
            };
            friends.add(1001, asked, Micros::MIN, 0, measure);
            assert!(
                friends.weight() <= Window::<Friends>::heaviest(least),
                "{least}"
            );
        }
    }

    #[test]
    fn different_friends_count_once_and_only_within_the_window() {
        let hasher = RandomState::new();
        let mut window = Window::<Friends>::new();
        let mut add = |time, names: &[&str]| {
            let friends: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let asked = Asked {
                friends: &friends,
                hasher: &hasher,
            };
            window.add(time, asked, Micros::MIN, time - 200, MEASURE)
        };
        assert!(!add(1000, &["a", "b"]));
        assert!(!add(1001, &["b", "a"]));
        assert!(!add(1101, &["b", "c"]));
        // b and c; a is as old as the window is long.
        assert!(!add(1101, &["b"]));
        assert!(add(1102, &["d", "e"]));
    }

    #[test]
    fn one_event_can_ask_for_too_many_friends() {
        let hasher = RandomState::new();
        let friends: Vec<_> = (0..3).map(|number| number.to_string()).collect();
        let mut window = Window::<Friends>::new();
        let asked = Asked {
            friends: &friends,
            hasher: &hasher,
        };
        assert!(window.add(1, asked, Micros::MIN, 0, MEASURE));
    }
}
