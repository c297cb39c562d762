//! The estimated cost of evaluating rules. It depends only on the policy and the request, so that all deciders agree.
//!
//! One unit is about 10 ns on one core of the machine named in docs/policy.md. `cargo bench -p importguard-decider --bench cost`
//! compares the estimates with measured times.

use importguard_core::Mode;

use super::{
    diagnostic::{Report, Span, quoted},
    expression::Expression,
    matcher::Matcher,
    patterns::Patterns,
    rule::{Action, Rule},
    units::{Cost, LOOK_UP, MAX_ID_BYTES, NANOS_PER_UNIT, PREPARE, SIMULATED, beside_look_up},
};

/// The maximum total cost of a policy's enforced rules for the largest import, in units: 100 ms, a fifth of a gateway's default
/// timeout of 500 ms (IMPORTGUARD_DECIDER_TIMEOUT). That leaves time for a machine half as fast, shadow rules, queueing and the
/// network.
pub const MAX_COST: u64 = 100_000_000 / NANOS_PER_UNIT;

/// The budget of all shadow rules for one import, in units: 25 ms, a quarter of that of enforced rules, since they delay the
/// response and no verdict depends on them.
pub const SHADOW_BUDGET: u64 = MAX_COST / 4;

/// The default maximum number of friends per import (IMPORTGUARD_DECIDER_MAX_FRIENDS).
pub const DEFAULT_MAX_FRIENDS: usize = 10_000;

/// The cost of a rule without its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Per {
    Request(Cost),
    Friend(Cost),
}

impl Rule {
    /// The cost of its condition.
    pub(super) fn when_cost(&self) -> Cost {
        self.when.as_ref().map_or(Cost::default(), Expression::cost)
    }

    pub(super) fn action_cost(&self) -> Per {
        match &self.action {
            Action::RefuseOwner(matcher, _) => Per::Request(matcher.cost()),
            Action::DropFriends(matcher) => Per::Friend(matcher.cost()),
            // One comparison. Copying indexes is negligible: one unit copies dozens of them.
            Action::KeepFirst(_) | Action::RefuseOver(..) => {
                Per::Request(Cost { fixed: 1, texts: 0 })
            }
            Action::RefuseIf(expression, _) => Per::Request(expression.cost()),
            Action::DropFriendIf(expression) => Per::Friend(expression.cost()),
        }
    }

    /// Which of its regular expressions may outgrow their cache; `None` if none does.
    fn slow_patterns(&self) -> Option<String> {
        let expressions = match &self.action {
            Action::RefuseIf(it, _) | Action::DropFriendIf(it) => [self.when.as_ref(), Some(it)],
            _ => [self.when.as_ref(), None],
        };
        let mut expressions = expressions.into_iter().flatten();
        let matcher = match &self.action {
            Action::RefuseOwner(matcher, _) | Action::DropFriends(matcher) => Some(matcher),
            _ => None,
        };
        let patterns = matcher.map(|it| [&it.patterns, &it.not_patterns]);
        let mut patterns = patterns.into_iter().flatten().flatten();
        patterns
            .find_map(Patterns::slow)
            .or_else(|| expressions.find_map(Expression::slow_pattern))
    }

    /// The maximum number of friends that remain after it, if it guarantees one.
    fn leaves_at_most(&self) -> Option<usize> {
        let always = self.is_enforced_for_all() && self.when.is_none();
        match self.action {
            Action::KeepFirst(max) | Action::RefuseOver(max, _) if always => Some(max),
            _ => None,
        }
    }
}

/// How many prefixes or suffixes one unit compares.
const AFFIXES_PER_UNIT: u64 = 4;
/// Cost of matching a rule's regular expressions with an ID: about 2 ns per byte, and several times as much while the automaton is built.
const PATTERNS: Cost = Cost {
    fixed: 4,
    texts: 40,
};
fn pattern_cost(patterns: &Patterns, times: u64) -> Cost {
    let simulated = Cost {
        fixed: 0,
        texts: patterns.simulated_states().saturating_mul(SIMULATED),
    };
    PATTERNS.plus(simulated.times(times))
}

