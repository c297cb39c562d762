//! What both pods need to run: the accept loop with its bounds and TLS, the admin listener, signals, the limit of open files.
//!
//! [`Incoming`] accepts; a [`Connection`] is what it yields, and ends a connection whose peer takes too long; a [`Handle`] is
//! what the rest of the process knows of it, down to each [`Exchange`] of a request and its response.

mod accept;
pub mod admin;
mod bounds;
mod connection;
pub mod environment;
mod exchange;
mod handle;
mod listen;
pub mod memory;
mod metrics;
pub mod settings;
pub mod signals;
mod table;
mod tls;

pub use accept::{Incoming, Tls};
pub use bounds::Bounds;
pub use connection::{Connection, LINGER};
pub use exchange::Exchange;
pub use handle::{Handle, Timeouts};
pub use listen::{ListenError, OpenFilesError, allow_open_files, listen};
pub use metrics::ConnectionMetrics;
pub use tls::{ClientTlsFiles, TlsFiles};
