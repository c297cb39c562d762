//! How many callbacks are worked on at once, how many may wait for that, and what becomes of the rest: they are answered at once,
//! so that the ones who were let in are answered in time.

mod metrics;
mod settings;
mod spare;
mod summary;

use std::time::Duration;

use prometheus::Registry;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::yield_now,
    time::{Instant, timeout},
};

use self::{
    metrics::{Metrics, Occupied},
    spare::Spare,
    summary::Summary,
};
pub use settings::AdmissionSettings;

/// How many callbacks are turned away between two looks at the sockets. One thread reads from eight between two looks
/// (`telemetry/src/runtime.rs`), and the other six are for those who were let in, as a decision takes several looks: the decider's
/// answer, NATS's ack. Without a bound, hundreds of callbacks that are turned away and come again at once would stand before each of them.
const TURNED_AWAY_AT_ONCE: usize = 2;

/// The gateway's capacity.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Semaphore,
    queue: Semaphore,
    queue_timeout: Duration,
    turnstile: Semaphore,
    spare: Spare,
    summary: Summary,
    metrics: Metrics,
}

/// A callback's place among those that are worked on, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    _occupied: Occupied,
}

/// There is no place, and none became free in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overloaded;

impl Admission {
    pub(crate) fn new(
        settings: &AdmissionSettings,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            places: Semaphore::new(settings.max_in_flight),
            queue: Semaphore::new(settings.max_queued),
            queue_timeout: settings.queue_timeout,
            turnstile: Semaphore::new(TURNED_AWAY_AT_ONCE),
            spare: Spare::new(settings.overload_events),
            summary: Summary::default(),
            metrics: Metrics::register(registry)?,
        })
    }

    /// A place, at once or after a short wait that is part of `left`.
    pub(crate) async fn enter(&self, left: Duration) -> Result<Place<'_>, Overloaded> {
        if let Ok(permit) = self.places.try_acquire() {
            return Ok(self.place(permit));
        }
        let _queued = self.queue.try_acquire().map_err(|_| Overloaded)?;
        let _counted = self.metrics.queued();
        let began = Instant::now();
        let permit = timeout(self.queue_timeout.min(left), self.places.acquire()).await;
        self.metrics.waited(began.elapsed());
        match permit {
            Ok(Ok(permit)) => Ok(self.place(permit)),
            Ok(Err(_)) | Err(_) => Err(Overloaded),
        }
    }

    /// Waits for the turn of a callback that got no place, for `patience` at most, so that turning away leaves time for deciding.
    pub(crate) async fn turn(&self, patience: Duration) {
        // Never closed, and an answer without a turn would do no harm.
        let _turn = timeout(patience, self.turnstile.acquire()).await;
        yield_now().await;
    }

    /// Whether there is time to read and record a callback that got no place. To be asked once for each.
    pub(crate) fn has_time_to_record(&self) -> bool {
        self.summary.count();
        self.spare.take()
    }

    /// A callback without a place was answered without an event.
    pub(crate) fn unrecorded(&self) {
        self.metrics.unrecorded();
    }

    fn place<'a>(&self, permit: SemaphorePermit<'a>) -> Place<'a> {
        Place {
            _permit: permit,
            _occupied: self.metrics.in_flight(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;

    #[tokio::test]
    async fn turning_away_gives_way_to_what_else_there_is_to_do() {
        const CROWD: usize = 100;
        const TIMES: usize = 10;
        let settings = AdmissionSettings {
            max_in_flight: 1,
            max_queued: 0,
            queue_timeout: Duration::ZERO,
            overload_events: 0,
        };
        let admission = Admission::new(&settings, &Registry::new()).unwrap();
        let (admission, away) = (Arc::new(admission), Arc::new(AtomicUsize::new(0)));
        let crowd = (0..CROWD).map(|_| {
            let (admission, away) = (Arc::clone(&admission), Arc::clone(&away));
            tokio::spawn(async move {
                admission.turn(Duration::from_secs(60)).await;
                away.fetch_add(1, Relaxed);
            })
        });
        let crowd: Vec<_> = crowd.collect();
        for _ in 0..TIMES {
            yield_now().await;
        }
        let by_now = away.load(Relaxed);
        assert!(by_now <= TIMES * TURNED_AWAY_AT_ONCE, "{by_now}");
        for one in crowd {
            one.await.unwrap();
        }
        assert_eq!(away.load(Relaxed), CROWD);
    }
}