impl Matcher {
    /// The cost of matching one ID.
    pub(super) fn cost(&self) -> Cost {
        let lists = [&self.in_list, &self.not_in].into_iter().flatten();
        let affixes = [
            &self.prefixes,
            &self.suffixes,
            &self.not_prefixes,
            &self.not_suffixes,
        ];
        let affixes: u64 = affixes.iter().map(|it| it.len() as u64).sum();
        let affixes = Cost {
            fixed: affixes.div_ceil(AFFIXES_PER_UNIT),
            texts: 0,
        };
        // IDs that match are matched again, to find out by which pattern.
        let patterns = [(&self.patterns, 2), (&self.not_patterns, 1)]
            .into_iter()
            .filter_map(|(patterns, times)| Some(pattern_cost(patterns.as_ref()?, times)));
        lists
            .map(|list| LOOK_UP.plus(beside_look_up(&list.ids)))
            .chain([affixes])
            .chain(patterns)
            // The matcher runs twice if one of its lists is in shadow mode: the second run finds what that list would do.
            .map(|cost| {
                if self.has_shadow() {
                    cost.plus(cost)
                } else {
                    cost
                }
            })
            .fold(Cost::default(), Cost::plus)
    }
}

/// The size of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) friends: usize,
    /// Total length of the friends' IDs, in bytes.
    pub(super) friend_bytes: u64,
    /// Length of the longer of owner ID and operation ID, in bytes.
    pub(super) longest: usize,
}

impl Size {
    /// The size of the largest request with this number of friends. The gateways' default limit of 2 MiB per body
    /// (IMPORTGUARD_MAX_BODY_BYTES) leaves 206 bytes for each of 10,000 IDs, but a decider does not know that limit, and takes as many IDs
    /// of the maximum length.
    fn largest(friends: usize) -> Self {
        Self {
            friends,
            friend_bytes: friends as u64 * MAX_ID_BYTES as u64,
            longest: MAX_ID_BYTES,
        }
    }
}

impl Per {
    pub(super) fn units(self, size: Size) -> u64 {
        match self {
            Self::Request(cost) => cost.units(size.longest),
            Self::Friend(cost) => {
                // A string may be the friend's ID or one of the request's.
                let others = (size.friends as u64).saturating_mul(size.longest as u64);
                cost.units_of_all(size.friends, size.friend_bytes.max(others))
            }
        }
    }
}

/// The total cost of a policy's rules for any request, if all friends remain.
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

    /// The units for a request; for shadow rules at most their budget.
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

/// The cost of the largest import under a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyCost {
    /// Its number of friends.
    pub friends: usize,
    /// The rules that are not off, in order.
    pub rules: Vec<RuleCost>,
}

/// The cost of one rule for the largest import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCost {
    /// The rule's ID.
    pub id: String,
    /// Its mode.
    pub mode: Mode,
    /// Its cost, in units.
    pub units: u64,
}

impl PolicyCost {
    pub(super) fn of(rules: &[Rule], friends: usize) -> Self {
        let mut size = Size::largest(friends);
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
                size = Size::largest(size.friends.min(max));
            }
        }
        Self {
            friends,
            rules: costs,
        }
    }

    /// The total cost of the rules in this mode, in units.
    pub fn units(&self, mode: Mode) -> u64 {
        let rules = self.rules.iter().filter(|rule| rule.mode == mode);
        rules.fold(0, |sum, rule| sum.saturating_add(rule.units))
    }
}

const REMEDY: &str = "use in, prefixes and suffixes under dropFriends, which cost a hundredth of an expression, put limitFriends before it, or lower IMPORTGUARD_DECIDER_MAX_FRIENDS";
const SLOW_PATTERN_REMEDY: &str = "begin it with ^, shorten repetitions such as .{30}, write (?-u:\\b) for \\b and [A-Za-z0-9_] for \\w, or use prefixes, suffixes or a list";

/// How many of the most expensive rules a message names.
const MAX_NAMED: usize = 5;

/// Reports a policy whose enforced rules cost too much for the largest import, at the position of the most expensive rule. `place` returns
/// the position of a rule's ID.
pub(super) fn check(
    (cost, all): (&PolicyCost, &[Rule]),
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
    let Some((first, span)) = rules.first().and_then(|it| Some((*it, place(&it.id)?))) else {
        return;
    };
    let slow = all.iter().find(|rule| rule.id == first.id);
    let slow = slow.and_then(Rule::slow_patterns);
    let remedy = if slow.is_some() {
        SLOW_PATTERN_REMEDY
    } else {
        REMEDY
    };
    let slow = slow.map_or_else(String::new, |it| format!("; some IDs slow down {it}"));
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
            "with {} friends the enforced rules cost {units} units; the maximum is {MAX_COST}: {}{others}{slow}",
            cost.friends,
            shares.join(", "),
        ),
        remedy,
    );
}
