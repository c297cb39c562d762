use importguard_telemetry::families;
use prometheus::{IntCounter, IntGauge};

families! {
    /// What the listener counts.
    pub(crate) struct Metrics {
        /// Connections that are open on the decider's listener.
        connections: IntGauge = "importguard_decider_connections";
        /// Connections beyond IMPORTGUARD_DECIDER_MAX_CONNECTIONS, closed at once.
        turned_away: IntCounter = "importguard_decider_connections_turned_away_total";
    }
}

impl Metrics {
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
