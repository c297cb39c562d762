//! What evaluating rules costs: an estimate that depends on nothing but the policy and the request, so that every decider
//! comes to the same one.
//!
//! One unit is about 10 ns of one core of the machine that docs/policy.md names. `cargo bench -p importguard-decider --bench
//! cost` measures how far the estimates are from the time they stand for.

use super::diagnostic::{Report, Span, quoted};
use super::expression::Expression;
use super::matcher::Matcher;
use super::rule::{Action, Rule};
use importguard_core::Mode;

/// Nanoseconds that one unit stands for: what a look-up in a list takes (9), a fourth of 16 prefixes (11) and `==` in an
/// expression (9 to 11). A unit of a loop takes 3 to 7, for all of it is taken to be evaluated.
pub const NANOS_PER_UNIT: u64 = 10;

/// The most that the enforced rules of a policy may cost together on the largest import, in units: 100 ms, a fifth of the
/// 500 ms that a gateway waits by default (IMPORTGUARD_DECIDER_TIMEOUT). On a machine half as fast, with as much again for
/// rules in shadow, for waiting and for the network, the verdict is there in time.
pub const MAX_COST: u64 = 100_000_000 / NANOS_PER_UNIT;

/// The most that the rules in shadow may cost together on one import, in units: 25 ms, a quarter of what the enforced ones
/// may, since the answer waits for them and no verdict depends on them.
pub const SHADOW_BUDGET: u64 = MAX_COST / 4;

/// The most that one evaluation of one expression may cost, in units: 2 ms, for it cannot be stopped halfway.
pub(super) const MAX_EVALUATION: u64 = 2_000_000 / NANOS_PER_UNIT;

/// After how many units an evaluation asks whether it is to stop: 100 µs, against which the 50 ns of looking at a clock are
/// nothing.
pub(super) const CHECK_EVERY: u64 = 100_000 / NANOS_PER_UNIT;

/// Hashing a friend's id and looking whether it is repeated.
pub(super) const PREPARE: Cost = Cost { fixed: 1, texts: 1 };

/// How many friends the largest import has unless a setting says otherwise (IMPORTGUARD_DECIDER_MAX_FRIENDS).
pub const DEFAULT_MAX_FRIENDS: usize = 10_000;

/// How long an id is taken to be where none is known yet, in bytes: four times as long as those that lists are sized for. What a
/// request's own ids cost goes by their real length.
pub(super) const ASSUMED_ID_BYTES: usize = 64;

/// How many bytes of a text one unit reads or copies.
const BYTES_PER_UNIT: u64 = 64;

/// What one evaluation of something costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Units, however long the ids are.
    pub(super) fixed: u64,
    /// How many times the longest id of the request is read or copied as a whole.
    pub(super) texts: u64,
}

impl Cost {
    /// The units where no id has more than so many bytes.
    #[inline]
    pub(super) fn units(self, longest: usize) -> u64 {
        self.fixed.saturating_add(self.by_bytes(longest as u64))
    }

    /// The units for `count` evaluations over texts that have `bytes` together.
    fn units_of_all(self, count: usize, bytes: u64) -> u64 {
        let fixed = self.fixed.saturating_mul(count as u64);
        fixed.saturating_add(self.by_bytes(bytes))
    }

    fn by_bytes(self, bytes: u64) -> u64 {
        self.texts.saturating_mul(bytes) / BYTES_PER_UNIT
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            fixed: self.fixed.saturating_add(other.fixed),
            texts: self.texts.saturating_add(other.texts),
        }
    }

    pub(super) fn times(self, times: u64) -> Self {
        Self {
            fixed: self.fixed.saturating_mul(times),
            texts: self.texts.saturating_mul(times),
        }
    }
}

/// What a rule costs beside its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Per {
    Request(Cost),
    Friend(Cost),
}

impl Rule {
    /// What its condition costs.
    pub(super) fn when_cost(&self) -> Cost {
        self.when.as_ref().map_or(Cost::default(), Expression::cost)
    }

    pub(super) fn action_cost(&self) -> Per {
        match &self.action {
            Action::RefuseOwner(matcher, _) => Per::Request(matcher.cost()),
            Action::DropFriends(matcher) => Per::Friend(matcher.cost()),
            // One comparison; copying indexes costs a unit for dozens of them.
            Action::KeepFirst(_) | Action::RefuseOver(..) => {
                Per::Request(Cost { fixed: 1, texts: 0 })
            }
            Action::RefuseIf(expression, _) => Per::Request(expression.cost()),
            Action::DropFriendIf(expression) => Per::Friend(expression.cost()),
        }
    }

    /// The most friends that are left after it, if it sees to that for every request.
    fn leaves_at_most(&self) -> Option<usize> {
        let always =
            self.mode == Some(Mode::Enforce) && self.rollout.is_none() && self.when.is_none();
        match self.action {
            Action::KeepFirst(max) | Action::RefuseOver(max, _) if always => Some(max),
            _ => None,
        }
    }
}

/// Units for one look-up in a list, whose hash is there.
const LOOK_UP: u64 = 1;
/// How many prefixes or suffixes one unit compares.
const AFFIXES_PER_UNIT: u64 = 4;
/// Units for looking for a rule's regular expressions in an id, and how many times its bytes are read meanwhile: some 2 ns a
/// byte, and several times as much where the automaton outgrows its cache.
const PATTERNS: Cost = Cost {
    fixed: 4,
    texts: 40,
};

