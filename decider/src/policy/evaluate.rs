//! From a request to an evaluation. One hash for each friend serves every look-up, and nothing is allocated for a rule
//! that does not fire.
//!
//! The enforced rules come first and give the verdict. Then the rules in shadow, each on the friends who were left at its
//! place in the document, as far as what they may cost together goes: so they never slow down the others.

use crate::lists::{IdHash, IdHasher};

use super::cost::{Per, SHADOW_BUDGET, Size};
use super::expression::Inputs;
use super::friends::{Friends, Left};
use super::meter::Meter;
use super::read::{DUPLICATE, SELF};
use super::rule::{Action, OnError, Rule};
use super::trail::{FIRST, Place, Trail};
use super::{Policy, Request};
use importguard_core::{Evaluation, Kept, Mode, Outcome, Refusal, Verdict};

/// What became of a rule, before its mode is considered.
#[derive(Debug)]
pub(super) enum Effect<'p> {
    Off,
    OutsideRollout,
    /// Its condition is false.
    NotWhen,
    /// It was evaluated and is not concerned.
    Nothing,
    Refuse {
        refusal: &'p Refusal,
        /// Why its expression failed, if that is why it refuses.
        failure: Option<String>,
    },
    Remove {
        /// At least one, ascending.
        friends: Vec<u32>,
        /// Why its expression failed for a friend who therefore stays.
        failure: Option<String>,
    },
    /// Why its expression failed, so that it is skipped.
    Skip(String),
    /// It was not evaluated: it would have cost more than rules in shadow may.
    OverBudget(OverBudget),
}

/// What rules in shadow may cost together would have been exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OverBudget {
    /// What it would have cost, in units.
    pub(super) cost: u64,
    /// What was left.
    pub(super) left: u64,
}

/// Watches an evaluation: gets each rule that is come to, its place, what became of it, and the state in which it found the
/// request. Rules in shadow come after the enforced ones.
pub(super) trait Observer<'p, S> {
    fn before_rules(&mut self, _owners: &[u32], _repeated: &[u32]) {}
    fn rule(
        &mut self,
        _place: Place,
        _rule: &'p Rule,
        _effect: &Effect<'p>,
        _state: &State<'p, '_, S>,
    ) {
    }
    /// Nothing more is done for the rule at this place. Not called for a rule that is off.
    fn after_rule(&mut self, _place: Place) {}
}

/// Watches how far an evaluation has come. It may look at a clock, which the engine does not.
pub trait Progress {
    /// Rules are evaluated from here on.
    fn before_rules(&mut self) {}
    /// The rule with this index in the document was evaluated. Rules in shadow come after the enforced ones, and one that is off
    /// not at all.
    fn after_rule(&mut self, _index: usize) {}
}

/// Watches nothing, at no cost.
impl Progress for () {}

pub(super) struct Watched<'a, P>(pub(super) &'a mut P);

impl<S, P: Progress> Observer<'_, S> for Watched<'_, P> {
    fn before_rules(&mut self, _owners: &[u32], _repeated: &[u32]) {
        self.0.before_rules();
    }

    fn after_rule(&mut self, place: Place) {
        self.0.after_rule(place - (FIRST + 1));
    }
}

/// Decides, or ends with the error of `should_stop`, which is asked again and again.
pub(super) fn evaluate<'p, S: AsRef<str>, E>(
    policy: &'p Policy,
    request: &Request<'_, S>,
    observer: &mut impl Observer<'p, S>,
    should_stop: &mut dyn FnMut() -> Result<(), E>,
) -> Result<Evaluation, E> {
    let mut meter = Meter::new(should_stop);
    let hasher = IdHasher::get();
    let (friends, unusable) = Friends::new(request.owner, request.friends, hasher, &mut meter)?;
    observer.before_rules(&unusable.owners, &unusable.repeated);
    let mut trail = Trail::default();
    trail.remove(FIRST, SELF, unusable.owners);
    trail.remove(FIRST, DUPLICATE, unusable.repeated);
    let mut state = State {
        policy,
        request: *request,
        owner_hash: hasher.hash(request.owner),
        friends,
    };
    let refused = state.enforce(&mut trail, observer, &mut meter)?;
    let left = state.friends.take_left();
    // A refusal ends it: the rules after it are not evaluated, in shadow or not.
    let reached = refused.map_or(Place::MAX, |(place, _)| place);
    let watched = state.watch(reached, &trail, observer, &mut meter)?;
    trail.join(watched);
    Ok(match (refused, left) {
        (Some((place, refusal)), _) => trail.refuse(policy, Some(place), refusal),
        (None, Left::All) => trail.decide(policy, Verdict::Allow),
        (None, Left::These(left)) if left.is_empty() => {
            trail.refuse(policy, None, &policy.nobody_left)
        }
        (None, Left::These(left)) => trail.decide(policy, Verdict::Modify(Kept::trusted(left))),
    })
}

