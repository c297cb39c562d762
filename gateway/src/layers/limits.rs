//! The concurrency limit. A callback is first received completely, then waits for a slot of its connection, then for a permit of the
//! concurrency limit. Waiting callbacks are bounded by bytes and by time.

use std::{mem, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header, request::Parts};
use http_body_util::BodyExt;
use importguard_runtime::Exchange;
use importguard_telemetry::{PerSecond, Summary, metrics::register};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};
use tracing::warn;

use super::Clock;
use crate::{
    app::App,
    handlers::unrecorded_overload,
    openim::{Rejection, RequestHead, acceptable},
    settings::LimitSettings,
};

/// Passes a callback on to its handler if its head is valid and its body arrives in time. If the concurrency limit leaves no permit,
/// the handler applies IMPORTGUARD_ON_OVERLOAD; beyond IMPORTGUARD_OVERLOAD_EVENTS per second, it is not called.
pub(crate) async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let (Some(clock), Some(request_head)) = (
        head.extensions.get::<Clock>().copied(),
        head.extensions.get::<Arc<RequestHead>>().cloned(),
    ) else {
        return Rejection::Internal.into_response();
    };
    let body = match collect(&app, &head, &request_head, body, clock).await {
        Ok(body) => Body::from(body),
        Err(rejection) => return rejection.into_response(),
    };
    let exchange = head.extensions.get::<Arc<Exchange>>();
    let permit = app.limit.acquire(exchange, clock.deadline).await;
    if permit.is_none() {
        if !app.limit.has_time_to_record() {
            return unrecorded_overload(&app, &request_head);
        }
        head.extensions.insert(Overloaded);
    }
    next.run(Request::from_parts(head, body)).await
}

/// A request extension: the concurrency limit left no permit for this callback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overloaded;

async fn collect(
    app: &App,
    head: &Parts,
    request_head: &RequestHead,
    mut body: Body,
    clock: Clock,
) -> Result<Bytes, Rejection> {
    if !acceptable(&head.headers) {
        return Err(Rejection::UnsupportedMediaType);
    }
    if let Err(rejection) = &request_head.operation_id {
        return Err(rejection.clone());
    }
    let max = app.limits.body_bytes;
    let too_large = || Rejection::TooLarge {
        what: "the body",
        max,
        unit: "bytes",
    };
    if content_length(&head.headers).is_some_and(|bytes| bytes > max) {
        return Err(too_large());
    }
    let due = clock.deadline.min(clock.arrived + app.body_read_timeout);
    let exchange = head.extensions.get::<Arc<Exchange>>();
    let mut collected = Collected::default();
    loop {
        let frame = timeout_at(due, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Rejection::TooSlow)? else {
            return Ok(collected.into_bytes());
        };
        let frame = frame.map_err(|error| {
            Rejection::Malformed(format!("the body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if collected.len() + data.len() > max {
            return Err(too_large());
        }
        if let Some(exchange) = exchange {
            let reserved = timeout_at(due, exchange.reserve(data.len())).await;
            reserved.map_err(|_| Rejection::Overloaded)?;
        }
        collected.push(data);
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// The received part of a body. The first chunk, usually the only one, is not copied.
#[derive(Default)]
struct Collected {
    first: Bytes,
    more: BytesMut,
}

impl Collected {
    fn len(&self) -> usize {
        self.first.len().max(self.more.len())
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            let first = mem::take(&mut self.first);
            // Not more: over HTTP/2 a thousand friends arrive in two chunks, and may then wait in the queue.
            self.more.reserve(first.len() + data.len());
            self.more.extend_from_slice(&first);
        }
        self.more.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.more.is_empty() {
            self.first
        } else {
            self.more.freeze()
        }
    }
}

/// The concurrency limit, shared by all routes.
#[derive(Debug)]
pub(crate) struct Limit {
    permits: Semaphore,
    queue_timeout: Duration,
    recorded: PerSecond,
    summary: Summary,
    metrics: Metrics,
}

/// Permission to process a callback, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    _acquired: SemaphorePermit<'a>,
    _counted: Counted,
}

impl Limit {
    pub(crate) fn new(settings: &LimitSettings, registry: &mut Registry) -> Self {
        Self {
            permits: Semaphore::new(settings.max_in_flight),
            queue_timeout: settings.queue_timeout,
            recorded: PerSecond::new(settings.overload_events),
            summary: Summary::default(),
            metrics: Metrics::register(registry),
        }
    }

    /// A permit, or `None` if none becomes available in time. A connection with unread responses waits for a slot of its own window first,
    /// so that it takes no permits from others.
    async fn acquire(
        &self,
        exchange: Option<&Arc<Exchange>>,
        deadline: Instant,
    ) -> Option<Permit<'_>> {
        if exchange.is_none_or(|exchange| exchange.try_acquire_slot())
            && let Ok(permit) = self.permits.try_acquire()
        {
            return Some(self.permit(permit));
        }
        let _queued = Counted::new(&self.metrics.queued);
        let began = Instant::now();
        let due = deadline.min(began + self.queue_timeout);
        let waiting = async {
            if let Some(exchange) = exchange {
                exchange.acquire_slot().await;
            }
            self.permits.acquire().await
        };
        let permit = timeout_at(due, waiting).await;
        self.metrics
            .wait_seconds
            .observe(began.elapsed().as_secs_f64());
        // The semaphore is never closed.
        permit.ok()?.ok().map(|permit| self.permit(permit))
    }

    fn permit<'a>(&self, acquired: SemaphorePermit<'a>) -> Permit<'a> {
        Permit {
            _acquired: acquired,
            _counted: Counted::new(&self.metrics.in_flight),
        }
    }

    /// Whether a callback without a permit is parsed and recorded. Must be called once for each such callback.
    fn has_time_to_record(&self) -> bool {
        self.summary.count(|callbacks| {
            warn!(
                callbacks,
                cause = "overloaded",
                "callbacks exceeded the capacity in the last second; applied IMPORTGUARD_ON_OVERLOAD, or IMPORTGUARD_ON_UNRECORDABLE where there was no time for an event: run more gateways, or raise IMPORTGUARD_MAX_IN_FLIGHT if this one has CPU to spare"
            );
        });
        let has_time = self.recorded.take();
        if !has_time {
            self.metrics.unrecorded.inc();
        }
        has_time
    }
}

/// Histogram buckets in seconds: up to the default of IMPORTGUARD_QUEUE_TIMEOUT, and one beyond.
const WAIT_SECONDS: [f64; 9] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 0.75, 1.5];

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

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
