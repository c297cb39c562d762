//! Determines which owners the rules add to which list, from the decisions in stream order.
//!
//! The engine is a pure function of the rules and its input: in every process, the same events lead to the same detections, with the
//! same event IDs.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    hash::RandomState,
    sync::Arc,
};

use importguard_core::{EventId, UserId};
use importguard_lists::ListName;
use time::{Duration, OffsetDateTime};

use crate::{
    decision::RecordedDecision,
    recent::{Recent, least_room},
    rules::{Kind, Rule, Rules},
    window::{Asked, Counted, Events, Friends, Measure, Micros, Window},
};

/// The maximum number of listed owners that are remembered. Beyond that, the lists in the bucket are consulted.
const MAX_LISTED: usize = 1_000_000;

/// How many new entries are remembered between two sweeps for owners whose entry has expired.
const SWEEP_EVERY: usize = 10_000;

/// An owner who reached a rule's threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Detection {
    /// The index of the rule.
    pub(crate) rule: usize,
    /// The owner.
    pub(crate) owner: UserId,
    /// The ID of the event about the entry, derived from the rule and the event that reached the threshold.
    pub(crate) event: EventId,
    /// The time of that event.
    pub(crate) at: OffsetDateTime,
    /// When the owner's entry is to expire, in whole seconds.
    pub(crate) until: OffsetDateTime,
}

/// The result of observing a decision.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// The detections, in the order of the rules.
    pub(crate) detections: Vec<Detection>,
    /// Whether the decision was stored too late for a rule that counts such decisions.
    pub(crate) late: bool,
    /// Whether a rule counts friends, but the event does not name them because it was too large.
    pub(crate) unnamed: bool,
}

/// Entries that detectors added before.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// The IDs of their events.
    pub(crate) events: HashSet<EventId>,
    /// The list, owner and end of each entry.
    pub(crate) entries: Vec<(ListName, UserId, OffsetDateTime)>,
}

/// The state of all rules.
pub(crate) struct Engine {
    rules: Arc<Rules>,
    windows: Vec<Windows>,
    hasher: RandomState,
    /// When owners' entries expire, by the list's index in `lists` and the owner. Decisions of an owner do not count until then.
    listed: HashMap<(usize, Box<str>), Micros>,
    lists: Vec<ListName>,
    made: HashSet<EventId>,
    sweep_in: usize,
}

enum Windows {
    Events(Recent<Window<Events>>),
    Friends(Recent<Window<Friends>>),
}

/// Returns the least memory for the windows of these rules: with less, an owner who does much could make a rule forget everybody else.
pub(crate) fn least_memory(rules: &Rules) -> usize {
    let rooms = rules.iter().map(|rule| {
        least_room(match rule.kind {
            Kind::Refusals => Window::<Events>::heaviest(rule.least),
            Kind::DifferentFriends => Window::<Friends>::heaviest(rule.least),
        })
    });
    rooms.max().unwrap_or_default() * rules.iter().len()
}

impl Engine {
    /// Creates an engine that has observed no decisions. Its windows take at most about `bytes`.
    pub(crate) fn new(rules: Arc<Rules>, bytes: usize, made: Made) -> Self {
        let room = bytes / rules.iter().len().max(1);
        let windows = rules.iter().map(|rule| match rule.kind {
            Kind::Refusals => Windows::Events(Recent::new(room)),
            Kind::DifferentFriends => Windows::Friends(Recent::new(room)),
        });
        let mut lists: Vec<ListName> = Vec::new();
        for rule in rules.iter() {
            if !lists.contains(&rule.list) {
                lists.push(rule.list.clone());
            }
        }
        let mut engine = Self {
            windows: windows.collect(),
            hasher: RandomState::new(),
            listed: HashMap::new(),
            lists,
            made: made.events,
            sweep_in: 0,
            rules,
        };
        for (list, owner, until) in made.entries {
            engine.remember(&list, &owner, until);
        }
        engine
    }

    /// Observes a decision that NATS stored at `stored`.
    pub(crate) fn observe(
        &mut self,
        decision: &RecordedDecision,
        stored: OffsetDateTime,
    ) -> Observed {
        let observed = self.count_for_all(decision, stored);
        for detection in &observed.detections {
            self.begin_anew(detection);
        }
        observed
    }

    /// Counts a decision that was handled before: no rule acts on it.
    pub(crate) fn replay(&mut self, decision: &RecordedDecision, stored: OffsetDateTime) {
        for detection in self.count_for_all(decision, stored).detections {
            let rule = self.rules.get(detection.rule);
            let prolongs = rule.is_some_and(|rule| rule.prolong);
            if prolongs && self.made.contains(&detection.event) {
                self.begin_anew(&detection);
            }
        }
    }

    /// Whether the decision of a detection no longer counts, because another rule has put the owner on the list for it.
    pub(crate) fn is_listed(&self, detection: &Detection) -> bool {
        self.rules.get(detection.rule).is_some_and(|rule| {
            let until = self.listed_until(&rule.list, detection.owner.as_str());
            !rule.prolong && micros(detection.at) <= until
        })
    }

    /// Records that the owner is on the rule's list until `until` by a detector's entry. Their decisions until then do not count.
    pub(crate) fn list(&mut self, detection: &Detection, until: OffsetDateTime) {
        let Some(rule) = self.rules.get(detection.rule).cloned() else {
            return;
        };
        if self.sweep_in == 0 {
            self.sweep(detection.at);
            self.sweep_in = SWEEP_EVERY;
        }
        self.sweep_in -= 1;
        self.remember(&rule.list, &detection.owner, until);
    }

