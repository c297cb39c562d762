//! Answered means recorded: an event is acknowledged by NATS or committed to the spool before its callback is answered.
//!
//! [`Recorder`] is the whole of it for the rest of the gateway. Behind it: `state` says whether events go to NATS or to the
//! spool, `publisher` is the connection, `spool` the disk, and `drain` the task that brings what is on disk to NATS. What NATS
//! refuses while it takes other events is parked on the disk: `refusal` tells it apart, `blocked` remembers it, and `retry` tries
//! it again.

mod attempts;
mod batch;
mod blocked;
mod drain;
mod metrics;
mod publisher;
mod reach;
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

use importguard_nats::NatsSettingsError;
use importguard_runtime::Runtime;
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
    metrics::{Gauges, Metrics},
    publisher::{Message, Publisher},
    reach::Reach,
    refusal::AckError,
    requirements::Deviations,
    state::{Machine, Observed},
    status::{LastError, events},
};

use crate::{
    events::{Event, Subject},
    spool::{AppendError, NewEvent, ParkReason, Spool, lock},
};

pub use self::{
    settings::{RecordSettings, StreamSettings},
    state::State,
    status::{ParkedStatus, RecorderStatus},
};
pub use crate::spool::{SpoolOpenError, SpoolState, SpoolStatus, SpoolSync};

/// A timeout below a quarter of the ack timeout may be a brief delay; a longer one means that NATS is unavailable.
const HURRIED: u32 = 4;

/// How an event was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// NATS has it, and said so.
    Streamed,
    /// The spool has it, and NATS will.
    Spooled,
}

/// Why an event is recorded nowhere. NATS may still turn out to have it, where an ack was waited for in vain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// NATS is away and the spool has no room left.
    #[error(
        "NATS does not accept events and the spool is full: it may grow to {max_bytes} bytes (IMPORTGUARD_SPOOL_MAX_BYTES)"
    )]
    SpoolFull {
        /// What it may grow to.
        max_bytes: u64,
    },
    /// The request's time was over before the spool had committed the event.
    #[error(
        "NATS does not accept events and the spool did not commit before the deadline of the request"
    )]
    TooLate,
    /// The request's time was over although NATS accepts events: the gateway, its disk or NATS is too busy.
    #[error(
        "the deadline of the request was over before NATS acknowledged the event or the spool committed it"
    )]
    NoTime,
    /// The spool's files or its disk cannot be used.
    #[error("NATS does not accept events and the spool is broken: {0}")]
    SpoolBroken(String),
    /// The recorder was closed, or its spool's thread is gone.
    #[error("the recorder is closed")]
    Closed,
}

