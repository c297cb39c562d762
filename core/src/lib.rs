//! The domain of importguard: an import request and the decision on it. The gateway, the decider, the events and the commands
//! share these types. No async, no I/O, no protocol.

mod decision;
mod digest;
mod ids;
mod request;
mod rules;

pub use decision::{
    Cause, DecidedBy, Decision, Evaluation, Kept, KeptError, Refusal, Verdict, VerdictKind,
};
pub use digest::{content_digest, digest};
pub use ids::{EventId, EventIdError, IdError, OperationId, UserId};
pub use request::{Dialect, ImportRequest};
pub use rules::{
    Alternatives, FiredRule, ListHit, ListRevision, Match, MatchedPart, Mode, Outcome,
    PolicyRevision, Removal,
};
