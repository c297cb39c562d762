//! From a request to a decision. One hash for each friend serves every look-up, and nothing is allocated for a rule
//! that does not fire.

use crate::lists::{IdHash, IdHasher};

use super::decision::{Decision, Fired, Mode, Outcome, Refusal, Removal, Verdict};
use super::expression::Inputs;
use super::friends::{Friends, Kept};
use super::read::{DUPLICATE, SELF};
use super::rule::{Action, OnError, Rule};
use super::{Policy, Request};

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
}

/// Watches an evaluation: gets each rule that is come to, what became of it, and the state in which it found the
/// request.
pub(super) trait Observer<'p, S> {
    fn before_rules(&mut self, _owners: &[u32], _repeated: &[u32]) {}
    fn rule(&mut self, _rule: &'p Rule, _effect: &Effect<'p>, _state: &State<'p, '_, S>) {}
}

/// Watches nothing, at no cost.
pub(super) struct Nobody;

impl<S> Observer<'_, S> for Nobody {}

pub(super) fn evaluate<'p, S: AsRef<str>>(
    policy: &'p Policy,
    request: &Request<'_, S>,
    observer: &mut impl Observer<'p, S>,
) -> Decision<'p> {
    let hasher = IdHasher::get();
    let (friends, unusable) = Friends::new(request.owner, request.friends, hasher);
    observer.before_rules(&unusable.owners, &unusable.repeated);
    let mut trail = Trail::default();
    trail.remove(SELF, unusable.owners);
    trail.remove(DUPLICATE, unusable.repeated);
    let mut state = State {
        policy,
        request: *request,
        owner_hash: hasher.hash(request.owner),
        friends,
    };
    for rule in &policy.rules {
        let effect = state.effect(rule);
        observer.rule(rule, &effect, &state);
        let Some(mode) = rule.mode else { continue };
        match (effect, mode) {
            (Effect::Refuse { refusal, .. }, Mode::Enforce) => return trail.refuse(refusal),
            (Effect::Refuse { .. }, Mode::Shadow) => trail.fire(&rule.id, mode, Outcome::Refuse),
            (Effect::Remove { friends, failure }, mode) => {
                if failure.is_some() {
                    trail.fire(&rule.id, mode, Outcome::Error);
                }
                if mode == Mode::Shadow {
                    trail.fire(&rule.id, mode, Outcome::Remove);
                } else {
                    state.friends.remove(&friends);
                    trail.remove(&rule.id, friends);
                }
            }
            (Effect::Skip(_), mode) => trail.fire(&rule.id, mode, Outcome::Error),
            (Effect::Off | Effect::OutsideRollout | Effect::NotWhen | Effect::Nothing, _) => {}
        }
    }
    match state.friends.into_kept() {
        Kept::All => trail.decide(Verdict::Allow),
        Kept::These(kept) if kept.is_empty() => trail.refuse(&policy.nobody_left),
        Kept::These(kept) => trail.decide(Verdict::Modify(kept)),
    }
}

/// A request part of the way through the rules.
pub(super) struct State<'p, 'r, S> {
    policy: &'p Policy,
    pub(super) request: Request<'r, S>,
    pub(super) owner_hash: IdHash,
    pub(super) friends: Friends<'r, S>,
}

impl<'p, S: AsRef<str>> State<'p, '_, S> {
    fn effect(&self, rule: &'p Rule) -> Effect<'p> {
        if rule.mode.is_none() {
            return Effect::Off;
        }
        let owner = self.request.owner;
        if rule
            .rollout
            .is_some_and(|rollout| !rollout.includes(&rule.id, owner))
        {
            return Effect::OutsideRollout;
        }
        match rule
            .when
            .as_ref()
            .map(|when| when.evaluate(&self.inputs(), None))
        {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => return Effect::NotWhen,
            Some(Err(why)) => return rule.failed(why),
        }
        match &rule.action {
            Action::RefuseOwner(owners, refusal) => {
                refuse(owners.matches(owner, self.owner_hash), refusal)
            }
            Action::RefuseOver(max, refusal) => refuse(self.friends.count() > *max, refusal),
            Action::RefuseIf(expression, refusal) => {
                match expression.evaluate(&self.inputs(), None) {
                    Ok(holds) => refuse(holds, refusal),
                    Err(why) => rule.failed(why),
                }
            }
            Action::DropFriends(matcher) => {
                remove(self.friends.select(|index| {
                    matcher.matches(self.friends.id(index), self.friends.hash(index))
                }))
            }
            Action::KeepFirst(max) => remove(self.friends.after(*max)),
            Action::DropFriendIf(expression) => {
                let inputs = self.inputs();
                let mut failure = None;
                let friends = self.friends.select(|index| {
                    match expression.evaluate(&inputs, Some(self.friends.id(index))) {
                        Ok(holds) => holds,
                        Err(why) => {
                            failure.get_or_insert(why);
                            false
                        }
                    }
                });
                match (failure, &rule.on_error) {
                    (None, _) => remove(friends),
                    (Some(why), OnError::Skip) if !friends.is_empty() => Effect::Remove {
                        friends,
                        failure: Some(why),
                    },
                    (Some(why), _) => rule.failed(why),
                }
            }
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
        }
    }
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

/// What happened so far.
#[derive(Default)]
struct Trail<'p> {
    fired: Vec<Fired<'p>>,
    removed: Vec<Removal<'p>>,
}

impl<'p> Trail<'p> {
    fn remove(&mut self, rule: &'p str, friends: Vec<u32>) {
        if !friends.is_empty() {
            self.fire(rule, Mode::Enforce, Outcome::Remove);
            self.removed.push(Removal { rule, friends });
        }
    }

    fn refuse(mut self, refusal: &'p Refusal) -> Decision<'p> {
        self.fire(&refusal.rule, Mode::Enforce, Outcome::Refuse);
        self.decide(Verdict::Refuse(refusal))
    }

    fn fire(&mut self, id: &'p str, mode: Mode, outcome: Outcome) {
        self.fired.push(Fired { id, mode, outcome });
    }

    fn decide(self, verdict: Verdict<'p>) -> Decision<'p> {
        Decision {
            verdict,
            fired: self.fired,
            removed: self.removed,
        }
    }
}
