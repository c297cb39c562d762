use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::thread::set_current_timer_slack;
use std::num::NonZeroU64;
use tokio::sync::mpsc;

/// How much later than asked for the kernel may wake a sleeper, in nanoseconds; without it 50 µs.
const SLACK: NonZeroU64 = NonZeroU64::MIN;

/// Moments lie this far apart at least, and several questions are due at one where they come closer: a thread that wakes for each
/// of twelve thousand a second takes from a machine with two CPUs more than a gateway does, so that it was its own wakings that it
/// measured.
const GRID: Duration = Duration::from_micros(500);

/// Tells the moments of an even beat of `rate` a second as they come, until nobody listens. On a thread of its own: tokio's timers
/// go off at whole milliseconds.
pub(super) fn beat(rate: f64, start: Instant) -> mpsc::UnboundedReceiver<Instant> {
    let (tell, told) = mpsc::unbounded_channel();
    thread::spawn(move || {
        // Where the kernel doesn't allow it, both systems are woken later.
        let _ = set_current_timer_slack(Some(SLACK));
        let moments = (0_u32..).map(|n| f64::from(n) / rate);
        for moment in moments {
            let due = start + on_grid(moment);
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

/// The first moment on the grid that is not before so many seconds.
fn on_grid(seconds: f64) -> Duration {
    GRID.mul_f64((seconds / GRID.as_secs_f64()).ceil())
}
