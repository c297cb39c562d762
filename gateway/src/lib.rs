//! The gateway: OpenIM's import callback over HTTP, decided by a decider over gRPC, recorded on NATS.

mod admission;
pub mod callback;
mod contradictions;
pub mod decide;
mod gateway;
mod http;
mod lock;
mod metrics;
pub mod record;
mod serve;
mod settings;
mod upstream;

pub use admission::AdmissionSettings;
pub use gateway::{Gateway, Listeners, RunError, StartError, run};
pub use importguard_files::InvalidCertificate;
pub use lock::{InvalidKeyFile, InvalidKeys, LockSettings};
pub use serve::{ServeSettings, TlsSettings};
pub use settings::{HttpSettings, Settings};
pub use upstream::{InvalidUpstreamUrl, UpstreamSettings, UpstreamStartError, UpstreamUrl};
