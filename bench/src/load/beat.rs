use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::thread::set_current_timer_slack;
use std::num::NonZeroU64;
use tokio::sync::mpsc;

/// How much later than asked for the kernel may wake a sleeper, in nanoseconds; without it 50 µs.
const SLACK: NonZeroU64 = NonZeroU64::MIN;

/// Tells each moment of an even beat of `rate` a second when it has come, until nobody listens. On a thread of its own: tokio's
/// timers go off at whole milliseconds, in which a dozen questions would be put at once.
pub(super) fn beat(rate: f64, start: Instant) -> mpsc::UnboundedReceiver<Instant> {
    let (tell, told) = mpsc::unbounded_channel();
    thread::spawn(move || {
        // Where the kernel doesn't allow it, both systems are woken later.
        let _ = set_current_timer_slack(Some(SLACK));
        let moments = (0_u32..).map(|n| Duration::from_secs_f64(f64::from(n) / rate));
        for moment in moments {
            let due = start + moment;
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            if tell.send(due).is_err() {
                return;
            }
        }
    });
    told
}
