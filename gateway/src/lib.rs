//! The gateway: serves OpenIM's import callbacks over HTTP, gets decisions from deciders over gRPC, and publishes them to NATS.

mod admission;
mod app;
pub mod decide;
pub mod events;
mod gateway;
mod handlers;
mod layers;
mod limit;
mod metrics;
pub mod openim;
mod overridden_verdicts;
pub mod recorder;
mod request;
mod response;
mod security;
mod server;
mod settings;
pub mod spool;
#[cfg(test)]
mod tests;
mod upstream;

pub use gateway::{Gateway, RunError, run};
pub use layers::{CredentialsError, CredentialsFileError};
pub use settings::{
    AuthenticationSettings, HttpSettings, LimitSettings, ServeSettings, Settings, TlsSettings,
};
pub use upstream::{UpstreamSettings, UpstreamStartError, UpstreamUrl, UpstreamUrlError};
