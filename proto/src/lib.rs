//! importguard's contracts: the decider's gRPC service, the events on NATS, and the ids that both speak of.
//! Generated code and plain data; no logic.

pub mod event;
mod ids;

pub use ids::{InvalidId, OperationId, UserId};

/// `importguard.decider.v1`: the gateway's question to the decider.
pub mod decider {
    #[allow(missing_docs, unreachable_pub, clippy::all)]
    mod generated {
        tonic::include_proto!("importguard.decider.v1");
    }
    pub use generated::*;

    /// The encoded `FileDescriptorSet`, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