/// Why recording can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spool can't be opened.
    #[error(transparent)]
    Spool(#[from] SpoolOpenError),
    /// NATS's settings are unusable.
    #[error(transparent)]
    NatsSettings(#[from] NatsSettingsError),
    /// The client refuses its settings.
    #[error("can't set up the connection to NATS at {servers}: {source}")]
    Nats {
        /// `host:port` of each server, comma-separated.
        servers: String,
        /// Why.
        source: async_nats::ConnectError,
    },
    /// The task that opens the spool failed.
    #[error("opening the spool failed: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Records events. Clones are handles to the same recorder.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: RecordSettings,
    machine: Arc<Machine>,
    publisher: Publisher,
    /// A connection was established.
    connected: Arc<Notify>,
    spool: Spool,
    metrics: Metrics,
    last_error: Arc<LastError>,
    /// What NATS refuses.
    blocked: Blocked,
    /// Where the stream falls short.
    deviations: Arc<Deviations>,
    reach: Arc<Reach>,
    attempts: Attempts,
    drain: std::sync::Mutex<Option<JoinHandle<()>>>,
    /// A thread or task that must not end has ended.
    ended: CancellationToken,
}

impl Recorder {
    /// Opens the spool, registers the metrics and starts connecting to NATS without waiting for it: until NATS has answered,
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

    /// The same for a spool that is only to be emptied: [`ended`](Self::ended) is cancelled when NATS has all events, or has
    /// refused those that are left.
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
        let reach = Arc::new(Reach::default());
        let metrics = runtime.registry.register(|registry| {
            let gauges = Gauges {
                machine: machine.clone(),
                depth: spool.depth().clone(),
                health: spool.health().clone(),
                deviations: deviations.clone(),
                reach: reach.clone(),
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
            move |event| match event {
                async_nats::Event::Connected => {
                    first.is_made.store(true, Ordering::Relaxed);
                    connected.notify_one();
                }
                // Told where its event is parked.
                event if is_about_an_event(&event) => {}
                event => {
                    if let Some(error) = publisher::connection_error(&event) {
                        note(&last_error, &error, &first);
                    }
                    if event == async_nats::Event::Disconnected {
                        machine.fail(machine.see());
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
            deviations,
            reach,
            attempts,
            drain: std::sync::Mutex::new(None),
            ended: ended.clone(),
        });
        let drain = Drain::new(inner.clone(), purpose);
        *lock(&inner.drain) = Some(tokio::spawn(async move {
            // Dropped by a panic too.
            let _ended = ended.drop_guard();
            drain.run().await;
        }));
        Ok(Self(inner))
    }

    /// Returns once `event` is acknowledged by NATS or committed to the spool, or an error at `deadline`. Dropping the
    /// future leaves open whether it is recorded.
    pub async fn record(&self, event: Event, deadline: Instant) -> Result<Recorded, RecordError> {
        let recorder = &*self.0;
        let seen = recorder.machine.see();
        let subject = event.subject.as_str();
        let mut parked = recorder.blocked.reason(subject);
        let mut attempted_after = None;
        let may_publish = seen.state() != State::Spooling && parked.is_none();
        if may_publish && !recorder.publisher.connected() {
            recorder.fail(seen, &AckError::Disconnected.to_string());
        } else if may_publish {
            let after = recorder.publisher.sequence();
            match recorder.publish(&event, deadline).await {
                Ok(ack) => {
                    recorder.metrics.streamed(ack);
                    return Ok(Recorded::Streamed);
                }
                Err(AckError::Refused(refusal)) => {
                    recorder.blocked.refused(subject, &refusal);
                    parked = Some(refusal.reason);
                }
                Err(error) => {
                    if !recorder.hurried(&error) {
                        recorder.fail(seen, &error.to_string());
                    }
                    attempted_after = error.may_be_stored().then_some(after);
                }
            }
        }
        if attempted_after.is_some() {
            recorder.attempts.note(recorder.settings.ack_timeout);
        }
        let event = NewEvent {
            id: event.id,
            subject,
            operation_id: event.operation_id,
            trace: event.trace,
            payload: event.payload,
            attempted_after,
            parked,
        };
        match recorder.spool.append(event, deadline).await {
            Ok(()) => {
                recorder.metrics.spooled();
                Ok(Recorded::Spooled)
            }
            Err(error) => {
                recorder.metrics.unrecordable();
                let accepts = recorder.machine.see().state() != State::Spooling;
                match error {
                    AppendError::TooSlow if may_publish && accepts => Err(RecordError::NoTime),
                    error => Err(recorder.unrecordable(error)),
                }
            }
        }
    }

    /// How things stand.
    pub fn status(&self) -> RecorderStatus {
        let recorder = &*self.0;
        let depth = recorder.spool.depth();
        RecorderStatus {
            state: recorder.machine.see().state(),
            nats: recorder.publisher.servers().to_owned(),
            spooled_events: depth.events(),
            parked: recorder.parked(),
            stream_deviations: recorder.deviations.texts(),
            spool_bytes: depth.used_bytes(),
            spool_max_bytes: depth.max_bytes(),
            spool: recorder.spool.health().status(),
            last_error: recorder.last_error.last(),
        }
    }

    /// The status once NATS takes events, or after `within`: so that a start banner needn't say "spooling" only because
    /// connecting takes a millisecond.
    pub async fn settled(&self, within: Duration) -> RecorderStatus {
        let _ = timeout(within, self.0.machine.left(State::Spooling)).await;
        self.status()
    }

    /// The largest message NATS takes, in bytes: the server's limit, or the stream's if that is less; NATS's default of
    /// 1 MiB before the first connection.
    pub fn max_payload(&self) -> usize {
        self.0.publisher.max_payload()
    }

    /// The host and port of the NATS server, if the settings name just one.
    pub fn server(&self) -> Option<&(String, u16)> {
        self.0.publisher.server()
    }

    /// Cancelled when the recorder can't go on, as one of its threads or tasks has ended: the process should end too, and be
    /// started again. Also cancelled by [`close`](Self::close).
    pub fn ended(&self) -> CancellationToken {
        self.0.ended.clone()
    }

    /// Lets a drain that is making progress come to its end, commits what is on its way to the spool and flushes the
    /// connection, all within `within`. What is then still in the spool is for the next start. Events that come later are
    /// [`RecordError::Closed`].
    pub async fn close(&self, within: Duration) {
        let recorder = &*self.0;
        let deadline = Instant::now() + within;
        if recorder.machine.see().state() == State::Draining {
            let waiting = recorder.spool.depth().waiting();
            let text = events(waiting);
            tracing::info!(events = waiting, "publishing {text} from the spool");
        }
        let _ = timeout_at(
            deadline - within / 2,
            recorder.machine.left(State::Draining),
        )
        .await;
        if let Some(drain) = lock(&recorder.drain).take() {
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

/// NATS may be starting along with this gateway.
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

    /// Whether it is no reason for a warning yet that there is none.
    fn is_awaited(&self) -> bool {
        !self.is_made.load(Ordering::Relaxed) && self.began.elapsed() < CONNECT_TIMEOUT
    }
}

/// Logs an error of the connection, unless it is the last one again, or the first connection is still awaited: the drain logs the last
/// error of those.
fn note(last_error: &LastError, error: &str, first: &FirstConnection) {
    if last_error.note(error) && !first.is_awaited() {
        tracing::warn!("{error}");
    }
}

impl Inner {
    /// Publishes and waits for the ack, at most half of what is left till `deadline`: the other half is the spool's.
    async fn publish(&self, event: &Event, deadline: Instant) -> Result<Duration, AckError> {
        let start = Instant::now();
        let wait = self
            .settings
            .ack_timeout
            .min(deadline.saturating_duration_since(start) / 2);
        let sent = timeout_at(start + wait, self.publisher.send(Message::from(event))).await;
        let sent = sent.unwrap_or(Err(AckError::Timeout(wait)))?;
        self.publisher.acknowledged(sent, start, wait).await?;
        Ok(start.elapsed())
    }

    /// What NATS refuses, by reason.
    fn parked(&self) -> Vec<ParkedStatus> {
        let counts = self.spool.depth().parked();
        let parked = ParkReason::ALL.into_iter().filter_map(|reason| {
            let events = counts.of(reason);
            (events > 0).then(|| ParkedStatus {
                reason: reason.as_str(),
                events,
                detail: self.blocked.detail(reason),
            })
        });
        parked.collect()
    }

    /// A request with so little time left that its timeout says nothing about NATS.
    fn hurried(&self, error: &AckError) -> bool {
        matches!(error, AckError::Timeout(waited) if *waited < self.settings.ack_timeout / HURRIED)
    }

    /// A publication failed that began in the state `seen`: spool from now on.
    fn fail(&self, seen: Observed, error: &str) {
        if self.machine.fail(seen) {
            self.last_error.note(error);
            tracing::warn!("{error}: buffering events in the spool until NATS accepts them");
        }
    }

    fn unrecordable(&self, error: AppendError) -> RecordError {
        match error {
            AppendError::Full => RecordError::SpoolFull {
                max_bytes: self.spool.depth().max_bytes(),
            },
            AppendError::TooSlow => RecordError::TooLate,
            AppendError::Broken(why) => RecordError::SpoolBroken(why),
            AppendError::Closed => RecordError::Closed,
        }
    }
}

/// The server denies a publication on one of the events' subjects.
fn is_about_an_event(event: &async_nats::Event) -> bool {
    blocked::denied_subject(event).is_some_and(|denied| {
        Subject::ALL
            .iter()
            .any(|subject| subject.as_str() == denied)
    })
}
