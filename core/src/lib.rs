//! The domain of importguard: an import request and the decision on it. The gateway, the decider, the events and the commands
//! share these types. No async, no I/O, no protocol.

mod decision;
mod ids;
mod rules;

pub use decision::{
    Cause, DecidedBy, Decision, Dialect, Evaluation, ImportRequest, Kept, KeptError, Refusal,
    Verdict, VerdictKind,
};
pub use ids::{EventId, EventIdError, IdError, OperationId, UserId};
pub use rules::{
    Alternatives, FiredRule, ListHit, ListRevision, Match, MatchedPart, Mode, Outcome,
    PolicyRevision, Removal, content_digest, digest,
};
