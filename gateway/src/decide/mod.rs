//! Decisions: from a decider over gRPC, or from the configured fallback if none is available.
//!
//! `discovery` resolves the deciders' addresses; `balancer` keeps the deciders at them, checks their health and picks one for a call;
//! `deciders` makes the call, and a second one if needed.

mod balancer;
mod connect;
mod decider;
mod deciders;
mod discovery;
mod fallback;
mod settings;

pub use connect::DeciderTlsError;
pub(crate) use deciders::Deciders;
pub(crate) use discovery::Discovery;
pub use fallback::{DecideError, FallbackSettings, OnFailure};
pub(crate) use fallback::{code_and_message, fallback};
pub use settings::{DecideSettings, DeciderTlsSettings, DeciderUrls, DeciderUrlsError};
