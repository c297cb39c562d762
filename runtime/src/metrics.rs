use importguard_telemetry::metrics::register;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// The metrics of a listener.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    /// Open connections.
    pub(crate) open: Gauge,
    /// Connections evicted for others.
    pub(crate) evicted: Counter,
    /// Connections rejected because all others were in use.
    pub(crate) rejected: Counter,
}

impl ConnectionMetrics {
    /// Registers `PREFIX_connections`, `PREFIX_connections_evicted_total` and `PREFIX_connections_rejected_total`, whose help texts
    /// call the listener `listener`.
    pub fn register(registry: &mut Registry, prefix: &str, listener: &str) -> Self {
        Self {
            open: register(
                registry,
                &format!("{prefix}_connections"),
                &format!("Open connections on {listener}"),
                Gauge::default(),
            ),
            evicted: register(
                registry,
                &format!("{prefix}_connections_evicted"),
                &format!("Connections on {listener} that were closed to make room for others"),
                Counter::default(),
            ),
            rejected: register(
                registry,
                &format!("{prefix}_connections_rejected"),
                &format!("Connections that {listener} had no room for, and that were closed"),
                Counter::default(),
            ),
        }
    }
}
