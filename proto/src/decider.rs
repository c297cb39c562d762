//! `importguard.decider.v1`: the gateway's question to the decider.

mod question;

pub use generated::*;
pub use question::Question;

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    tonic::include_proto!("importguard.decider.v1");
}

/// The same service as in `decider_server`, asked with a [`Question`].
pub mod question_server {
    #[allow(missing_docs, unreachable_pub, clippy::all)]
    mod generated {
        include!(concat!(
            env!("OUT_DIR"),
            "/question_server/importguard.decider.v1.rs"
        ));
    }
    pub use generated::decider_server::*;
}

/// The encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
