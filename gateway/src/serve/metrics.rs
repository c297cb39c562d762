use prometheus::{IntCounter, IntGauge, Registry};

use super::Room;

/// What the listener counts.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Connections that are open on the public listener.
    connections: IntGauge,
    /// Connections beyond IMPORTGUARD_MAX_CONNECTIONS, answered as an overload and closed.
    turned_away: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let connections = IntGauge::new(
            "importguard_connections",
            "Connections that are open on the public listener.",
        )?;
        let turned_away = IntCounter::new(
            "importguard_connections_turned_away_total",
            "Connections beyond IMPORTGUARD_MAX_CONNECTIONS, answered as an overload and closed.",
        )?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(turned_away.clone()))?;
        Ok(Self {
            connections,
            turned_away,
        })
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn open(&self, room: Room) -> Open {
        if room == Room::None {
            self.turned_away.inc();
        }
        self.connections.inc();
        Open(self.connections.clone())
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
