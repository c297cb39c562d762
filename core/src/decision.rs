//! What is answered to an import, and who decided it.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{FiredRule, ImportRequest, ListRevision, PolicyRevision, Removal, UserId};

/// What was decided about one import, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A decider evaluated the operator's policy.
    Policy {
        /// What that came to.
        evaluation: Evaluation,
        /// Which decider it was.
        decider: String,
    },
    /// No policy could decide, and the operator's setting for the cause did.
    Fallback {
        /// The answer.
        verdict: Verdict,
        /// Why no policy could decide.
        cause: Cause,
    },
}

impl Decision {
    /// The answer.
    pub fn verdict(&self) -> &Verdict {
        match self {
            Self::Policy { evaluation, .. } => &evaluation.verdict,
            Self::Fallback { verdict, .. } => verdict,
        }
    }

    /// Who decided.
    pub fn decided_by(&self) -> DecidedBy {
        match self {
            Self::Policy { .. } => DecidedBy::Policy,
            Self::Fallback { .. } => DecidedBy::Fallback,
        }
    }

    /// Why no policy could decide, if none could.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Policy { .. } => None,
            Self::Fallback { cause, .. } => Some(*cause),
        }
    }

    /// What the policy made of the import, if one could decide.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        match self {
            Self::Policy { evaluation, .. } => Some(evaluation),
            Self::Fallback { .. } => None,
        }
    }

    /// Which decider decided, if one did.
    pub fn decider(&self) -> Option<&str> {
        match self {
            Self::Policy { decider, .. } => Some(decider),
            Self::Fallback { .. } => None,
        }
    }
}

/// What a policy makes of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The answer.
    pub verdict: Verdict,
    /// The rules that fired, in order, shadow rules included.
    pub rules: Vec<FiredRule>,
    /// The friends that each rule removed, in the same order. Filled for a refusal too: it tells what came before it.
    pub removed: Vec<Removal>,
    /// The policy.
    pub policy: PolicyRevision,
    /// The lists that it held.
    pub lists: Vec<ListRevision>,
}

/// The answer to an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Import everybody.
    Allow,
    /// Import nobody.
    Refuse(Refusal),
    /// Import only these.
    Modify(Kept),
}

impl Verdict {
    /// Which of the three it is.
    pub const fn kind(&self) -> VerdictKind {
        match self {
            Self::Allow => VerdictKind::Allow,
            Self::Refuse(_) => VerdictKind::Refuse,
            Self::Modify(_) => VerdictKind::Modify,
        }
    }
}

/// The three answers to an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Verdict"))]
#[serde(rename_all = "camelCase")]
pub enum VerdictKind {
    /// Import everybody.
    Allow,
    /// Import nobody.
    Refuse,
    /// Import those that are left.
    Modify,
}

impl VerdictKind {
    /// Every one, in their order.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Refuse, Self::Modify];

    /// Its name in events, logs, spans and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
            Self::Modify => "modify",
        }
    }
}

impl AsRef<str> for VerdictKind {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// What OpenIM is told when an import is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refusal {
    /// The rule that refused; absent for a fallback.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// OpenIM's `errCode`.
    pub code: i32,
    /// OpenIM's `errMsg`.
    pub message: String,
    /// OpenIM's `errDlt`.
    pub detail: String,
}

/// The friends of a request that are left: at least one and not all, as ascending indexes, without repetitions or the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept(Vec<u32>);

/// Why a list of indexes does not say which friends are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKept {
    /// OpenIM reads an empty list as "import everybody".
    #[error("its modified list is empty, which OpenIM reads as importing everybody")]
    Empty,
    /// Nobody is removed.
    #[error("its modified list is not shorter than the request's")]
    NotShorter,
    /// The indexes do not ascend, or lie outside the request.
    #[error("its modified list is not a subset of the request's in its order")]
    NoSubset,
    /// Somebody would be imported who must not be.
    #[error("its modified list holds the owner or a repetition")]
    OwnerOrRepetition,
}

