//! The domain of importguard: who wants to import whom, and what was decided about it. Both pods, the events and the commands
//! speak in these types. No async, no I/O, no protocol.

mod decision;
mod ids;
mod request;
mod rules;

pub use decision::{
    Cause, DecidedBy, Decision, Evaluation, InvalidKept, Kept, Refusal, Verdict, VerdictKind,
};
pub use ids::{EventId, InvalidEventId, InvalidId, OperationId, UserId};
pub use request::{Dialect, ImportRequest};
pub use rules::{FiredRule, ListRevision, Mode, Outcome, PolicyRevision, Removal};
