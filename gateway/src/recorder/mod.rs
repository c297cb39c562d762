//! Records events before callbacks are answered: NATS has acknowledged the event, or it is committed to the spool.
//!
//! [`Recorder`] is the interface to the rest of the gateway. Behind it, `state` decides whether events go to NATS or to the spool,
//! `publisher` is the connection, `spool` the disk, and `drain` the task that publishes spooled events to NATS. Events that NATS refuses
//! while it accepts others are parked in the spool: `refusal` recognises them, `blocked` remembers their subjects, and `retry` retries
//! them.

mod attempts;
mod batch;
mod blocked;
mod drain;
mod error;
mod metrics;
mod publisher;
mod refusal;
mod requirements;
mod retry;
mod settings;
mod state;
mod status;
mod stream;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use importguard_runtime::{Runtime, Saturation};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::{
    attempts::Attempts,
    blocked::Blocked,
    drain::{CONNECT_TIMEOUT, Drain, Purpose},
    metrics::{Gauges, Metrics, StreamStats},
    publisher::Publisher,
    refusal::{AckError, Refusal},
    requirements::Deviations,
    state::{Machine, Observed},
    status::{LastError, events},
};

use crate::{
    events::Event,
    spool::{AppendError, PendingEvent, Spool},
};

pub use self::{
    error::{RecordError, StartError},
    settings::{RecordSettings, StreamSettings},
    state::State,
    status::{Drained, ParkedStatus, RecorderStatus},
};
pub use crate::spool::{SpoolOpenError, SpoolState, SpoolStatus, SpoolSync};

/// A timeout after less than a quarter of the ack timeout may be a brief delay; a longer one means that NATS is unavailable.
const INCONCLUSIVE_FRACTION: u32 = 4;

/// How an event was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// NATS has acknowledged it.
    Streamed,
    /// It is committed to the spool and will be published later.
    Spooled,
}

/// Records events. Clones are handles to the same recorder.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: RecordSettings,
    machine: Arc<Machine>,
    publisher: Publisher,
    /// Notified when a connection is established.
    connected: Arc<Notify>,
    spool: Spool,
    metrics: Metrics,
    last_error: Arc<LastError>,
    /// Subjects that NATS refuses.
    blocked: Blocked,
    /// The subjects of the stream as last seen.
    subjects: Mutex<Vec<String>>,
    /// Settings of the stream that weaken the guarantees.
    deviations: Arc<Deviations>,
    stream_stats: Arc<StreamStats>,
    attempts: Attempts,
    drained: Mutex<Drained>,
    drain: Mutex<Option<JoinHandle<()>>>,
    /// Cancelled when a thread or task that must not end has ended.
    ended: CancellationToken,
}

impl Recorder {
    /// Opens the spool, registers the metrics and starts connecting to NATS without waiting for the connection. Until NATS has answered,
    /// events go to the spool. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the spool or the credentials file cannot be used.
    pub async fn start(
        settings: RecordSettings,
        runtime: &mut Runtime,
    ) -> Result<Self, StartError> {
        Self::begin(settings, runtime, Purpose::Record).await
    }

