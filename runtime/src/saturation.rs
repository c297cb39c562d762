//! Whether this process itself has had too much to do.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::runtime::Builder;

/// For how long the threads of the service's runtime have waited for something to do, in nanoseconds, together. 0 if that is not
/// measured.
static IDLE_NANOS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Since when this thread has waited.
    static IDLE_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The process is saturated if it was idle for less than this part of the time. Whenever it is idle, it has handled all that had
/// arrived, so that an eighth of a timeout is enough for an answer that is there.
const IDLE_FRACTION: u32 = 8;

/// Makes the runtime measure how long it is idle. A process has one that does.
pub(crate) fn measure(builder: &mut Builder) {
    builder
        .on_thread_park(|| IDLE_SINCE.set(Some(Instant::now())))
        .on_thread_unpark(|| {
            if let Some(since) = IDLE_SINCE.take() {
                let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                IDLE_NANOS.fetch_add(nanos, Relaxed);
            }
        });
}

/// Tells after a wait whether this process itself may be the reason that nothing came: it was saturated, as by a flood of requests.
#[derive(Clone, Copy, Debug)]
pub struct Saturation {
    began: Instant,
    idle_nanos: u64,
}

impl Saturation {
    /// From now on.
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
            idle_nanos: IDLE_NANOS.load(Relaxed),
        }
    }

    /// Whether the process has been saturated since it began. Never where [`RuntimeSettings`](crate::RuntimeSettings) does not run it.
    pub fn is_saturated(&self) -> bool {
        let idle_nanos = IDLE_NANOS.load(Relaxed);
        let idle = Duration::from_nanos(idle_nanos.wrapping_sub(self.idle_nanos));
        idle_nanos > 0 && idle < self.began.elapsed() / IDLE_FRACTION
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::time::sleep;

    use super::*;

    #[test]
    fn a_process_is_saturated_that_works_and_not_one_that_waits() {
        const WAIT: Duration = Duration::from_millis(200);
        let mut builder = Builder::new_current_thread();
        measure(builder.enable_all());
        builder.build().unwrap().block_on(async {
            let waited = Saturation::begin();
            sleep(WAIT).await;
            assert!(!waited.is_saturated());
            let worked = Saturation::begin();
            thread::sleep(WAIT);
            assert!(worked.is_saturated());
        });
    }
}
