use importguard_telemetry::metrics::Family;
use prometheus::{IntCounter, IntGauge, Registry};

/// What a listener counts.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    /// Connections that are open.
    pub(crate) open: IntGauge,
    /// Connections closed to make room for others.
    pub(crate) evicted: IntCounter,
    /// Connections that found no room, and none that could be closed to make some.
    pub(crate) rejected: IntCounter,
}

impl ConnectionMetrics {
    /// Makes and registers `PREFIX_connections`, `PREFIX_connections_evicted_total` and `PREFIX_connections_rejected_total`, whose help
    /// texts call the listener `listener`. An error if that was done before.
    pub fn register(registry: &Registry, prefix: &str, listener: &str) -> prometheus::Result<Self> {
        let name = |rest| format!("{prefix}_connections{rest}");
        let metrics = Self {
            open: Family::new(
                &name(""),
                &format!("Connections that are open on {listener}."),
                &[],
                None,
            )?,
            evicted: Family::new(
                &name("_evicted_total"),
                &format!("Connections on {listener} that were closed to make room for others."),
                &[],
                None,
            )?,
            rejected: Family::new(
                &name("_rejected_total"),
                &format!("Connections that {listener} had no room for, and that were closed."),
                &[],
                None,
            )?,
        };
        registry.register(Box::new(metrics.open.clone()))?;
        registry.register(Box::new(metrics.evicted.clone()))?;
        registry.register(Box::new(metrics.rejected.clone()))?;
        Ok(metrics)
    }
}
