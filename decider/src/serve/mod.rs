//! The decider's listener: gateways' connections, how many and how silent they may be, and TLS on them. gRPC is tonic's.

mod connection;
mod listener;
mod metrics;
mod tls;

pub use self::tls::TlsError;
pub(crate) use self::{connection::Connection, listener::Listener, metrics::Metrics, tls::tls};
