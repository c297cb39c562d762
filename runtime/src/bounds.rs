use crate::Timeouts;

/// How much a listener puts up with.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connections that are open at once. For one more, the one is closed that has been without a complete request for longest.
    pub max_connections: usize,
    /// What is read and what is still to be written, in bytes, of all connections together.
    pub max_bytes: usize,
    /// How long peers may take.
    pub timeouts: Timeouts,
    /// Whether [`Handle::begin`](crate::Handle::begin) counts requests; else any byte shows that a peer is well.
    pub counts_requests: bool,
    /// The setting that `max_connections` comes from, for the log.
    pub setting: &'static str,
}
