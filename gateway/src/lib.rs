//! The gateway: OpenIM's import callback over HTTP, decided by a decider over gRPC, recorded on NATS.

mod admission;
pub mod callback;
pub mod decide;
mod gateway;
mod http;
mod metrics;
pub mod record;
mod serve;
mod settings;

pub use admission::AdmissionSettings;
pub use gateway::{Gateway, Listeners, RunError, StartError, run};
pub use serve::ServeSettings;
pub use settings::{HttpSettings, Settings};