    /// Like [`start`](Self::start), for a spool that is only to be emptied: [`ended`](Self::ended) is cancelled when NATS has stored or
    /// refused all its events.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn empty(
        settings: RecordSettings,
        runtime: &mut Runtime,
    ) -> Result<Self, StartError> {
        Self::begin(settings, runtime, Purpose::Empty).await
    }

    async fn begin(
        settings: RecordSettings,
        runtime: &mut Runtime,
        purpose: Purpose,
    ) -> Result<Self, StartError> {
        let readiness = runtime.readiness.clone();
        let ended = CancellationToken::new();
        let spool = tokio::task::spawn_blocking({
            let (dir, max_bytes) = (settings.spool.clone(), settings.spool_max_bytes);
            let sync = settings.spool_sync;
            let ended = ended.clone();
            move || Spool::open(&dir, max_bytes, sync, ended)
        });
        let spool = readiness.opening("spool", async { Ok::<_, StartError>(spool.await??) });
        let spool = spool.await?;
        if settings.pseudonyms.is_on() && spool.depth().events() > 0 {
            tracing::warn!(
                events = spool.depth().events(),
                "events in the spool are published as they are: with user IDs, if they are older than the pseudonym key"
            );
        }
        let name = match purpose {
            Purpose::Record => "importguard-gateway",
            Purpose::Empty => "importguard-spool",
        };
        let servers = settings.nats.servers(name, &mut runtime.files);
        let servers = readiness.opening("NATS credentials", servers).await?;
        if let Some(warning) = servers.warning {
            tracing::warn!("{warning}");
        }
        let machine = Arc::new(Machine::new());
        let deviations = Arc::new(Deviations::default());
        let stream_stats = Arc::new(StreamStats::default());
        let metrics = runtime.registry.register(|registry| {
            let gauges = Gauges {
                machine: machine.clone(),
                depth: spool.depth().clone(),
                health: spool.health().clone(),
                deviations: deviations.clone(),
                stream_stats: stream_stats.clone(),
            };
            Metrics::register(registry, gauges)
        });
        let last_error = Arc::new(LastError::default());
        let first = Arc::new(FirstConnection::begin());
        let connected = Arc::new(Notify::new());
        let servers = servers.on_failure({
            let (last_error, first) = (last_error.clone(), first.clone());
            move |error| note(&last_error, &error, &first)
        });
        let publisher = Publisher::connect(servers, {
            let (machine, last_error, connected) =
                (machine.clone(), last_error.clone(), connected.clone());
            move |event| {
                last_error.note_event(&event);
                match event {
                    async_nats::Event::Connected => {
                        first.is_made.store(true, Ordering::Relaxed);
                        connected.notify_one();
                    }
                    // Logged when the event is parked.
                    event if blocked::is_about_an_event(&event) => {}
                    event => {
                        if let Some(error) = publisher::connection_error(&event) {
                            note(&last_error, &error, &first);
                        }
                        if event == async_nats::Event::Disconnected {
                            machine.fail(machine.observe());
                        }
                    }
                }
            }
        })
        .await?;
        let attempts = Attempts::new(spool.depth().events() > 0);
        let inner = Arc::new(Inner {
            settings,
            machine,
            publisher,
            connected,
            spool,
            metrics,
            last_error,
            blocked: Blocked::default(),
            subjects: Mutex::default(),
            deviations,
            stream_stats,
            attempts,
            drained: Mutex::default(),
            drain: Mutex::new(None),
            ended: ended.clone(),
        });
        let drain = Drain::new(inner.clone(), purpose);
        *inner.drain.lock() = Some(tokio::spawn(async move {
            // Also cancelled if the task panics.
            let _ended = ended.drop_guard();
            drain.run().await;
        }));
        Ok(Self(inner))
    }

    /// Returns once `event` is acknowledged by NATS or committed to the spool; returns an error at `deadline`. If the future is dropped,
    /// the event may or may not be recorded. After `deadline`, it is not.
    pub async fn record(&self, event: Event, deadline: Instant) -> Result<Recorded, RecordError> {
        let recorder = &*self.0;
        if Instant::now() >= deadline {
            recorder.metrics.unrecordable();
            return Err(RecordError::NoTime);
        }
        let seen = recorder.machine.observe();
        let mut event = PendingEvent {
            id: event.id,
            subject: event.subject.into_str().into(),
            operation_id: event.operation_id.into(),
            trace: event.trace,
            payload: event.payload,
            attempted_after: None,
            parked: recorder.blocked.reason_to_park(event.subject.into_str()),
        };
        let may_publish = seen.state() != State::Spooling && event.parked.is_none();
        if may_publish && !recorder.publisher.connected() {
            recorder.fail(seen, &AckError::Disconnected.to_string());
        } else if may_publish {
            let after = recorder.publisher.sequence();
            let waited = Saturation::begin();
            let error = match recorder.publish(&event, deadline).await {
                Ok(ack) => {
                    recorder.blocked.accepted(&event.subject);
                    recorder.metrics.streamed(ack);
                    return Ok(Recorded::Streamed);
                }
                Err(error) => error,
            };
            match recorder.refusal(error, &event.subject) {
                Ok(refusal) => {
                    recorder.blocked.refused(&event.subject, &refusal);
                    event.parked = Some(refusal.reason);
                    event.attempted_after = refusal.may_be_stored.then_some(after);
                }
                Err(error) => {
                    if !recorder.is_inconclusive(&error, waited) {
                        recorder.fail(seen, &error.to_string());
                    }
                    event.attempted_after = error.may_be_stored().then_some(after);
                }
            }
        }
        if event.attempted_after.is_some() {
            recorder.attempts.note(recorder.settings.ack_timeout);
        }
        match recorder.spool.append(event, deadline).await {
            Ok(()) => {
                recorder.metrics.spooled();
                Ok(Recorded::Spooled)
            }
            Err(error) => {
                recorder.metrics.unrecordable();
                let accepts = recorder.machine.observe().state() != State::Spooling;
                match error {
                    AppendError::TooSlow if may_publish && accepts => Err(RecordError::NoTime),
                    error => Err(recorder.unrecordable(error)),
                }
            }
        }
    }

    /// Returns the events that were drained so far.
    pub fn drained(&self) -> Drained {
        *self.0.drained.lock()
    }

    /// Returns the status once NATS accepts events, or after `within`, so that a start banner does not say "spooling" only because
    /// connecting takes a millisecond.
    pub async fn settled(&self, within: Duration) -> RecorderStatus {
        let _ = timeout(within, self.0.machine.wait_until_left(State::Spooling)).await;
        self.status()
    }

    /// Returns the size of the largest message that NATS accepts, in bytes: the server's limit, or the stream's if that is less. Before
    /// the first connection, it is NATS's default of 1 MiB.
    pub fn max_payload(&self) -> usize {
        self.0.publisher.max_payload()
    }

    /// Returns the host and port of the NATS server if the settings name exactly one.
    pub fn server(&self) -> Option<&(String, u16)> {
        self.0.publisher.server()
    }

    /// Returns a token that is cancelled when the recorder cannot continue because one of its threads or tasks has ended. The process
    /// should then exit and be restarted. [`close`](Self::close) also cancels it.
    pub fn ended(&self) -> CancellationToken {
        self.0.ended.clone()
    }

    /// Closes the recorder within `within`: lets an active drain finish for up to half of that time, commits queued events to the spool,
    /// and flushes the connection. Events left in the spool are published after the next start. Later calls of [`record`](Self::record)
    /// fail with [`RecordError::Closed`].
    pub async fn close(&self, within: Duration) {
        let recorder = &*self.0;
        let deadline = Instant::now() + within;
        if recorder.machine.observe().state() == State::Draining {
            let waiting = recorder.spool.depth().waiting();
            let text = events(waiting);
            tracing::info!(events = waiting, "publishing {text} from the spool");
        }
        let _ = timeout_at(
            deadline - within / 2,
            recorder.machine.wait_until_left(State::Draining),
        )
        .await;
        if let Some(drain) = recorder.drain.lock().take() {
            drain.abort();
        }
        recorder.spool.close(deadline).await;
        recorder.publisher.close(deadline).await;
        let left = recorder.spool.depth().events();
        match left {
            0 => tracing::info!(
                events = left,
                "closed the connection to NATS and the spool, which is empty"
            ),
            _ => tracing::info!(
                events = left,
                "closed the connection to NATS and the spool: {} left in it for the next start",
                events(left)
            ),
        }
    }
}

