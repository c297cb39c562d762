//! An import request, and the decision on it: its verdict, and what led to it.

use std::{collections::HashSet, time::SystemTime};

use serde::{Deserialize, Serialize};

use strum::{AsRefStr, EnumIter, IntoStaticStr};

use crate::{FiredRule, ListRevision, OperationId, PolicyRevision, Removal, UserId};

/// A request to import friends for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportRequest {
    /// OpenIM's ID of the whole operation.
    pub operation_id: OperationId,
    /// The user who imports: OpenIM's `ownerUserID`.
    pub owner: UserId,
    /// The friends to import, as sent: OpenIM's `friendUserIDs`. May contain the owner and duplicates.
    pub friends: Vec<UserId>,
}

/// The two formats of OpenIM's callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum Dialect {
    /// The format in OpenIM's documentation.
    Documented,
    /// The format of every open-im-server since 3.5.0.
    Server,
}

impl Dialect {
    /// Its name in events and spans.
    pub fn into_str(self) -> &'static str {
        self.into()
    }
}

/// The decision on one import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A decider evaluated the operator's policy.
    Policy {
        /// The result.
        evaluation: Evaluation,
        /// The decider's instance name.
        decider: String,
    },
    /// No policy decision could be obtained; the operator's setting for the cause decided.
    Fallback {
        /// The verdict.
        verdict: Verdict,
        /// Why there is no policy decision.
        cause: Cause,
    },
}

impl Decision {
    /// The verdict.
    pub fn verdict(&self) -> &Verdict {
        match self {
            Self::Policy { evaluation, .. } => &evaluation.verdict,
            Self::Fallback { verdict, .. } => verdict,
        }
    }

    /// Whether the policy or a fallback decided.
    pub fn decided_by(&self) -> DecidedBy {
        match self {
            Self::Policy { .. } => DecidedBy::Policy,
            Self::Fallback { .. } => DecidedBy::Fallback,
        }
    }

    /// The cause of a fallback.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Policy { .. } => None,
            Self::Fallback { cause, .. } => Some(*cause),
        }
    }

    /// The policy's evaluation, unless this is a fallback.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        match self {
            Self::Policy { evaluation, .. } => Some(evaluation),
            Self::Fallback { .. } => None,
        }
    }

    /// The instance name of the decider, unless this is a fallback.
    pub fn decider(&self) -> Option<&str> {
        match self {
            Self::Policy { decider, .. } => Some(decider),
            Self::Fallback { .. } => None,
        }
    }
}

/// The result of evaluating a policy for an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The verdict.
    pub verdict: Verdict,
    /// The rules that fired, in order, shadow rules included.
    pub rules: Vec<FiredRule>,
    /// The friends that each rule removed, in the same order. For a refusal, those removed before it.
    pub removed: Vec<Removal>,
    /// The policy.
    pub policy: PolicyRevision,
    /// The lists in the policy.
    pub lists: Vec<ListRevision>,
    /// The time that the rules saw, on which expressions and the ends of entries depend. Whole microseconds.
    pub at: SystemTime,
}

/// The verdict on an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Import all friends.
    Allow,
    /// Import none.
    Refuse(Refusal),
    /// Import only these.
    Modify(Kept),
}

impl Verdict {
    /// The kind of verdict.
    pub const fn kind(&self) -> VerdictKind {
        match self {
            Self::Allow => VerdictKind::Allow,
            Self::Refuse(_) => VerdictKind::Refuse,
            Self::Modify(_) => VerdictKind::Modify,
        }
    }
}

/// The three kinds of verdict.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    IntoStaticStr,
    AsRefStr,
    EnumIter,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Verdict"))]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum VerdictKind {
    /// Import all friends.
    Allow,
    /// Import none.
    Refuse,
    /// Import only the friends that are left.
    Modify,
}

impl VerdictKind {
    /// Its name in events, logs, spans and metrics.
    pub fn into_str(self) -> &'static str {
        self.into()
    }
}

/// What OpenIM receives when an import is refused.
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

/// The friends of a request that remain, as ascending indexes: at least one and not all, without duplicates or the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept(Vec<u32>);

/// A list of indexes that cannot be a modified friend list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// OpenIM reads an empty list as consent to import all friends.
    #[error("its modified list is empty, which OpenIM would treat as importing all friends")]
    Empty,
    /// No friend is removed.
    #[error("its modified list is not shorter than the request's")]
    NotShorter,
    /// The indexes do not ascend, or lie outside the request.
    #[error("its modified list is not a subset of the request's list in the same order")]
    NoSubset,
    /// The list would import the owner, or a friend twice.
    #[error("its modified list contains the owner or a duplicate")]
    OwnerOrDuplicate,
}

impl Kept {
    /// Validates `indexes` as the remaining friends of `request`.
    pub fn of(indexes: Vec<u32>, request: &ImportRequest) -> Result<Self, KeptError> {
        let friends = &request.friends;
        if indexes.is_empty() {
            return Err(KeptError::Empty);
        }
        if indexes.len() >= friends.len() {
            return Err(KeptError::NotShorter);
        }
        if !indexes.is_sorted_by(|a, b| a < b) {
            return Err(KeptError::NoSubset);
        }
        let mut seen: HashSet<&UserId> = HashSet::with_capacity(indexes.len());
        for &index in &indexes {
            let friend = friends.get(index as usize).ok_or(KeptError::NoSubset)?;
            if *friend == request.owner || !seen.insert(friend) {
                return Err(KeptError::OwnerOrDuplicate);
            }
        }
        Ok(Self(indexes))
    }

    /// Wraps `indexes` without the checks of [`Kept::of`], for the code that computed the list. A list from another process must go through
    /// `of`.
    pub fn trusted(indexes: Vec<u32>) -> Self {
        Self(indexes)
    }

    /// Indexes into the request's friends.
    pub fn indexes(&self) -> &[u32] {
        &self.0
    }

    /// The indexes.
    pub fn into_indexes(self) -> Vec<u32> {
        self.0
    }
}

/// Whether the policy or a fallback decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum DecidedBy {
    /// A decider, by the operator's policy.
    Policy,
    /// The gateway, by the operator's setting for a cause.
    Fallback,
}

/// Why there is no policy decision.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    IntoStaticStr,
    AsRefStr,
    EnumIter,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum Cause {
    /// No decider could be reached.
    DeciderUnavailable,
    /// No decider responded in time.
    DeciderTimeout,
    /// A decider returned an error or an invalid response.
    DeciderFailed,
    /// The gateway or a decider was overloaded.
    Overloaded,
    /// Neither NATS nor the spool accepted the decision's event.
    Unrecordable,
}

impl Cause {
    /// Its name in events, logs, spans and metrics.
    pub fn into_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(friends: &[&str], indexes: &[u32]) -> Result<Kept, KeptError> {
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
            (&[][..], KeptError::Empty),
            (&[0, 1, 2, 3, 4], KeptError::NotShorter),
            (&[5], KeptError::NoSubset),
            (&[4, 1], KeptError::NoSubset),
            (&[1, 1], KeptError::NoSubset),
            (&[0, 2], KeptError::OwnerOrDuplicate),
            (&[3], KeptError::OwnerOrDuplicate),
        ] {
            assert_eq!(kept(&friends, indexes), Err(why), "{indexes:?}");
        }
    }
}
