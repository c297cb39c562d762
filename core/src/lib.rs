//! The domain of importguard: an import request and the decision on it. The gateway, the decider, the events and the commands
//! share these types. No async, no I/O, no protocol.

mod decision;
mod digest;
mod ids;
mod matched;
mod request;
mod rules;

pub use decision::{
    Cause, DecidedBy, Decision, Evaluation, Kept, KeptError, Refusal, Verdict, VerdictKind,
};
pub use digest::{content_digest, digest};
pub use ids::{EventId, EventIdError, IdError, OperationId, UserId};
pub use matched::{Alternatives, ListHit, Match, MatchedPart};
pub use request::{Dialect, ImportRequest};
pub use rules::{FiredRule, ListRevision, Mode, Outcome, PolicyRevision, Removal};
