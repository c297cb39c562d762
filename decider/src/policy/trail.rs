//! What happened in an evaluation, in the order of the document.

use importguard_core::{Evaluation, FiredRule, Mode, Outcome, Refusal, Removal, Verdict};

use super::Policy;

/// A rule's place in the document: the built-in rules that come first have 0, and those of the policy follow from 1.
pub(super) type Place = usize;

/// The place of `self` and `duplicate`.
pub(super) const FIRST: Place = 0;
/// The place of `nobodyLeft`.
const LAST: Place = Place::MAX;

/// What happened so far. Rules in shadow come later than enforced ones, and are told at their places.
#[derive(Default)]
pub(super) struct Trail<'p> {
    fired: Vec<(Place, &'p str, Mode, Outcome)>,
    removed: Vec<(Place, &'p str, Vec<u32>)>,
}

impl<'p> Trail<'p> {
    /// A rule that acts removes friends, if there are any.
    pub(super) fn remove(&mut self, place: Place, rule: &'p str, friends: Vec<u32>) {
        if !friends.is_empty() {
            self.fire(place, rule, Mode::Enforce, Outcome::Remove);
            self.removed.push((place, rule, friends));
        }
    }

    pub(super) fn fire(&mut self, place: Place, id: &'p str, mode: Mode, outcome: Outcome) {
        self.fired.push((place, id, mode, outcome));
    }

    /// The friends that were removed, by place.
    pub(super) fn removed(&self) -> impl Iterator<Item = (Place, &[u32])> {
        let removed = self.removed.iter();
        removed.map(|(place, _, friends)| (*place, friends.as_slice()))
    }

    /// Adds what happened at other places.
    pub(super) fn join(&mut self, other: Self) {
        self.fired.extend(other.fired);
        self.removed.extend(other.removed);
    }

    /// Ends with the refusal of the rule at `place`; without a place it is `nobodyLeft`.
    pub(super) fn refuse(
        mut self,
        policy: &Policy,
        place: Option<Place>,
        refusal: &'p Refusal,
    ) -> Evaluation {
        let rule = refusal.rule.as_deref().unwrap_or_default();
        self.fire(place.unwrap_or(LAST), rule, Mode::Enforce, Outcome::Refuse);
        self.decide(policy, Verdict::Refuse(refusal.clone()))
    }

    pub(super) fn decide(mut self, policy: &Policy, verdict: Verdict) -> Evaluation {
        // Stable: what one rule did stays in its order.
        self.fired.sort_by_key(|(place, ..)| *place);
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