impl Matcher {
    /// What matching one id costs.
    pub(super) fn cost(&self) -> Cost {
        let lists = [&self.in_list, &self.not_in].into_iter().flatten().count() as u64;
        let affixes = (self.prefixes.len() + self.suffixes.len()) as u64;
        let fixed = Cost {
            fixed: lists * LOOK_UP + affixes.div_ceil(AFFIXES_PER_UNIT),
            texts: 0,
        };
        match self.patterns {
            Some(_) => fixed.plus(PATTERNS),
            None => fixed,
        }
    }
}

/// What a request looks like to an estimate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) friends: usize,
    /// Of the friends' ids, together.
    pub(super) friend_bytes: u64,
    /// Of the owner's id and the operation's, the longer.
    pub(super) longest: usize,
}

impl Size {
    fn assumed(friends: usize) -> Self {
        Self {
            friends,
            friend_bytes: friends as u64 * ASSUMED_ID_BYTES as u64,
            longest: ASSUMED_ID_BYTES,
        }
    }
}

impl Per {
    pub(super) fn units(self, size: Size) -> u64 {
        match self {
            Self::Request(cost) => cost.units(size.longest),
            Self::Friend(cost) => {
                // A text may be the friend's or one of the request's.
                let others = (size.friends as u64).saturating_mul(size.longest as u64);
                cost.units_of_all(size.friends, size.friend_bytes.max(others))
            }
        }
    }
}

/// What the rules of a policy cost together on any request, each on all of its friends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    enforced: Total,
    shadow: Total,
}

#[derive(Clone, Copy, Debug, Default)]
struct Total {
    request: Cost,
    friend: Cost,
}

impl Totals {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut totals = Self::default();
        for rule in rules {
            let total = match rule.mode {
                Some(Mode::Enforce) => &mut totals.enforced,
                Some(Mode::Shadow) => &mut totals.shadow,
                None => continue,
            };
            total.request = total.request.plus(rule.when_cost());
            let (sum, cost) = match rule.action_cost() {
                Per::Request(cost) => (&mut total.request, cost),
                Per::Friend(cost) => (&mut total.friend, cost),
            };
            *sum = sum.plus(cost);
        }
        totals
    }

    /// Units for a request; for rules in shadow no more than they may cost.
    pub(super) fn units(&self, size: Size) -> u64 {
        let prepare = PREPARE.units_of_all(size.friends, size.friend_bytes);
        let shadow = self.shadow.units(size).min(SHADOW_BUDGET);
        prepare
            .saturating_add(self.enforced.units(size))
            .saturating_add(shadow)
    }
}

impl Total {
    fn units(&self, size: Size) -> u64 {
        let request = Per::Request(self.request).units(size);
        request.saturating_add(Per::Friend(self.friend).units(size))
    }
}

/// What the largest import costs, by a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyCost {
    /// How many friends that import has.
    pub friends: usize,
    /// The rules that are not off, in order.
    pub rules: Vec<RuleCost>,
}

/// What one rule costs on the largest import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCost {
    /// The rule's id.
    pub id: String,
    /// Whether it acts.
    pub mode: Mode,
    /// Units.
    pub units: u64,
}

impl PolicyCost {
    pub(super) fn of(rules: &[Rule], friends: usize) -> Self {
        let mut size = Size::assumed(friends);
        let mut costs = Vec::new();
        for rule in rules {
            let Some(mode) = rule.mode else { continue };
            costs.push(RuleCost {
                id: rule.id.clone(),
                mode,
                units: rule
                    .when_cost()
                    .units(size.longest)
                    .saturating_add(rule.action_cost().units(size)),
            });
            if let Some(max) = rule.leaves_at_most() {
                size = Size::assumed(size.friends.min(max));
            }
        }
        Self {
            friends,
            rules: costs,
        }
    }

    /// What the rules in this mode cost together, in units.
    pub fn units(&self, mode: Mode) -> u64 {
        let rules = self.rules.iter().filter(|rule| rule.mode == mode);
        rules.fold(0, |sum, rule| sum.saturating_add(rule.units))
    }
}

/// How many rules a message names: who sees the five most expensive ones knows where to begin.
const MAX_NAMED: usize = 5;

/// Reports a policy whose enforced rules cost too much on the largest import, at the most expensive of them. `place` tells
/// where a rule's id stands.
pub(super) fn check(
    cost: &PolicyCost,
    place: impl FnOnce(&str) -> Option<Span>,
    report: &mut Report<'_>,
) {
    let units = cost.units(Mode::Enforce);
    if units <= MAX_COST {
        return;
    }
    let mut rules: Vec<&RuleCost> = cost
        .rules
        .iter()
        .filter(|rule| rule.mode == Mode::Enforce)
        .collect();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.units));
    let Some(span) = rules.first().and_then(|rule| place(&rule.id)) else {
        return;
    };
    let shares: Vec<String> = rules
        .iter()
        .take(MAX_NAMED)
        .map(|rule| format!("{} {}", quoted(&rule.id), rule.units))
        .collect();
    let others = match rules.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(", {more} more"),
    };
    report.error(
        span,
        format!(
            "with {} friends the enforced rules cost {units} units; the maximum is {MAX_COST}: {}{others}",
            cost.friends,
            shares.join(", "),
        ),
        "use in, prefixes and suffixes under dropFriends, which cost a hundredth of an expression, put limitFriends before it, or lower IMPORTGUARD_DECIDER_MAX_FRIENDS",
    );
}
