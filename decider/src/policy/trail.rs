//! The effects of an evaluation, in document order.

use importguard_core::{Evaluation, FiredRule, Mode, Outcome, Refusal, Removal, Verdict};

use super::Policy;

/// A rule's position in the document: 0 for the built-in rules at the start, from 1 for those of the policy.
pub(super) type Position = usize;

/// The position of `self` and `duplicate`.
pub(super) const FIRST: Position = 0;
/// The position of `nobodyLeft`.
const LAST: Position = Position::MAX;

/// A rule that fired: its position, ID and mode, and its outcome.
type Fired<'p> = (Position, &'p str, Mode, Fate);

/// The outcome of a rule, and the reason of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Refuse,
    Remove,
    /// Its expression failed, for this reason.
    Error(String),
    Skipped,
}

impl Fate {
    fn into_parts(self) -> (Outcome, Option<String>) {
        match self {
            Self::Refuse => (Outcome::Refuse, None),
            Self::Remove => (Outcome::Remove, None),
            Self::Error(why) => (Outcome::Error, Some(why)),
            Self::Skipped => (Outcome::Skipped, None),
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
    /// The error of the rule's expression, if that is why it refuses.
    pub(super) failure: Option<String>,
}

impl<'p> Refused<'p> {
    /// By `nobodyLeft`.
    pub(super) fn nobody_left(policy: &'p Policy) -> Self {
        Self {
            position: LAST,
            refusal: &policy.nobody_left,
            failure: None,
        }
    }
}

impl<'p> Trail<'p> {
    /// Records that an enforced rule removed friends, if there are any.
    pub(super) fn remove(&mut self, position: Position, rule: &'p str, friends: Vec<u32>) {
        if !friends.is_empty() {
            self.fire(position, rule, Mode::Enforce, Fate::Remove);
            self.removed.push((position, rule, friends));
        }
    }

    pub(super) fn fire(&mut self, position: Position, id: &'p str, mode: Mode, fate: Fate) {
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

    /// Ends with the refusal of a rule.
    pub(super) fn refuse(mut self, policy: &Policy, refused: Refused<'p>) -> Evaluation {
        let Refused {
            position,
            refusal,
            failure,
        } = refused;
        let rule = refusal.rule.as_deref().unwrap_or_default();
        let fate = failure.map_or(Fate::Refuse, Fate::Error);
        self.fire(position, rule, Mode::Enforce, fate);
        self.decide(policy, Verdict::Refuse(refusal.clone()))
    }

    pub(super) fn decide(mut self, policy: &Policy, verdict: Verdict) -> Evaluation {
        // Stable: the effects of one rule keep their order.
        self.fired.sort_by_key(|(position, ..)| *position);
        let fired = self.fired.into_iter();
        let removed = self.removed.into_iter();
        Evaluation {
            verdict,
            rules: fired
                .map(|(_, id, mode, fate)| {
                    let (outcome, reason) = fate.into_parts();
                    FiredRule {
                        id: id.to_owned(),
                        mode,
                        outcome,
                        reason,
                    }
                })
                .collect(),
            removed: removed
                .map(|(_, rule, friends)| Removal {
                    rule: rule.to_owned(),
                    friends,
                })
                .collect(),
            policy: policy.revision.clone(),
            lists: policy.lists().cloned().collect(),
        }
    }
}
