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

/// The concurrency limit, shared by all routes.
#[derive(Debug)]
pub(crate) struct Limit {
    permits: Arc<Semaphore>,
    queue_timeout: Duration,
    recorded: PerSecond,
    summary: Summary,
    metrics: Metrics,
}

/// Permission to process a callback, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _acquired: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Limit {
    pub(crate) fn new(settings: &LimitSettings, registry: &mut Registry) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(settings.max_in_flight)),
            queue_timeout: settings.queue_timeout,
            recorded: PerSecond::new(settings.overload_events),
            summary: Summary::default(),
            metrics: Metrics::register(registry),
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
            && let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
        {
            return Ok(Some(self.permit(permit)));
        }
        let _queued = Counted::new(&self.metrics.queued);
        let began = Instant::now();
        let due = deadline.min(began + self.queue_timeout);
        let waiting = async {
            let slot = timeout_at(due, exchange.acquire_slot()).await;
            // Without permits, those before it on its connection wait for one.
            if slot.is_err() && self.permits.available_permits() > 0 {
                return Err(Rejection::UnreadResponses);
            }
            let permit = Arc::clone(&self.permits).acquire_owned();
            let permit = timeout_at(due, permit).await;
            // The semaphore is never closed.
            let permit = permit.ok().and_then(Result::ok);
            Ok(permit.map(|permit| self.permit(permit)))
        };
        let permit = waiting.await;
        self.metrics
            .wait_seconds
            .observe(began.elapsed().as_secs_f64());
        permit
    }

    fn permit(&self, acquired: OwnedSemaphorePermit) -> Permit {
        Permit {
            _acquired: acquired,
            _counted: Counted::new(&self.metrics.in_flight),
        }
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
            self.metrics.unrecorded.inc();
        }
        has_time
    }
}

/// Histogram buckets in seconds, up to the default of IMPORTGUARD_QUEUE_TIMEOUT.
const WAIT_SECONDS: [f64; 9] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 0.75, 1.25];

/// The metrics of the concurrency limit.
#[derive(Debug)]
struct Metrics {
    in_flight: Gauge,
    queued: Gauge,
    wait_seconds: Histogram,
    unrecorded: Counter,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        Self {
            in_flight: register(
                registry,
                "importguard_in_flight",
                "Callbacks being processed, at most IMPORTGUARD_MAX_IN_FLIGHT",
                Gauge::default(),
            ),
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
}
