use importguard_telemetry::families;
use prometheus::{IntCounter, IntGauge};

use super::Room;

families! {
    /// What the listener counts.
    pub(crate) struct Metrics {
        /// Connections that are open on the public listener.
        connections: IntGauge = "importguard_connections";
        /// Connections beyond IMPORTGUARD_MAX_CONNECTIONS, answered as an overload and closed.
        turned_away: IntCounter = "importguard_connections_turned_away_total";
    }
}

impl Metrics {
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
