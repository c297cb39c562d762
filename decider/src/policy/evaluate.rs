//! Evaluates a request. Each friend is hashed once for all look-ups, and a rule that does not fire allocates nothing.
//!
//! Enforced rules are evaluated first and determine the verdict. Shadow rules follow, each on the friends that remained at
//! its position in the document, within a common budget, so that they never slow down enforced rules.

use importguard_core::{Evaluation, Kept, Mode, Refusal, Verdict};

use super::{
    Policy, Request,
    cost::{Per, SHADOW_BUDGET, Size},
    expression::Inputs,
    friends::{Friends, Remaining},
    matcher::Part,
    matches::Matches,
    read::{DUPLICATE, SELF},
    rule::{Action, Applies, OnError, Rule},
    trail::{FIRST, Fate, Position, Refused, Trail},
    units::{Budget, Meter, OverBudgetError},
};
use crate::lists::{IdHash, IdHasher, View, live::LiveLists};

/// The effect of a rule, before its mode is considered.
#[derive(Debug)]
pub(super) enum Effect<'p> {
    Off,
    OutsideRollout,
    /// Its condition is false.
    NotWhen,
    /// It was evaluated and does not match.
    Nothing,
    Refuse {
        refusal: &'p Refusal,
        /// The outcome to report.
        fate: Fate<'p>,
    },
    Remove {
        /// At least one, ascending.
        friends: Vec<u32>,
        matches: Matches<'p>,
        /// The first error of its expression. Friends for which the expression fails are kept.
        failure: Option<String>,
    },
    /// It is skipped because its expression failed with this error.
    Skip(String),
    /// It is in shadow mode and was not evaluated, because the remaining budget is too small.
    OverBudget(OverBudgetError),
}

/// Observes an evaluation: each rule that is reached, its position, its effect, and the state of the request before it.
/// Shadow rules come after enforced ones.
pub(super) trait Observer<'p, S> {
    fn before_rules(&mut self, _owners: &[u32], _repeated: &[u32]) {}
    fn rule(
        &mut self,
        _position: Position,
        _rule: &'p Rule,
        _effect: &Effect<'p>,
        _state: &State<'p, '_, S>,
    ) {
    }
    /// The enforced rule at this position would do more if lists in shadow mode took effect. Called after `rule`, with the same state.
    fn lists_in_shadow(&mut self, _position: Position, _rule: &'p Rule, _state: &State<'p, '_, S>) {
    }
    /// The rule at this position is finished. Not called for a rule that is off.
    fn after_rule(&mut self, _position: Position) {}
}

/// Observes the progress of an evaluation. Unlike the engine, it may read a clock.
pub trait Progress {
    /// Called before the first rule.
    fn before_rules(&mut self) {}
    /// The rule with this index in the document was evaluated. Shadow rules come after enforced ones; rules that are off are
    /// left out.
    fn after_rule(&mut self, _index: usize) {}
}

/// Observes nothing.
impl Progress for () {}

pub(super) struct ProgressObserver<'a, P>(pub(super) &'a mut P);

impl<S, P: Progress> Observer<'_, S> for ProgressObserver<'_, P> {
    fn before_rules(&mut self, _owners: &[u32], _repeated: &[u32]) {
        self.0.before_rules();
    }

    fn after_rule(&mut self, position: Position) {
        self.0.after_rule(position - (FIRST + 1));
    }
}

/// Evaluates a request, or fails with the error of `should_stop`, which is called regularly.
/// `per_cent` replaces the percentages of rollouts.
pub(super) fn evaluate<'p, S: AsRef<str>, E>(
    (policy, live): (&'p Policy, &'p LiveLists),
    request: &Request<'_, S>,
    per_cent: Option<u8>,
    observer: &mut impl Observer<'p, S>,
    should_stop: &mut dyn FnMut() -> Result<(), E>,
) -> Result<Evaluation, E> {
    let mut meter = Meter::new(should_stop);
    let hasher = IdHasher::get();
    let (friends, removed) = Friends::new(request.owner, request.friends, hasher, &mut meter)?;
    observer.before_rules(&removed.owners, &removed.repeated);
    let mut trail = Trail::default();
    trail.remove(FIRST, SELF, removed.owners, Matches::default());
    trail.remove(FIRST, DUPLICATE, removed.repeated, Matches::default());
    let mut state = State {
        policy,
        view: View::new(live, request.now),
        request: *request,
        per_cent,
        owner_hash: hasher.hash(request.owner),
        friends,
    };
    let refused = state.enforce(&mut trail, observer, &mut meter)?;
    let left = state.friends.take_remaining();
    // No rule after a refusal is evaluated, not even in shadow mode.
    let reached = refused
        .as_ref()
        .map_or(Position::MAX, |refused| refused.position);
    let shadow = state.shadow(reached, &trail, observer, &mut meter)?;
    trail.join(shadow);
    let verdict = match (refused, left) {
        (Some(refused), _) => trail.refuse(refused),
        (None, Remaining::All) => Verdict::Allow,
        (None, Remaining::Only(left)) if left.is_empty() => {
            trail.refuse(Refused::nobody_left(policy))
        }
        (None, Remaining::Only(left)) => Verdict::Modify(Kept::trusted(left)),
    };
    Ok(trail.decide((policy, live, request.now), verdict))
}

