//! The gateway: OpenIM's import callback over HTTP, decided by a decider over gRPC, recorded on NATS.

mod admission;
pub mod callback;
pub mod decide;
mod gateway;
mod http;
mod lock;
mod metrics;
pub mod record;
mod reload;
mod serve;
mod settings;

pub use admission::AdmissionSettings;
pub use gateway::{Gateway, Listeners, RunError, StartError, run};
pub use lock::{InvalidKeyFile, InvalidKeys, LockSettings};
pub use serve::{InvalidCertificate, ServeSettings, TlsSettings};
pub use settings::{HttpSettings, Settings};
