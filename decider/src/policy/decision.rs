//! What an evaluation comes to.

/// The answer to one import, and how it came about. It borrows its names from the policy that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'p> {
    /// The answer.
    pub verdict: Verdict<'p>,
    /// The rules that fired, in the order in which they did; the built-in ones and those in shadow included.
    pub fired: Vec<Fired<'p>>,
    /// Who was removed by which rule, in the same order; by rules that act only. Filled for a refusal too: it tells what came before it.
    pub removed: Vec<Removal<'p>>,
}

/// The three answers to an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'p> {
    /// Import everybody who was asked for.
    Allow,
    /// Import nobody.
    Refuse(&'p Refusal),
    /// Import only the friends with these indexes into the request: at least one, ascending, without the owner and
    /// without a repeated id.
    Modify(Vec<u32>),
}

/// What OpenIM is told when an import is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule that refuses; `nobodyLeft` for the built-in one.
    pub rule: String,
    /// OpenIM's `errCode`.
    pub code: RefusalCode,
    /// OpenIM's `errMsg`; never empty.
    pub message: String,
    /// OpenIM's `errDlt`; may be empty.
    pub detail: String,
}

/// An `errCode` that a policy may give: 5000–9999, as OpenIM reserves for callbacks, without 5900–5999, which tell of
/// importguard's own failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalCode(i32);

impl RefusalCode {
    /// `code`, if a policy may give it.
    pub fn new(code: i64) -> Option<Self> {
        match code {
            5000..=5899 | 6000..=9999 => i32::try_from(code).ok().map(Self),
            _ => None,
        }
    }

    /// The number as OpenIM gets it.
    pub fn get(self) -> i32 {
        self.0
    }

    /// For `nobodyLeft`, where a policy does not say otherwise.
    pub(super) const NOBODY_LEFT: Self = Self(5002);
}

/// A rule that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired<'p> {
    /// The rule's id.
    pub id: &'p str,
    /// Whether it acted.
    pub mode: Mode,
    /// What it did.
    pub outcome: Outcome,
}

/// Whether a rule acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It acts.
    Enforce,
    /// It is evaluated and reported, and changes nothing.
    Shadow,
}

/// What a rule that fired did; a rule in shadow, what it would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It refused the import.
    Refuse,
    /// It removed friends.
    Remove,
    /// An expression of it failed, and by its `onError` it was skipped: `dropFriendIf` for the friends for whom it
    /// failed, every other rule altogether.
    Error,
}

/// Whom a rule removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal<'p> {
    /// The rule's id.
    pub rule: &'p str,
    /// Ascending indexes into the request's friends; at least one.
    pub friends: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_may_give_openims_codes_without_importguards_own() {
        for good in [5000, 5002, 5899, 6000, 9999] {
            assert_eq!(
                RefusalCode::new(good).map(RefusalCode::get).map(i64::from),
                Some(good)
            );
        }
        for bad in [i64::MIN, -5000, 0, 4999, 5900, 5999, 10_000, i64::MAX] {
            assert_eq!(RefusalCode::new(bad), None, "{bad}");
        }
    }
}