impl Kept {
    /// The friends of `request` with these indexes.
    pub fn of(indexes: Vec<u32>, request: &ImportRequest) -> Result<Self, InvalidKept> {
        let friends = &request.friends;
        if indexes.is_empty() {
            return Err(InvalidKept::Empty);
        }
        if indexes.len() >= friends.len() {
            return Err(InvalidKept::NotShorter);
        }
        if !indexes.is_sorted_by(|a, b| a < b) {
            return Err(InvalidKept::NoSubset);
        }
        let mut seen: HashSet<&UserId> = HashSet::with_capacity(indexes.len());
        for &index in &indexes {
            let friend = friends.get(index as usize).ok_or(InvalidKept::NoSubset)?;
            if *friend == request.owner || !seen.insert(friend) {
                return Err(InvalidKept::OwnerOrRepetition);
            }
        }
        Ok(Self(indexes))
    }

    /// The friends with these indexes, where whoever made the list made sure of what [`Kept::of`] checks. Whoever receives it
    /// from another process checks it again.
    pub fn trusted(indexes: Vec<u32>) -> Self {
        Self(indexes)
    }

    /// Indexes into the request's friends.
    pub fn indexes(&self) -> &[u32] {
        &self.0
    }

    /// The same, to keep.
    pub fn into_indexes(self) -> Vec<u32> {
        self.0
    }
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum DecidedBy {
    /// A decider, by the operator's policy.
    Policy,
    /// The gateway, by the operator's setting for a cause.
    Fallback,
}

/// Why no policy could decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// No decider could be reached.
    DeciderUnavailable,
    /// No decider answered in time.
    DeciderTimeout,
    /// A decider answered with an error, or with something that is no verdict.
    DeciderFailed,
    /// The gateway had too much to do.
    Overloaded,
    /// Neither NATS nor the spool took the decision's event.
    Unrecordable,
}

impl Cause {
    /// Every one, in their order.
    pub const ALL: [Self; 5] = [
        Self::DeciderUnavailable,
        Self::DeciderTimeout,
        Self::DeciderFailed,
        Self::Overloaded,
        Self::Unrecordable,
    ];

    /// Its name in events, logs, spans and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeciderUnavailable => "deciderUnavailable",
            Self::DeciderTimeout => "deciderTimeout",
            Self::DeciderFailed => "deciderFailed",
            Self::Overloaded => "overloaded",
            Self::Unrecordable => "unrecordable",
        }
    }
}

impl AsRef<str> for Cause {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OperationId;

    fn kept(friends: &[&str], indexes: &[u32]) -> Result<Kept, InvalidKept> {
        let id = |id: &&str| UserId::parse(*id).unwrap();
        let request = ImportRequest {
            operation_id: OperationId::parse("1").unwrap(),
            owner: id(&"owner"),
            friends: friends.iter().map(id).collect(),
        };
        Kept::of(indexes.to_vec(), &request)
    }

    #[test]
    fn a_subset_in_order_is_kept() {
        let kept = kept(&["a", "b", "a", "c"], &[1, 3]).unwrap();
        assert_eq!(kept.indexes(), [1, 3]);
    }

    #[test]
    fn any_other_list_is_refused() {
        let friends = ["a", "b", "a", "owner", "c"];
        for (indexes, why) in [
            (&[][..], InvalidKept::Empty),
            (&[0, 1, 2, 3, 4], InvalidKept::NotShorter),
            (&[5], InvalidKept::NoSubset),
            (&[4, 1], InvalidKept::NoSubset),
            (&[1, 1], InvalidKept::NoSubset),
            (&[0, 2], InvalidKept::OwnerOrRepetition),
            (&[3], InvalidKept::OwnerOrRepetition),
        ] {
            assert_eq!(kept(&friends, indexes), Err(why), "{indexes:?}");
        }
    }
}
