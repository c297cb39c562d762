//! Compiled rules.

use std::sync::Arc;

use importguard_core::{Mode, Refusal};
use sha2::{Digest, Sha256};

use super::{expression::Expression, matcher::Matcher};

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) description: Option<String>,
    /// `None` if the rule is off.
    pub(super) mode: Option<Mode>,
    pub(super) rollout: Option<Rollout>,
    pub(super) when: Option<Expression>,
    pub(super) on_error: OnError,
    pub(super) action: Action,
}

#[derive(Debug)]
pub(super) enum Action {
    RefuseOwner(Matcher, Arc<Refusal>),
    DropFriends(Matcher),
    KeepFirst(usize),
    RefuseOver(usize, Arc<Refusal>),
    RefuseIf(Expression, Arc<Refusal>),
    DropFriendIf(Expression),
}

/// What happens when an expression fails.
#[derive(Debug)]
pub(super) enum OnError {
    Skip,
    Refuse(Arc<Refusal>),
}

/// The percentage of owners that a rule applies to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rollout {
    pub(super) per_cent: u8,
    /// Whether the rule is in shadow mode for the other owners; otherwise it is off for them.
    pub(super) shadow: bool,
}

impl Rollout {
    fn includes(self, rule: &str, owner: &str) -> bool {
        // Only other percentages need a hash.
        match self.per_cent {
            0 => false,
            100.. => true,
            per_cent => bucket(rule, owner) < per_cent,
        }
    }
}

/// How a rule applies to an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applies {
    As(Mode),
    /// It is off.
    Off,
    /// The owner is outside its rollout.
    Outside,
}

/// The bucket (0–99) of an owner for a rule: the first eight bytes of the SHA-256 of rule ID, line feed and owner, as a
/// big-endian integer, modulo 100. It never changes, so that an owner stays included when the percentage rises; it contains
/// the rule ID so that rollouts of different rules select different owners.
pub(super) fn bucket(rule: &str, owner: &str) -> u8 {
    let hash = Sha256::new()
        .chain_update(rule)
        .chain_update("\n")
        .chain_update(owner)
        .finalize();
    let number = hash
        .iter()
        .take(8)
        .fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    // The remainder is below 100, so it fits.
    (number % 100) as u8
}

impl Rule {
    /// How it applies to `owner`. `per_cent` replaces the percentage of a rollout.
    pub(super) fn applies(&self, owner: &str, per_cent: Option<u8>) -> Applies {
        let Some(mode) = self.mode else {
            return Applies::Off;
        };
        match self.rollout(per_cent) {
            Some(rollout) if !rollout.includes(&self.id, owner) => match rollout.shadow {
                true => Applies::As(Mode::Shadow),
                false => Applies::Outside,
            },
            _ => Applies::As(mode),
        }
    }

    /// Its rollout, with the percentage replaced if `per_cent` is set.
    pub(super) fn rollout(&self, per_cent: Option<u8>) -> Option<Rollout> {
        let rollout = self.rollout?;
        Some(Rollout {
            per_cent: per_cent.unwrap_or(rollout.per_cent),
            ..rollout
        })
    }

    /// Whether it refers to `list`.
    pub(super) fn uses(&self, list: &str) -> bool {
        let in_action = match &self.action {
            Action::RefuseIf(expression, _) | Action::DropFriendIf(expression) => {
                expression.uses(list)
            }
            _ => self.matcher().is_some_and(|matcher| matcher.uses(list)),
        };
        in_action || self.when.as_ref().is_some_and(|when| when.uses(list))
    }

    /// Its matcher, if its action has one.
    pub(super) const fn matcher(&self) -> Option<&Matcher> {
        match &self.action {
            Action::RefuseOwner(matcher, _) | Action::DropFriends(matcher) => Some(matcher),
            _ => None,
        }
    }

    /// Whether it is enforced for any owner.
    pub(super) fn is_enforced(&self) -> bool {
        let any = self.rollout.is_none_or(|rollout| rollout.per_cent > 0);
        self.mode == Some(Mode::Enforce) && any
    }

    /// Whether it is enforced for every owner.
    pub(super) fn is_enforced_for_all(&self) -> bool {
        let all = self.rollout.is_none_or(|rollout| rollout.per_cent >= 100);
        self.mode == Some(Mode::Enforce) && all
    }

    /// Whether this rule refuses every request.
    pub(super) fn refuses_everything(&self) -> bool {
        let always = match &self.action {
            Action::RefuseIf(expression, _) => expression.constant == Some(true),
            _ => false,
        };
        let unconditional = self
            .when
            .as_ref()
            .is_none_or(|when| when.constant == Some(true));
        always && unconditional && self.is_enforced_for_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'big-import\nuser123' | sha256sum | cut -c1-16`, as a number modulo 100. If this fails, owners have moved
    /// between rollouts: do not change the expectation.
    #[test]
    fn an_owners_bucket_never_changes() {
        assert_eq!(bucket("big-import", "user123"), BIG_IMPORT_USER123);
    }

    const BIG_IMPORT_USER123: u8 = 79;

    #[test]
    fn a_rollout_takes_about_its_share_of_owners() {
        for per_cent in [1, 25, 50, 99] {
            let rollout = Rollout {
                per_cent,
                shadow: false,
            };
            let owners = (0..20_000).map(|n| format!("user{n}"));
            let included = owners
                .filter(|owner| rollout.includes("rule", owner))
                .count();
            let expected = 200 * usize::from(per_cent);
            assert!(
                included.abs_diff(expected) < 300,
                "{per_cent}: {included} of 20,000"
            );
        }
    }
}
