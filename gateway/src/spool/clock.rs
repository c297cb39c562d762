//! A clock for ages that is not affected by changes of the system clock.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::Connection;

/// Unix milliseconds that start at the system clock's time when the clock is first used and advance with the monotonic clock. All copies
/// agree.
#[derive(Clone, Copy, Debug)]
pub(super) struct SteadyClock {
    base_ms: i64,
    start: Instant,
}

impl SteadyClock {
    pub(super) fn start() -> Self {
        static CLOCK: OnceLock<SteadyClock> = OnceLock::new();
        *CLOCK.get_or_init(|| Self {
            base_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0)),
            start: Instant::now(),
        })
    }

    pub(super) fn now_ms(self) -> i64 {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.base_ms.saturating_add(elapsed)
    }

    /// Returns how long ago `at_ms` was, or `None` if it is in the future, as for an event of a process whose clock was wrong.
    pub(super) fn since(self, at_ms: i64) -> Option<Duration> {
        let age_ms = self.now_ms().saturating_sub(at_ms);
        u64::try_from(age_ms).ok().map(Duration::from_millis)
    }
}

/// Sets the time of events dated in the future, which a process with a wrong clock left in the spool, to now. Their age counts from now.
pub(super) fn date_back(connection: &Connection, clock: SteadyClock) -> rusqlite::Result<()> {
    let now_ms = clock.now_ms();
    let dated_back = connection.execute(
        "UPDATE event SET spooled_ms = ?1 WHERE spooled_ms > ?1",
        [now_ms],
    )?;
    if dated_back > 0 {
        tracing::warn!(
            events = dated_back,
            "events in the spool are dated in the future: the clock was set back, so their age counts from now"
        );
    }
    Ok(())
}
