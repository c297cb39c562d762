//! The decider: evaluates the operator's policy. The engine in [`policy`] is pure; the rest brings it to gRPC.

pub mod lists;
pub mod load;
pub mod policy;
mod server;
mod service;
mod settings;
mod snapshot;

pub use server::{Decider, Listeners, RunError, run};
pub use settings::{GrpcSettings, Settings};