    /// Forgets the IDs of entries that were made before: they only matter for decisions that no rule acts on.
    pub(crate) fn forget_made(&mut self) {
        self.made = HashSet::new();
    }

    /// Returns how many owners have a window for this rule, and how many owners whose window still mattered were forgotten for lack of
    /// memory.
    pub(crate) fn owners(&self, rule: usize) -> (usize, u64) {
        match self.windows.get(rule) {
            Some(Windows::Events(owners)) => (owners.len(), owners.forgotten()),
            Some(Windows::Friends(owners)) => (owners.len(), owners.forgotten()),
            None => (0, 0),
        }
    }

    /// Counts a decision for each rule, and returns those whose threshold it reaches.
    fn count_for_all(&mut self, decision: &RecordedDecision, stored: OffsetDateTime) -> Observed {
        let mut observed = Observed::default();
        let rules = Arc::clone(&self.rules);
        // A decision is made before it is stored, even if a gateway's clock is ahead.
        let at = decision.time.min(stored);
        for (index, rule) in rules.iter().enumerate() {
            if !decision.counts(&rule.only, &rule.except) {
                continue;
            }
            if stored - at >= rule.within {
                observed.late = true;
                continue;
            }
            let friends = decision.friends.as_deref();
            if rule.kind == Kind::DifferentFriends && friends.is_none() {
                observed.unnamed = true;
                continue;
            }
            if self.count(index, rule, decision, (at, stored)) {
                // Includes the list, because another detector's rule with the same ID may add owners to another list.
                let cause = format!("detector {} {}", rule.list, rule.id);
                observed.detections.push(Detection {
                    rule: index,
                    owner: decision.owner.clone(),
                    event: EventId::derived(&cause, decision.id),
                    at,
                    until: whole_seconds(at + rule.duration),
                });
            }
        }
        observed
    }

    fn count(
        &mut self,
        index: usize,
        rule: &Rule,
        decision: &RecordedDecision,
        (at, stored): (OffsetDateTime, OffsetDateTime),
    ) -> bool {
        let owner = decision.owner.as_str();
        let within = Micros::try_from(rule.within.as_micros()).unwrap_or(Micros::MAX);
        let added = Added {
            time: micros(at),
            floor: match rule.prolong {
                true => Micros::MIN,
                false => self.listed_until(&rule.list, owner),
            },
            // An event may be stored up to `within` late, and complete a window with events up to `within` before it.
            horizon: micros(stored).saturating_sub(within.saturating_mul(2)),
            measure: Measure {
                within,
                least: rule.least,
            },
        };
        let hasher = &self.hasher;
        match self.windows.get_mut(index) {
            Some(Windows::Events(owners)) => added.to(owners, owner, decision.id),
            Some(Windows::Friends(owners)) => {
                let friends = decision.friends.as_deref().unwrap_or_default();
                added.to(owners, owner, Asked { friends, hasher })
            }
            None => false,
        }
    }

    fn begin_anew(&mut self, detection: &Detection) {
        let owner = detection.owner.as_str();
        match self.windows.get_mut(detection.rule) {
            Some(Windows::Events(owners)) => reset(owners, owner),
            Some(Windows::Friends(owners)) => reset(owners, owner),
            None => {}
        }
    }

    fn remember(&mut self, list: &ListName, owner: &UserId, until: OffsetDateTime) {
        let Some(list) = self.place(list) else {
            return;
        };
        if self.listed.len() < MAX_LISTED {
            let known = self.listed.entry((list, owner.as_str().into()));
            let known = known.or_insert(Micros::MIN);
            *known = micros(until).max(*known);
        }
    }

    /// Forgets the entries that expired so long before `at`, the time of a decision, that no window reaches back to them. The present time
    /// would not do, because decisions may be older.
    fn sweep(&mut self, at: OffsetDateTime) {
        let horizon = micros(at - self.rules.longest_window() * 2);
        self.listed.retain(|_, until| *until > horizon);
    }

    fn place(&self, list: &ListName) -> Option<usize> {
        self.lists.iter().position(|other| other == list)
    }

    fn listed_until(&self, list: &ListName, owner: &str) -> Micros {
        if self.listed.is_empty() {
            return Micros::MIN;
        }
        let found = self
            .place(list)
            .and_then(|list| self.listed.get(&(list, owner.into())));
        found.copied().unwrap_or(Micros::MIN)
    }
}

/// The parameters of adding an event to a window, apart from the counted item.
struct Added {
    time: Micros,
    floor: Micros,
    horizon: Micros,
    measure: Measure,
}

impl Added {
    fn to<C: Counted>(
        &self,
        owners: &mut Recent<Window<C>>,
        owner: &str,
        item: C::Item<'_>,
    ) -> bool {
        let mut window = owners.take(owner).unwrap_or_else(Window::new);
        let Self {
            time,
            floor,
            horizon,
            measure,
        } = *self;
        let reached = window.add(time, item, floor, horizon, measure);
        owners.put(owner, window, |window| window.is_of_use(horizon));
        reached
    }
}

fn reset<C: Counted>(owners: &mut Recent<Window<C>>, owner: &str) {
    if let Some(mut window) = owners.take(owner) {
        window.reset();
        owners.put(owner, window, |_| true);
    }
}

fn micros(time: OffsetDateTime) -> Micros {
    Micros::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(Micros::MAX)
}

/// Rounds a time up to whole seconds.
fn whole_seconds(time: OffsetDateTime) -> OffsetDateTime {
    let rest = i64::from(time.nanosecond());
    match rest {
        0 => time,
        rest => time + Duration::nanoseconds(1_000_000_000 - rest),
    }
}
