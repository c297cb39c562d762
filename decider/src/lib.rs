//! The decider: evaluates the operator's policy. The engine in [`policy`] is pure; the rest serves it over gRPC.

mod call;
mod deadline;
mod evaluation;
mod grpc;
mod limits;
pub mod lists;
pub mod load;
mod metrics;
mod permits;
pub mod policy;
mod reload;
mod server;
mod settings;
pub mod tabletest;
mod timestamp;
mod tls;

pub use server::{Decider, RunError, run};
pub use settings::{BoundsSettings, GrpcSettings, PolicySettings, Settings, TlsSettings};
