//! The gateway: serves OpenIM's import callbacks over HTTP, gets decisions from deciders over gRPC, and publishes them to NATS.

mod admission;
mod app;
mod authentication;
pub mod decide;
pub mod events;
mod gateway;
mod handlers;
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
mod trace;
mod upstream;

pub use authentication::{CredentialsError, CredentialsFileError};
pub use gateway::{Gateway, RunError, run};
pub use settings::{
    AuthenticationSettings, HttpSettings, LimitSettings, ServeSettings, Settings, TlsSettings,
};
pub use upstream::{UpstreamSettings, UpstreamUrl, UpstreamUrlError};
