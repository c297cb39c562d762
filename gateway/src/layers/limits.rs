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
    openim::{Callback, Command, Rejection, RequestHead, acceptable},
    settings::LimitSettings,
};

/// Passes a callback on to its handler if its head is valid and its body arrives in time. If the concurrency limit leaves no permit,
/// the handler applies IMPORTGUARD_ON_OVERLOAD; beyond IMPORTGUARD_OVERLOAD_EVENTS per second, it is not called.
///
/// The fallback is for overload only. Callers must not be able to choose it: whoever sends too slowly or does not read responses is
/// rejected.
pub(crate) async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let (Some(clock), Some(request_head)) = (
        head.extensions.get::<Clock>().copied(),
        head.extensions.get::<Arc<RequestHead>>().cloned(),
    ) else {
        return Rejection::Internal.into_response();
    };
    let decide_by = decide_by(&app, clock);
    let body = match collect(&app, &head, &request_head, body, clock.arrived, decide_by).await {
        Ok(body) => Body::from(body),
        Err(Uncollected::Rejected(rejection)) => return rejection.into_response(),
        Err(Uncollected::NoMemory) => {
            app.limit.overloaded(false);
            return unrecorded_overload(&app, &request_head);
        }
    };
    let exchange = head.extensions.get::<Arc<Exchange>>();
    let permit = app.limit.acquire(exchange, decide_by).await;
    match &permit {
        Ok(_) => {}
        Err(Denied::NoSlot) => return Rejection::UnreadResponses.into_response(),
        Err(Denied::NoPermit) => {
            let recordable = matches!(
                request_head.target.callback,
                Callback::Ours(Command::BeforeImport(_))
            );
            if !app.limit.overloaded(recordable) {
                return unrecorded_overload(&app, &request_head);
            }
            head.extensions.insert(Overloaded);
        }
    }
    next.run(Request::from_parts(head, body)).await
}

/// When a decision must begin: then all of the decider's time is left, or half of the budget if that is less, so that a caller
/// cannot cause a decider's timeout by sending its last byte late.
fn decide_by(app: &App, clock: Clock) -> Instant {
    clock.deadline - app.decider_timeout.min(app.request_budget / 2)
}

/// A request extension: the concurrency limit left no permit for this callback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overloaded;

/// Why there is no complete body.
enum Uncollected {
    Rejected(Rejection),
    /// IMPORTGUARD_MAX_BYTES_IN_FLIGHT left no room for it in time.
    NoMemory,
}

impl From<Rejection> for Uncollected {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

async fn collect(
    app: &App,
    head: &Parts,
    request_head: &RequestHead,
    mut body: Body,
    arrived: Instant,
    decide_by: Instant,
) -> Result<Bytes, Uncollected> {
    if !acceptable(&head.headers) {
        return Err(Rejection::UnsupportedMediaType.into());
    }
    if let Err(rejection) = &request_head.operation_id {
        return Err(rejection.clone().into());
    }
    let max = app.limits.body_bytes;
    let too_large = || Rejection::TooLarge {
        what: "the body",
        max,
        unit: "bytes",
    };
    if content_length(&head.headers).is_some_and(|bytes| bytes > max) {
        return Err(too_large().into());
    }
    let mut due = decide_by.min(arrived + app.body_read_timeout);
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
            return Err(too_large().into());
        }
        if let Some(exchange) = exchange {
            let began = Instant::now();
            let reserved = timeout_at(decide_by, exchange.reserve(data.len())).await;
            reserved.map_err(|_| Uncollected::NoMemory)?;
            // Meanwhile nothing was read, which is not the caller's fault.
            due = decide_by.min(due + began.elapsed());
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

/// Why a callback gets no permit.
#[derive(Clone, Copy, Debug)]
enum Denied {
    /// The gateway is overloaded.
    NoPermit,
    /// The caller has not read the responses on its connection.
    NoSlot,
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

    /// A permit, if one becomes available in time. A connection with unread responses waits for a slot of its own window first, so that it
    /// takes no permits from others.
    async fn acquire(
        &self,
        exchange: Option<&Arc<Exchange>>,
        deadline: Instant,
    ) -> Result<Permit<'_>, Denied> {
        if exchange.is_none_or(|exchange| exchange.try_acquire_slot())
            && let Ok(permit) = self.permits.try_acquire()
        {
            return Ok(self.permit(permit));
        }
        let _queued = Counted::new(&self.metrics.queued);
        let began = Instant::now();
        let due = deadline.min(began + self.queue_timeout);
        let waiting = async {
            if let Some(exchange) = exchange {
                let slot = timeout_at(due, exchange.acquire_slot()).await;
                // Without permits, those before it on its connection wait for one.
                if slot.is_err() && self.permits.available_permits() > 0 {
                    return Err(Denied::NoSlot);
                }
            }
            let permit = timeout_at(due, self.permits.acquire()).await;
            // The semaphore is never closed.
            let permit = permit.ok().and_then(Result::ok);
            permit
                .map(|permit| self.permit(permit))
                .ok_or(Denied::NoPermit)
        };
        let permit = waiting.await;
        self.metrics
            .wait_seconds
            .observe(began.elapsed().as_secs_f64());
        permit
    }

    fn permit<'a>(&self, acquired: SemaphorePermit<'a>) -> Permit<'a> {
        Permit {
            _acquired: acquired,
            _counted: Counted::new(&self.metrics.in_flight),
        }
    }

    /// Counts a callback that overload keeps from being decided. Returns whether there is time to record it, if it can be recorded.
    fn overloaded(&self, recordable: bool) -> bool {
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
