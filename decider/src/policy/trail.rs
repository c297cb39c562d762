//! The effects of an evaluation, in document order.

use std::time::SystemTime;

use importguard_core::{Evaluation, FiredRule, Mode, Outcome, Refusal, Removal, Verdict};

use super::{
    Policy,
    matches::{Matches, Room},
};

use crate::lists::live::LiveLists;

/// A rule's position in the document: 0 for the built-in rules at the start, from 1 for those of the policy.
pub(super) type Position = usize;

/// The position of `self` and `duplicate`.
pub(super) const FIRST: Position = 0;
/// The position of `nobodyLeft`.
const LAST: Position = Position::MAX;

/// A rule that fired: its position, ID and mode, and its outcome.
type Fired<'p> = (Position, &'p str, Mode, Fate<'p>);

/// The outcome of a rule, and what made it act or fail.
#[derive(Debug)]
pub(super) enum Fate<'p> {
    Refuse(Matches<'p>),
    Remove(Matches<'p>),
    /// Its expression failed, for this reason.
    Error(String),
    Skipped,
}

impl Fate<'_> {
    fn fired(self, id: &str, mode: Mode, room: &mut Room) -> FiredRule {
        let (outcome, reason, matches) = match self {
            Self::Refuse(matches) => (Outcome::Refuse, None, matches),
            Self::Remove(matches) => (Outcome::Remove, None, matches),
            Self::Error(why) => (Outcome::Error, Some(why), Matches::default()),
            Self::Skipped => (Outcome::Skipped, None, Matches::default()),
        };
        let (matched, unlisted) = room.list(matches);
        FiredRule {
            id: id.to_owned(),
            mode,
            outcome,
            reason,
            matched,
            unlisted,
        }
    }
}

/// The effects so far. Shadow rules are evaluated after enforced ones and are sorted into their positions.
#[derive(Default)]
pub(super) struct Trail<'p> {
    fired: Vec<Fired<'p>>,
    removed: Vec<(Position, &'p str, Vec<u32>)>,
}

/// The refusal that ends an evaluation.
pub(super) struct Refused<'p> {
    /// The position of its rule.
    pub(super) position: Position,
    pub(super) refusal: &'p Refusal,
    /// The outcome to report for its rule.
    pub(super) fate: Fate<'p>,
}

impl<'p> Refused<'p> {
    /// The refusal by `nobodyLeft`.
    pub(super) fn nobody_left(policy: &'p Policy) -> Self {
        Self {
            position: LAST,
            refusal: &policy.nobody_left,
            fate: Fate::Refuse(Matches::default()),
        }
    }
}

impl<'p> Trail<'p> {
    /// Records that an enforced rule removed friends, if there are any.
    pub(super) fn remove(
        &mut self,
        position: Position,
        rule: &'p str,
        friends: Vec<u32>,
        matches: Matches<'p>,
    ) {
        if !friends.is_empty() {
            self.fire(position, rule, Mode::Enforce, Fate::Remove(matches));
            self.removed.push((position, rule, friends));
        }
    }

    pub(super) fn fire(&mut self, position: Position, id: &'p str, mode: Mode, fate: Fate<'p>) {
        self.fired.push((position, id, mode, fate));
    }

    /// The removed friends, by position.
    pub(super) fn removed(&self) -> impl Iterator<Item = (Position, &[u32])> {
        let removed = self.removed.iter();
        removed.map(|(position, _, friends)| (*position, friends.as_slice()))
    }

    /// Adds the effects at other positions.
    pub(super) fn join(&mut self, other: Self) {
        self.fired.extend(other.fired);
        self.removed.extend(other.removed);
    }

    /// Records a rule's refusal, and returns it as the verdict.
    pub(super) fn refuse(&mut self, refused: Refused<'p>) -> Verdict {
        let Refused {
            position,
            refusal,
            fate,
        } = refused;
        let rule = refusal.rule.as_deref().unwrap_or_default();
        self.fire(position, rule, Mode::Enforce, fate);
        Verdict::Refuse(refusal.clone())
    }

    /// Ends the evaluation.
    pub(super) fn decide(
        mut self,
        (policy, live, at): (&Policy, &LiveLists, SystemTime),
        verdict: Verdict,
    ) -> Evaluation {
        // Stable: the effects of one rule keep their order.
        self.fired.sort_by_key(|(position, ..)| *position);
        let mut room = Room::default();
        let fired = self.fired.into_iter();
        let removed = self.removed.into_iter();
        Evaluation {
            verdict,
            rules: fired
                .map(|(_, id, mode, fate)| fate.fired(id, mode, &mut room))
                .collect(),
            removed: removed
                .map(|(_, rule, friends)| Removal {
                    rule: rule.to_owned(),
                    friends,
                })
                .collect(),
            policy: policy.revision.clone(),
            lists: policy
                .lists
                .iter()
                .map(|list| list.revision_with(live))
                .collect(),
            at,
        }
    }
}
