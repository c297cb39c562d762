//! The concurrency limit. A callback waits for a slot of its connection, then for a permit. Waiting callbacks are bounded by bytes and by
//! time.

use std::{sync::Arc, time::Duration};

use importguard_runtime::Exchange;
use importguard_telemetry::{PerSecond, Summary, metrics::register};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tracing::warn;

use crate::{metrics::Counted, openim::Rejection, settings::LimitSettings};

/// Histogram buckets in seconds, up to the default of IMPORTGUARD_QUEUE_TIMEOUT.
const WAIT_SECONDS: [f64; 9] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 0.75, 1.25];

/// The concurrency limit, shared by all routes.
#[derive(Debug)]
pub(crate) struct Limit {
    permits: Permits,
    queue_timeout: Duration,
    recorded: PerSecond,
    summary: Summary,
    queued: Gauge,
    wait_seconds: Histogram,
    unrecorded: Counter,
}

/// A semaphore, and a gauge of the permits that are held.
#[derive(Debug)]
pub(crate) struct Permits {
    semaphore: Arc<Semaphore>,
    held: Gauge,
}

/// One of [`Permits`], held until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _acquired: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Permits {
    pub(crate) fn new(permits: usize, held: Gauge) -> Self {
        let semaphore = Arc::new(Semaphore::new(permits));
        Self { semaphore, held }
    }

    /// A permit, unless all are held.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.semaphore).try_acquire_owned();
        Some(self.counted(permit.ok()?))
    }

    /// The next permit; `None` if there is none before `deadline`.
    async fn acquire(&self, deadline: Instant) -> Option<Permit> {
        let permit = timeout_at(deadline, Arc::clone(&self.semaphore).acquire_owned()).await;
        // The semaphore is never closed.
        Some(self.counted(permit.ok()?.ok()?))
    }

    fn counted(&self, permit: OwnedSemaphorePermit) -> Permit {
        Permit {
            _acquired: permit,
            _counted: Counted::new(&self.held),
        }
    }
}

impl Limit {
    pub(crate) fn new(settings: &LimitSettings, registry: &mut Registry) -> Self {
        let in_flight = register(
            registry,
            "importguard_in_flight",
            "Callbacks being processed, at most IMPORTGUARD_MAX_IN_FLIGHT",
            Gauge::default(),
        );
        Self {
            permits: Permits::new(settings.max_in_flight, in_flight),
            queue_timeout: settings.queue_timeout,
            recorded: PerSecond::new(settings.overload_events),
            summary: Summary::default(),
            queued: register(
                registry,
                "importguard_queued",
                "Callbacks that have arrived and wait to be processed, for IMPORTGUARD_QUEUE_TIMEOUT at most",
                Gauge::default(),
            ),
            wait_seconds: register(
                registry,
                "importguard_queue_seconds",
                "Time that callbacks waited in the queue, in vain or not; callbacks that did not wait are not counted",
                Histogram::new(WAIT_SECONDS),
            ),
            unrecorded: register(
                registry,
                "importguard_overload_unrecorded",
                "Callbacks answered during overload without an event: those beyond IMPORTGUARD_OVERLOAD_EVENTS a second",
                Counter::default(),
            ),
        }
    }

    /// A permit, if one becomes available in time. A connection with unread responses waits for a slot of its own window first, so that it
    /// takes no permits from others; its request is rejected if it gets none.
    pub(crate) async fn acquire(
        &self,
        exchange: &Exchange,
        deadline: Instant,
    ) -> Result<Option<Permit>, Rejection> {
        if exchange.try_acquire_slot()
            && let Some(permit) = self.permits.try_acquire()
        {
            return Ok(Some(permit));
        }
        let _queued = Counted::new(&self.queued);
        let began = Instant::now();
        let due = deadline.min(began + self.queue_timeout);
        let waiting = async {
            let slot = timeout_at(due, exchange.acquire_slot()).await;
            // Without permits, those before it on its connection wait for one.
            if slot.is_err() && self.permits.semaphore.available_permits() > 0 {
                return Err(Rejection::UnreadResponses);
            }
            Ok(self.permits.acquire(due).await)
        };
        let permit = waiting.await;
        self.wait_seconds.observe(began.elapsed().as_secs_f64());
        permit
    }

    /// Counts a callback that overload keeps from being decided. Returns whether there is time to record it, if it can be recorded.
    pub(crate) fn overloaded(&self, recordable: bool) -> bool {
        self.summary.count(|callbacks| {
            warn!(
                callbacks,
                cause = "overloaded",
                "callbacks exceeded the capacity in the last second; applied IMPORTGUARD_ON_OVERLOAD, or IMPORTGUARD_ON_UNRECORDABLE where there was no time for an event: run more gateways, or raise IMPORTGUARD_MAX_IN_FLIGHT if this one has CPU to spare"
            );
        });
        let has_time = recordable && self.recorded.take();
        if !has_time {
            self.unrecorded.inc();
        }
        has_time
    }
}
