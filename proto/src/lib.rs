//! importguard's contracts: the decider's gRPC service, the events on NATS, and the ids that both speak of.
//! Generated code and plain data; no logic.

pub mod decider;
pub mod event;
mod ids;
mod texts;
mod user_ids;

pub use ids::{InvalidId, OperationId, UserId};
pub use texts::Texts;
pub use user_ids::UserIds;
