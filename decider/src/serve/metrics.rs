use prometheus::{IntCounter, IntGauge, Registry};

/// What is counted about gateways' connections.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    connections: IntGauge,
    turned_away: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let connections = IntGauge::new(
            "importguard_decider_connections",
            "Connections that are open on the decider's listener.",
        )?;
        let turned_away = IntCounter::new(
            "importguard_decider_connections_turned_away_total",
            "Connections beyond IMPORTGUARD_DECIDER_MAX_CONNECTIONS, closed at once.",
        )?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(turned_away.clone()))?;
        Ok(Self {
            connections,
            turned_away,
        })
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn open(&self) -> Open {
        self.connections.inc();
        Open(self.connections.clone())
    }

    pub(super) fn turned_away(&self) {
        self.turned_away.inc();
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
