use std::time::Duration;

use importguard_proto::event::{
    Cause, DecidedBy, FiredRule, ListRevision, PolicyRevision, Refusal, Removal, Subject,
    Verdict as EventVerdict,
};

/// What was decided about one import, by whom, and from what.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// Who found it.
    pub source: Source,
    /// From the question to the decider to its answer, or to giving up on it.
    pub took: Duration,
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
    /// The verdict's name in events and metrics.
    pub fn kind(&self) -> EventVerdict {
        match self {
            Self::Allow => EventVerdict::Allow,
            Self::Refuse(_) => EventVerdict::Refuse,
            Self::Modify(_) => EventVerdict::Modify,
        }
    }

    /// Where the verdict's event is published.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Allow => Subject::Allow,
            Self::Refuse(_) => Subject::Refuse,
            Self::Modify(_) => Subject::Modify,
        }
    }

    /// The verdict's name in logs, spans and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Refuse(_) => "refuse",
            Self::Modify(_) => "modify",
        }
    }
}

/// Who of a request's friends is left: at least one and not all, as ascending indexes, without repetitions or the owner.
/// Only made by [`verify`](super::verify), which checks that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept(Vec<u32>);

impl Kept {
    pub(super) fn verified(indexes: Vec<u32>) -> Self {
        Self(indexes)
    }

    /// Indexes into the request's friends.
    pub fn indexes(&self) -> &[u32] {
        &self.0
    }
}

/// Who found a verdict.
#[derive(Clone, Debug)]
pub enum Source {
    /// A decider, by the operator's policy.
    Policy(Evidence),
    /// The gateway, by the operator's setting for the cause.
    Fallback(Cause),
}

impl Source {
    /// The source's name in events.
    pub fn kind(&self) -> DecidedBy {
        match self {
            Self::Policy(_) => DecidedBy::Policy,
            Self::Fallback(_) => DecidedBy::Fallback,
        }
    }

    /// What a fallback came from.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Policy(_) => None,
            Self::Fallback(cause) => Some(*cause),
        }
    }

    /// What a decider said about its verdict.
    pub fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Policy(evidence) => Some(evidence),
            Self::Fallback(_) => None,
        }
    }
}

/// What a policy's verdict follows from.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The rules that fired, in order.
    pub rules: Vec<FiredRule>,
    /// Who was removed by which rule.
    pub removed: Vec<Removal>,
    /// The policy.
    pub policy: PolicyRevision,
    /// Its lists.
    pub lists: Vec<ListRevision>,
    /// Who evaluated it.
    pub decider: String,
}
