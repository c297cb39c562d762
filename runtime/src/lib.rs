//! What both processes need to run.
//!
//! [`RuntimeSettings::run`] runs a process: logs and traces, signals, the admin listener. The process's parts share a [`Runtime`]:
//! metrics, [`Readiness`], and the [`FileWatches`] that reload changed files.
//!
//! [`Acceptor`] is the accept loop with its limits and TLS. It yields [`Connection`]s, which enforce the timeouts of their peers. A
//! [`Handle`] refers to a connection from the rest of the process, an [`Exchange`] to one request on it and its response.

mod accept;
mod admin;
mod body;
mod certificates;
mod client_tls;
mod connection;
pub mod environment;
mod exchange;
mod expiry;
mod frames;
mod handle;
mod healthcheck;
mod listen;
mod memory;
mod readiness;
mod runtime;
mod saturation;
mod secret;
pub mod security;
pub mod settings;
pub mod signals;
mod table;
pub mod text;
mod threads;
mod tls;
mod tls_failure;
mod turn;
mod watch;

pub use accept::{Acceptor, Bounds, ConnectionMetrics, Tls};
pub use admin::ADMIN_LISTENER;
pub use body::{Delivery, ReceiveError, ReceiveLimits, RequestBody, TrackedBody, receive};
pub use certificates::{CertificateError, PemError, system_roots};
pub use client_tls::ClientTls;
pub use connection::Connection;
pub use exchange::Exchange;
pub use expiry::rfc3339;
pub use handle::{Handle, Timeouts};
pub use healthcheck::{Healthcheck, HealthcheckError, reachable};
pub use importguard_telemetry::{read_file, whole_text};
pub use listen::{BoundAddress, ListenError, OpenFilesError, allow_open_files, bind};
pub use readiness::Readiness;
pub use runtime::{Runtime, RuntimeSettings, SharedRegistry, conclude, main};
pub use saturation::Saturation;
pub use secret::{Secret, SecretError, SecretFile};
pub use threads::{ThreadSettings, block_on};
pub use tls::{NamedFile, ServerTls, TlsFiles};
pub use tls_failure::TlsFailure;
pub use turn::take_turn;
pub use watch::{
    Failure, FileWatcher, FileWatches, Fingerprint, LastGood, Reload, SharedWatches, Snapshot,
    Status,
};
