use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::DeliverPolicy;

/// How long NATS keeps a pull request open; the next one follows immediately. It ends each with a message, without which it hangs.
const PULL_EXPIRY: Duration = Duration::from_secs(5);

/// The shortest time for which a pull request is kept open.
const SHORTEST_PULL: Duration = Duration::from_millis(100);

/// Where to start reading.
#[derive(Clone, Copy)]
pub(crate) enum Begin {
    /// At the next event.
    Next,
    /// At the first event that is stored.
    First,
    /// At the first event that NATS stored since then.
    At(SystemTime),
}

impl Begin {
    pub(super) fn policy(self) -> DeliverPolicy {
        match self {
            Self::Next => DeliverPolicy::New,
            Self::First => DeliverPolicy::All,
            Self::At(time) => DeliverPolicy::ByStartTime {
                start_time: time.into(),
            },
        }
    }
}

/// Which part of the stream is read.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    /// Where to start.
    pub(crate) begin: Begin,
    /// Reading ends before the first event that NATS stored at or after this time.
    pub(crate) until: Option<SystemTime>,
    /// Whether to wait for events that are not stored yet.
    pub(crate) follow: bool,
}

impl Range {
    /// Whether nothing can be in the range because it does not end after it starts.
    pub(crate) fn is_empty(&self) -> bool {
        match (self.begin, self.until) {
            (Begin::At(begin), Some(until)) => until <= begin,
            _ => false,
        }
    }

    pub(super) fn follows(&self) -> bool {
        self.follow && self.until.is_none_or(|until| SystemTime::now() < until)
    }

    pub(super) fn expiry(&self) -> Duration {
        let left = self
            .until
            .map(|until| until.duration_since(SystemTime::now()));
        let left = left.map(Result::unwrap_or_default);
        left.map_or(PULL_EXPIRY, |left| left.clamp(SHORTEST_PULL, PULL_EXPIRY))
    }
}