/// The state of a request between two rules.
pub(super) struct State<'p, 'r, S> {
    policy: &'p Policy,
    pub(super) view: View<'p>,
    pub(super) request: Request<'r, S>,
    /// Replaces the percentages of rollouts.
    pub(super) per_cent: Option<u8>,
    pub(super) owner_hash: IdHash,
    pub(super) friends: Friends<'r, S>,
}

impl<'p, S: AsRef<str>> State<'p, '_, S> {
    /// Evaluates the enforced rules up to the first refusal, which is returned.
    fn enforce<E>(
        &mut self,
        trail: &mut Trail<'p>,
        observer: &mut impl Observer<'p, S>,
        meter: &mut Meter<'_, E>,
    ) -> Result<Option<Refused<'p>>, E> {
        let mut unlimited = Budget::unlimited();
        for (position, rule) in self.policy.positions() {
            let effect = match self.applies(rule) {
                Applies::As(Mode::Shadow) => continue,
                Applies::As(Mode::Enforce) => self.effect(rule, &mut unlimited, meter)?,
                Applies::Outside => Effect::OutsideRollout,
                Applies::Off => Effect::Off,
            };
            observer.rule(position, rule, &effect, self);
            if matches!(effect, Effect::Nothing | Effect::Remove { .. })
                && let Some(fate) = self.shadow_hits(rule, meter)?
            {
                observer.lists_in_shadow(position, rule, self);
                trail.fire(position, &rule.id, Mode::Shadow, fate);
            }
            match effect {
                Effect::Refuse { refusal, fate } => {
                    observer.after_rule(position);
                    return Ok(Some(Refused {
                        position,
                        refusal,
                        fate,
                    }));
                }
                Effect::Remove {
                    friends,
                    matches,
                    failure,
                } => {
                    if let Some(why) = failure {
                        trail.fire(position, &rule.id, Mode::Enforce, Fate::Error(why));
                    }
                    self.friends.remove(&friends);
                    trail.remove(position, &rule.id, friends, matches);
                }
                Effect::Skip(why) => {
                    trail.fire(position, &rule.id, Mode::Enforce, Fate::Error(why));
                }
                Effect::Off => continue,
                Effect::OutsideRollout
                | Effect::NotWhen
                | Effect::Nothing
                | Effect::OverBudget(_) => {}
            }
            observer.after_rule(position);
        }
        Ok(None)
    }

    /// Evaluates the shadow rules before the position `reached`. The state is that before any rule; the removals in `enforced`
    /// are applied up to each rule's position.
    fn shadow<E>(
        &mut self,
        reached: Position,
        enforced: &Trail<'p>,
        observer: &mut impl Observer<'p, S>,
        meter: &mut Meter<'_, E>,
    ) -> Result<Trail<'p>, E> {
        let mut trail = Trail::default();
        let mut removed = enforced.removed().peekable();
        let mut budget = Budget::of(SHADOW_BUDGET);
        for (position, rule) in self
            .policy
            .positions()
            .take_while(|(position, _)| *position < reached)
        {
            if self.applies(rule) != Applies::As(Mode::Shadow) {
                continue;
            }
            while let Some((_, friends)) = removed.next_if(|(at, _)| *at < position) {
                self.friends.remove(friends);
            }
            let effect = self.effect(rule, &mut budget, meter)?;
            observer.rule(position, rule, &effect, self);
            for fate in shadow_fates(effect) {
                trail.fire(position, &rule.id, Mode::Shadow, fate);
            }
            observer.after_rule(position);
        }
        Ok(trail)
    }

    /// How a rule applies to the request's owner.
    pub(super) fn applies(&self, rule: &Rule) -> Applies {
        rule.applies(self.request.owner, self.per_cent)
    }

    fn effect<E>(
        &self,
        rule: &'p Rule,
        budget: &mut Budget,
        meter: &mut Meter<'_, E>,
    ) -> Result<Effect<'p>, E> {
        if let Some(when) = &rule.when {
            let units = when.cost().units(self.request.longest());
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

    /// The effect of a rule whose conditions hold.
    fn act<E>(&self, rule: &'p Rule, cost: Per, meter: &mut Meter<'_, E>) -> Result<Effect<'p>, E> {
        let longest = self.request.longest();
        let each = match cost {
            Per::Request(cost) => {
                meter.spend(cost.units(longest))?;
                cost
            }
            Per::Friend(cost) => cost,
        };
        let shadow = self.applies(rule) == Applies::As(Mode::Shadow);
        Ok(match &rule.action {
            Action::RefuseOwner(owners, refusal) => {
                let owner = self.request.owner;
                let part = owners.matching_as(shadow, owner, self.owner_hash, self.view);
                refuse(
                    part.map(|part| Matches::owner(part, owner, self.view)),
                    refusal,
                )
            }
            Action::RefuseOver(max, refusal) => {
                let left = self.friends.count();
                refuse((left > *max).then(|| Matches::limit(*max, left)), refusal)
            }
            Action::RefuseIf(expression, refusal) => {
                match expression.evaluate(&self.inputs(), None) {
                    Ok(holds) => {
                        let matches = || Matches::expression(expression.source());
                        refuse(holds.then(matches), refusal)
                    }
                    Err(why) => rule.failed(why),
                }
            }
            Action::DropFriends(matcher) => {
                let mut matches = Matches::default();
                let friends = self.friends.select(|index| {
                    let id = self.friends.id(index);
                    meter.spend(each.units(id.len()))?;
                    let hash = self.friends.hash(index);
                    let part = matcher.matching_as(shadow, id, hash, self.view);
                    if let Some(part) = part {
                        matches.add(part, (id, index), self.view);
                    }
                    Ok(part.is_some())
                })?;
                remove(friends, matches)
            }
            Action::KeepFirst(max) => {
                let removed = self.friends.after(*max);
                match removed.is_empty() {
                    true => Effect::Nothing,
                    false => remove(removed, Matches::limit(*max, self.friends.count())),
                }
            }
            Action::DropFriendIf(expression) => {
                let inputs = self.inputs();
                let mut matches = Matches::default();
                let mut failure = None;
                let friends = self.friends.select(|index| {
                    let id = self.friends.id(index);
                    meter.spend(each.units(id.len().max(longest)))?;
                    let holds = expression.evaluate(&inputs, Some(id));
                    let holds = holds.unwrap_or_else(|why| {
                        failure.get_or_insert(why);
                        false
                    });
                    if holds {
                        let part = Part::Expression(expression.source());
                        matches.add(part, (id, index), self.view);
                    }
                    Ok(holds)
                })?;
                match (failure, &rule.on_error) {
                    (None, _) => remove(friends, matches),
                    (Some(why), OnError::Skip) if !friends.is_empty() => Effect::Remove {
                        friends,
                        matches,
                        failure: Some(why),
                    },
                    (Some(why), _) => rule.failed(why),
                }
            }
        })
    }

    /// What an enforced rule would also do if lists in shadow mode took effect.
    fn shadow_hits<E>(
        &self,
        rule: &'p Rule,
        meter: &mut Meter<'_, E>,
    ) -> Result<Option<Fate<'p>>, E> {
        match &rule.action {
            Action::RefuseOwner(matcher, _) if matcher.has_shadow() => {
                let owner = self.request.owner;
                let part = matcher.only_in_shadow(owner, self.owner_hash, self.view);
                Ok(part.map(|part| Fate::Refuse(Matches::owner(part, owner, self.view))))
            }
            Action::DropFriends(matcher) if matcher.has_shadow() => {
                let cost = matcher.cost();
                let mut matches = Matches::default();
                let friends = self.friends.select(|index| {
                    let id = self.friends.id(index);
                    meter.spend(cost.units(id.len()))?;
                    let part = matcher.only_in_shadow(id, self.friends.hash(index), self.view);
                    if let Some(part) = part {
                        matches.add(part, (id, index), self.view);
                    }
                    Ok(part.is_some())
                })?;
                Ok((!friends.is_empty()).then_some(Fate::Remove(matches)))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        Inputs {
            owner: self.request.owner,
            operation_id: self.request.operation_id,
            friend_count: self.friends.count(),
            requested_count: self.request.friends.len(),
            now: self.request.now,
            lists: &self.policy.list_values,
            live: self.view.live(),
        }
    }

    fn size(&self) -> Size {
        Size {
            friends: self.friends.count(),
            friend_bytes: self.friends.bytes(),
            longest: self.request.longest(),
        }
    }
}

