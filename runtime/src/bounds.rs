use crate::Timeouts;

/// The limits of a listener.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connection limit. When it is reached, a new connection evicts the one that has been without a complete request for longest.
    pub max_connections: usize,
    /// Byte limit: what all connections together have read and have yet to write.
    pub max_bytes: usize,
    /// Time limits for peers.
    pub timeouts: Timeouts,
    /// Whether [`Handle::begin`](crate::Handle::begin) is called for each request; otherwise, any byte counts as activity.
    pub counts_requests: bool,
    /// The setting for `max_connections`, named in logs.
    pub setting: &'static str,
}