/// The first connection. NATS may be starting at the same time as this gateway, so its absence is no warning at first.
struct FirstConnection {
    began: Instant,
    is_made: AtomicBool,
}

impl FirstConnection {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            is_made: AtomicBool::new(false),
        }
    }

    /// Returns whether it is too early to warn that there is no connection.
    fn is_awaited(&self) -> bool {
        !self.is_made.load(Ordering::Relaxed) && self.began.elapsed() < CONNECT_TIMEOUT
    }
}

/// Records a connection error. Logs it unless it repeats the last one or the first connection is still awaited: the drain then logs the
/// last error.
fn note(last_error: &LastError, error: &str, first: &FirstConnection) {
    if last_error.note(error) && !first.is_awaited() {
        tracing::warn!("{error}");
    }
}

impl Inner {
    /// Publishes `event` and waits for its ack, for at most half of the time left until `deadline`: the other half is for the spool.
    async fn publish(&self, event: &PendingEvent, deadline: Instant) -> Result<Duration, AckError> {
        let start = Instant::now();
        let wait = self
            .settings
            .ack_timeout
            .min(deadline.saturating_duration_since(start) / 2);
        let sent = timeout_at(start + wait, self.publisher.send(event)).await;
        let sent = sent.unwrap_or(Err(AckError::Timeout(wait)))?;
        self.publisher.acknowledged(sent, start, wait).await?;
        Ok(start.elapsed())
    }

    /// Returns the refusal of one event or of its subject that `error` expresses, or else `error` itself. If the stream lacks the subject,
    /// NATS answers that nobody takes it or, if there is a plain subscriber, not at all.
    fn refusal(&self, error: AckError, subject: &str) -> Result<Refusal, AckError> {
        match error {
            AckError::Refused(refusal) => Ok(refusal),
            AckError::NoStream | AckError::Timeout(_)
                if !requirements::takes(&self.subjects.lock(), subject) =>
            {
                Ok(Refusal::subject_missing(subject))
            }
            error => Err(error),
        }
    }

    /// Returns whether a timeout says nothing about NATS: the request had little time left, or this process had no time for the ack.
    fn is_inconclusive(&self, error: &AckError, waited: Saturation) -> bool {
        let enough = self.settings.ack_timeout / INCONCLUSIVE_FRACTION;
        matches!(error, AckError::Timeout(within) if *within < enough || waited.is_saturated())
    }

    /// Spools from now on, because a publication that began in the state `seen` failed.
    fn fail(&self, seen: Observed, error: &str) {
        if self.machine.fail(seen) {
            self.last_error.note(error);
            tracing::warn!("{error}: buffering events in the spool until NATS accepts them");
        }
    }

    fn unrecordable(&self, error: AppendError) -> RecordError {
        let max_bytes = self.spool.depth().max_bytes();
        match error {
            AppendError::Full => RecordError::SpoolFull { max_bytes },
            AppendError::ParkedFull => RecordError::ParkedFull { max_bytes },
            AppendError::TooSlow => RecordError::TooLate,
            AppendError::Broken(why) => RecordError::SpoolBroken(why),
            AppendError::Closed => RecordError::Closed,
        }
    }
}