/// A request part of the way through the rules.
pub(super) struct State<'p, 'r, S> {
    policy: &'p Policy,
    pub(super) request: Request<'r, S>,
    pub(super) owner_hash: IdHash,
    pub(super) friends: Friends<'r, S>,
}

impl<'p, S: AsRef<str>> State<'p, '_, S> {
    /// Evaluates the rules that are not in shadow, up to the first refusal, which it returns with its place.
    fn enforce<E>(
        &mut self,
        trail: &mut Trail<'p>,
        observer: &mut impl Observer<'p, S>,
        meter: &mut Meter<'_, E>,
    ) -> Result<Option<(Place, &'p Refusal)>, E> {
        let mut unlimited = Budget(None);
        for (place, rule) in self.policy.places() {
            if rule.mode == Some(Mode::Shadow) {
                continue;
            }
            let effect = self.effect(rule, &mut unlimited, meter)?;
            observer.rule(place, rule, &effect, self);
            match effect {
                Effect::Refuse { refusal, .. } => {
                    observer.after_rule(place);
                    return Ok(Some((place, refusal)));
                }
                Effect::Remove { friends, failure } => {
                    if failure.is_some() {
                        trail.fire(place, &rule.id, Mode::Enforce, Outcome::Error);
                    }
                    self.friends.remove(&friends);
                    trail.remove(place, &rule.id, friends);
                }
                Effect::Skip(_) => trail.fire(place, &rule.id, Mode::Enforce, Outcome::Error),
                Effect::Off => continue,
                Effect::OutsideRollout
                | Effect::NotWhen
                | Effect::Nothing
                | Effect::OverBudget(_) => {}
            }
            observer.after_rule(place);
        }
        Ok(None)
    }

    /// Evaluates the rules in shadow before the place `reached`. The state is that before any rule; what `enforced` tells of
    /// removals brings it to each rule's place.
    fn watch<E>(
        &mut self,
        reached: Place,
        enforced: &Trail<'p>,
        observer: &mut impl Observer<'p, S>,
        meter: &mut Meter<'_, E>,
    ) -> Result<Trail<'p>, E> {
        let mut trail = Trail::default();
        let mut removed = enforced.removed().peekable();
        let mut budget = Budget(Some(SHADOW_BUDGET));
        for (place, rule) in self
            .policy
            .places()
            .take_while(|(place, _)| *place < reached)
        {
            if rule.mode != Some(Mode::Shadow) {
                continue;
            }
            while let Some((_, friends)) = removed.next_if(|(at, _)| *at < place) {
                self.friends.remove(friends);
            }
            let effect = self.effect(rule, &mut budget, meter)?;
            observer.rule(place, rule, &effect, self);
            for outcome in would_have(&effect) {
                trail.fire(place, &rule.id, Mode::Shadow, outcome);
            }
            observer.after_rule(place);
        }
        Ok(trail)
    }

    fn effect<E>(
        &self,
        rule: &'p Rule,
        budget: &mut Budget,
        meter: &mut Meter<'_, E>,
    ) -> Result<Effect<'p>, E> {
        if rule.mode.is_none() {
            return Ok(Effect::Off);
        }
        let owner = self.request.owner;
        if rule
            .rollout
            .is_some_and(|rollout| !rollout.includes(&rule.id, owner))
        {
            return Ok(Effect::OutsideRollout);
        }
        if let Some(when) = &rule.when {
            let units = when.cost().units(self.longest());
            if let Err(over) = budget.take(|| units) {
                return Ok(Effect::OverBudget(over));
            }
            meter.spend(units)?;
            match when.evaluate(&self.inputs(), None) {
                Ok(true) => {}
                Ok(false) => return Ok(Effect::NotWhen),
                Err(why) => return Ok(rule.failed(why)),
            }
        }
        let cost = rule.action_cost();
        if let Err(over) = budget.take(|| cost.units(self.size())) {
            return Ok(Effect::OverBudget(over));
        }
        self.act(rule, cost, meter)
    }

    /// What a rule does that is not kept from it.
    fn act<E>(&self, rule: &'p Rule, cost: Per, meter: &mut Meter<'_, E>) -> Result<Effect<'p>, E> {
        let longest = self.longest();
        let each = match cost {
            Per::Request(cost) => {
                meter.spend(cost.units(longest))?;
                cost
            }
            Per::Friend(cost) => cost,
        };
        Ok(match &rule.action {
            Action::RefuseOwner(owners, refusal) => {
                refuse(owners.matches(self.request.owner, self.owner_hash), refusal)
            }
            Action::RefuseOver(max, refusal) => refuse(self.friends.count() > *max, refusal),
            Action::RefuseIf(expression, refusal) => {
                match expression.evaluate(&self.inputs(), None) {
                    Ok(holds) => refuse(holds, refusal),
                    Err(why) => rule.failed(why),
                }
            }
            Action::DropFriends(matcher) => remove(self.friends.select(|index| {
                let id = self.friends.id(index);
                meter.spend(each.units(id.len()))?;
                Ok(matcher.matches(id, self.friends.hash(index)))
            })?),
            Action::KeepFirst(max) => remove(self.friends.after(*max)),
            Action::DropFriendIf(expression) => {
                let inputs = self.inputs();
                let mut failure = None;
                let friends = self.friends.select(|index| {
                    let id = self.friends.id(index);
                    meter.spend(each.units(id.len().max(longest)))?;
                    Ok(match expression.evaluate(&inputs, Some(id)) {
                        Ok(holds) => holds,
                        Err(why) => {
                            failure.get_or_insert(why);
                            false
                        }
                    })
                })?;
                match (failure, &rule.on_error) {
                    (None, _) => remove(friends),
                    (Some(why), OnError::Skip) if !friends.is_empty() => Effect::Remove {
                        friends,
                        failure: Some(why),
                    },
                    (Some(why), _) => rule.failed(why),
                }
            }
        })
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        Inputs {
            owner: self.request.owner,
            operation_id: self.request.operation_id,
            friend_count: self.friends.count(),
            requested_count: self.request.friends.len(),
            now: self.request.now,
            lists: &self.policy.list_values,
        }
    }

    fn longest(&self) -> usize {
        self.request
            .owner
            .len()
            .max(self.request.operation_id.len())
    }

    fn size(&self) -> Size {
        Size {
            friends: self.friends.count(),
            friend_bytes: self.friends.bytes(),
            longest: self.longest(),
        }
    }
}

