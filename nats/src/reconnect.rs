//! The delay between attempts to connect.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The maximum delay: a client reconnects within a second once the server is reachable.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// A connection that did not last longer counts as a failed attempt: otherwise a server that accepts connections and ends each would be
/// connected to a hundred times a second.
const SHORT: Duration = Duration::from_secs(5);

/// Doubles the delay with each attempt that fails.
#[derive(Debug, Default)]
pub(super) struct ReconnectDelay(Mutex<Connections>);

#[derive(Debug, Default)]
struct Connections {
    /// When the first attempt after the last connection began.
    attempted: Option<Instant>,
    /// How many connections in a row were short.
    short: u32,
}

impl ReconnectDelay {
    /// Returns the delay before an attempt, which is the number `attempts` after a connection or at the start, from 1.
    pub(super) fn before(&self, attempts: usize) -> Duration {
        let mut connections = self.0.lock();
        if attempts == 1 {
            let last = connections.attempted.replace(Instant::now());
            connections.short = match last {
                Some(last) if last.elapsed() < SHORT => connections.short.saturating_add(1),
                _ => 0,
            };
        }
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        let doublings = attempts.saturating_add(connections.short);
        Duration::from_millis(2_u64.saturating_pow(doublings)).min(MAX_DELAY)
    }
}
