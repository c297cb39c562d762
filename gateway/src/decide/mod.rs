//! Who decides: a decider over gRPC, or the operator's fallback for the cause that kept it from answering.

mod client;
mod decision;
mod fallback;
mod settings;
mod verify;

pub use client::{DecideError, Deciders, InvalidDeciderUrl};
pub use decision::{Decision, Evidence, Kept, Source, Verdict};
pub use fallback::{Fallback, FallbackSettings, OnFailure};
pub use settings::DecideSettings;