impl Policy {
    pub(super) fn places(&self) -> impl Iterator<Item = (Place, &Rule)> {
        (FIRST + 1..).zip(&self.rules)
    }
}

/// What rules may still cost, in units; without a bound where there is none.
struct Budget(Option<u64>);

impl Budget {
    /// Takes the units, or none where so many are not left. They are only worked out where there is a bound.
    fn take(&mut self, units: impl FnOnce() -> u64) -> Result<(), OverBudget> {
        let Some(left) = &mut self.0 else {
            return Ok(());
        };
        let cost = units();
        match left.checked_sub(cost) {
            Some(rest) => {
                *left = rest;
                Ok(())
            }
            None => Err(OverBudget { cost, left: *left }),
        }
    }
}

/// What a rule in shadow is reported with.
fn would_have(effect: &Effect<'_>) -> impl Iterator<Item = Outcome> + use<> {
    let (first, second) = match effect {
        Effect::Refuse { .. } => (Some(Outcome::Refuse), None),
        Effect::Remove { failure, .. } => (
            failure.as_ref().map(|_| Outcome::Error),
            Some(Outcome::Remove),
        ),
        Effect::Skip(_) => (Some(Outcome::Error), None),
        Effect::OverBudget(_) => (Some(Outcome::Skipped), None),
        Effect::Off | Effect::OutsideRollout | Effect::NotWhen | Effect::Nothing => (None, None),
    };
    first.into_iter().chain(second)
}

impl Rule {
    fn failed(&self, why: String) -> Effect<'_> {
        match &self.on_error {
            OnError::Skip => Effect::Skip(why),
            OnError::Refuse(refusal) => Effect::Refuse {
                refusal,
                failure: Some(why),
            },
        }
    }
}

fn refuse(holds: bool, refusal: &Refusal) -> Effect<'_> {
    if holds {
        Effect::Refuse {
            refusal,
            failure: None,
        }
    } else {
        Effect::Nothing
    }
}

fn remove<'p>(friends: Vec<u32>) -> Effect<'p> {
    if friends.is_empty() {
        Effect::Nothing
    } else {
        Effect::Remove {
            friends,
            failure: None,
        }
    }
}
