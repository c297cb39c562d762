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
    time::{Instant, timeout},
};

use self::{
    metrics::{Metrics, Occupied},
    spare::Spare,
    summary::Summary,
};
pub use settings::AdmissionSettings;

/// The gateway's capacity.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Semaphore,
    queue: Semaphore,
    queue_timeout: Duration,
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
