//! The effects of an evaluation, in document order.

use importguard_core::{Evaluation, FiredRule, Mode, Outcome, Refusal, Removal, Verdict};

use super::Policy;

/// A rule's position in the document: 0 for the built-in rules at the start, from 1 for those of the policy.
pub(super) type Position = usize;

/// The position of `self` and `duplicate`.
pub(super) const FIRST: Position = 0;
/// The position of `nobodyLeft`.
const LAST: Position = Position::MAX;

/// The effects so far. Shadow rules are evaluated after enforced ones and are sorted into their positions.
#[derive(Default)]
pub(super) struct Trail<'p> {
    fired: Vec<(Position, &'p str, Mode, Outcome)>,
    removed: Vec<(Position, &'p str, Vec<u32>)>,
}

impl<'p> Trail<'p> {
    /// Records that an enforced rule removed friends, if there are any.
    pub(super) fn remove(&mut self, position: Position, rule: &'p str, friends: Vec<u32>) {
        if !friends.is_empty() {
            self.fire(position, rule, Mode::Enforce, Outcome::Remove);
            self.removed.push((position, rule, friends));
        }
    }

    pub(super) fn fire(&mut self, position: Position, id: &'p str, mode: Mode, outcome: Outcome) {
        self.fired.push((position, id, mode, outcome));
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

    /// Ends with the refusal of the rule at `position`, or with `nobodyLeft` if there is none.
    pub(super) fn refuse(
        mut self,
        policy: &Policy,
        position: Option<Position>,
        refusal: &'p Refusal,
    ) -> Evaluation {
        let rule = refusal.rule.as_deref().unwrap_or_default();
        self.fire(
            position.unwrap_or(LAST),
            rule,
            Mode::Enforce,
            Outcome::Refuse,
        );
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
                .map(|(_, id, mode, outcome)| FiredRule {
                    id: id.to_owned(),
                    mode,
                    outcome,
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
