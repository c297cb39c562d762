//! The wire between gateway and decider: `importguard.decider.v1` as tonic and prost generate it, and conversions to and from
//! the domain's types.

mod convert;

/// The generated code.
#[allow(missing_docs, clippy::all)]
pub mod decider {
    tonic::include_proto!("importguard.decider.v1");
}

pub use convert::{InvalidRequest, InvalidResponse};

/// The encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