impl Policy {
    pub(super) fn positions(&self) -> impl Iterator<Item = (Position, &Rule)> {
        (FIRST + 1..).zip(&self.rules)
    }
}

/// The outcomes to report for a shadow rule.
fn shadow_fates(effect: Effect<'_>) -> impl Iterator<Item = Fate<'_>> {
    let (first, second) = match effect {
        Effect::Refuse { fate, .. } => (Some(fate), None),
        Effect::Remove {
            matches, failure, ..
        } => (failure.map(Fate::Error), Some(Fate::Remove(matches))),
        Effect::Skip(why) => (Some(Fate::Error(why)), None),
        Effect::OverBudget(_) => (Some(Fate::Skipped), None),
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
                fate: Fate::Error(why),
            },
        }
    }
}

fn refuse<'p>(matches: Option<Matches<'p>>, refusal: &'p Refusal) -> Effect<'p> {
    match matches {
        Some(matches) => Effect::Refuse {
            refusal,
            fate: Fate::Refuse(matches),
        },
        None => Effect::Nothing,
    }
}

fn remove<'p>(friends: Vec<u32>, matches: Matches<'p>) -> Effect<'p> {
    if friends.is_empty() {
        Effect::Nothing
    } else {
        Effect::Remove {
            friends,
            matches,
            failure: None,
        }
    }
}
