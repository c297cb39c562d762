//! The source of events: a consumer on the stream, looked up or created again whenever the connection or the stream is lost.

mod consumer;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::bail;
use async_nats::{
    Client, ConnectErrorKind, Event,
    connection::State,
    jetstream::{
        self, AckKind, Message,
        consumer::{PullConsumer, pull},
        stream::Info,
    },
};
use futures_util::StreamExt;
use importguard_nats::{ClosingError, NatsSettings};
use importguard_runtime::FileWatches;
use tokio::{
    sync::{SetOnce, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Console, Durable, Range,
    console::StatusReporter,
    nats_error::{forbidden, with_remedy},
};

const STREAM: &str = "IMPORTGUARD";

/// Batch size of a pull request: some 100 KB.
const BATCH_SIZE: u64 = 100;

/// The interval at which a missing server or stream is looked up again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Timeout of the first connection event, and of the last flush.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait for the next event of a batch that is given back: NATS sends what is stored without a pause.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_millis(100);

/// How much later than its expiry the end of a pull request may arrive. Once that is over, NATS does not respond.
const LATE: Duration = Duration::from_secs(3);

/// How long to wait for NATS if the stream is not followed. A cluster elects a leader in less.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Batch size if the stream is not followed, without `--durable`: no event waits for an ack.
const FETCH_SIZE: u64 = 1000;

/// An event as NATS delivers it.
pub(crate) struct Delivered<'a> {
    /// The event.
    pub(crate) payload: &'a [u8],
    /// How many events after this one are stored.
    pub(crate) pending: u64,
    /// When NATS stored it, if known.
    pub(crate) stored: Option<SystemTime>,
}

/// What to do after a batch.
enum Next {
    Batch,
    /// Look up the consumer again.
    Consumer,
    End,
}

/// The stream on NATS.
pub(crate) struct Source {
    client: Client,
    /// Counts the connections.
    connections: watch::Receiver<u64>,
    range: Range,
    durable: Option<Durable>,
    /// The only subjects to read without `--durable`; empty for all.
    subjects: &'static [&'static str],
    /// Stream sequence of the last event to read; `None` until the stream is found, and if it is followed.
    last: Option<u64>,
    /// The stream as it was when it was found; `None` until then.
    found: Option<Info>,
    /// Stream sequence of the last event read.
    position: Option<u64>,
    /// How many more events are wanted, if there is a limit.
    wanted: Option<u64>,
    /// When the stream that `position` belongs to was created.
    created: Option<SystemTime>,
    /// What NATS does not permit, if the stream is not followed.
    denied: Arc<SetOnce<String>>,
    status: StatusReporter,
}

impl Source {
    /// Connects. Waits while no server is reachable, if the stream is followed.
    ///
    /// # Errors
    /// If `shutdown` is cancelled meanwhile, a server rejects the connection, the settings are invalid, or no server is reachable and the
    /// stream is not followed.
    pub(crate) async fn connect(
        nats: &NatsSettings,
        range: Range,
        durable: Option<Durable>,
        console: Console,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        tokio::select! {
            source = Self::open(nats, range, durable, console) => source,
            () = shutdown.cancelled() => bail!("interrupted while connecting to NATS"),
        }
    }

    async fn open(
        nats: &NatsSettings,
        range: Range,
        durable: Option<Durable>,
        console: Console,
    ) -> anyhow::Result<Self> {
        let mut files = FileWatches::without_metrics();
        let servers = nats.servers(&client_name(console), &mut files).await?;
        tokio::spawn(async move { files.run_without_sighup().await });
        if let Some(warning) = servers.warning {
            console.report(&format!("warning: {warning}"));
        }
        let status = StatusReporter::new(console);
        let lost = status.clone();
        let mut servers = servers.on_failure(move |cause| lost.report_retry(&cause));
        let (connected, mut connections) = watch::channel(0);
        let events = status.clone();
        let denied = Arc::new(SetOnce::new());
        let (first_denied, ends) = (Arc::clone(&denied), !range.follows());
        let closing = ClosingError::default();
        // Keeps the order: an attempt ends with the error of the last server, which should be the same each time, to be reported once.
        let options = servers.options.retain_servers_order();
        servers.options = options.event_callback(move |event| {
            closing.note(&event);
            match event {
                Event::Connected => connected.send_modify(|count| *count += 1),
                Event::Disconnected if closing.is_known() => {}
                Event::Disconnected => events.report_retry("lost the connection to NATS"),
                Event::ServerError(error) => {
                    match forbidden(&error.to_string(), "_INBOX_support") {
                        // Ends the command, which reports the first one.
                        Some(why) if ends => drop(first_denied.set(why)),
                        Some(why) => events.report(&why),
                        None => events.report(&format!("NATS error: {error}")),
                    }
                }
                _ => {}
            }
            std::future::ready(())
        });
        let client = loop {
            match servers.connect().await {
                Ok(client) => break client,
                Err((
                    ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::TimedOut,
                    cause,
                )) if range.follows() => {
                    status.report_retry(&cause);
                    sleep(RETRY_INTERVAL).await;
                }
                Err((_, cause)) => bail!(with_remedy(cause)),
            }
        };
        // The event of this connection arrives shortly afterwards. If it were mistaken for a reconnect, it would cause a second pull
        // request, and the events sent for the first one would be delivered again only half a minute later.
        let _ = timeout(FLUSH_TIMEOUT, connections.wait_for(|count| *count > 0)).await;
        Ok(Self {
            client,
            connections,
            range,
            durable,
            subjects: &[],
            last: None,
            found: None,
            position: None,
            wanted: None,
            created: None,
            denied,
            status,
        })
    }

    /// Reads events on these subjects only. NATS does not send the others, such as the changes of an imported list.
    pub(crate) const fn only(&mut self, subjects: &'static [&'static str]) {
        self.subjects = subjects;
    }

    /// Calls `handle` for each event, in order, until the range ends, no more are wanted, `handle` fails, or `shutdown` is cancelled.
    /// `wanted` is how many are wanted, if there is a limit; `handle` returns how many more.
    pub(crate) async fn follow(
        &mut self,
        shutdown: CancellationToken,
        wanted: Option<u64>,
        handle: impl FnMut(&Delivered<'_>) -> anyhow::Result<Option<u64>>,
    ) -> anyhow::Result<()> {
        let denied = Arc::clone(&self.denied);
        tokio::select! {
            ended = self.read_range(shutdown, wanted, handle) => ended,
            // NATS does not respond to a denied request, so it would wait in vain.
            denied = denied.wait() => bail!(denied.clone()),
        }
    }

    async fn read_range(
        &mut self,
        shutdown: CancellationToken,
        wanted: Option<u64>,
        mut handle: impl FnMut(&Delivered<'_>) -> anyhow::Result<Option<u64>>,
    ) -> anyhow::Result<()> {
        let jetstream = jetstream::new(self.client.clone());
        let mut asked = Instant::now();
        self.wanted = wanted;
        loop {
            self.connections.mark_unchanged();
            let found = tokio::select! {
                found = self.consumer(&jetstream) => found?,
                () = shutdown.cancelled() => return Ok(()),
            };
            let Some(consumer) = found else {
                if !self.range.follows() && asked.elapsed() >= GIVE_UP {
                    let why = self.status.last();
                    let why = why.unwrap_or_else(|| format!("cannot access the stream {STREAM}"));
                    bail!("gave up after {} seconds: {why}", GIVE_UP.as_secs());
                }
                tokio::select! {
                    () = sleep(RETRY_INTERVAL) => continue,
                    () = shutdown.cancelled() => return Ok(()),
                }
            };
            asked = Instant::now();
            let ended = self.read(&consumer, &shutdown, &mut handle).await;
            if !matches!(ended, Ok(false)) {
                let _ = timeout(FLUSH_TIMEOUT, self.client.flush()).await;
                return ended.map(drop);
            }
        }
    }

    /// Reads until the end (true) or until the consumer must be looked up again (false).
    async fn read(
        &mut self,
        consumer: &PullConsumer,
        shutdown: &CancellationToken,
        handle: &mut impl FnMut(&Delivered<'_>) -> anyhow::Result<Option<u64>>,
    ) -> anyhow::Result<bool> {
        loop {
            let follows = self.range.follows();
            let Ok(mut batch) = self.request(consumer, follows).await else {
                return Ok(false);
            };
            let read = self.read_batch(&mut batch, follows, shutdown, handle);
            let next = read.await;
            self.give_back(batch).await;
            match next? {
                Next::Batch => {}
                Next::Consumer => return Ok(false),
                Next::End => return Ok(true),
            }
        }
    }

    async fn read_batch(
        &mut self,
        batch: &mut pull::Batch,
        follows: bool,
        shutdown: &CancellationToken,
        handle: &mut impl FnMut(&Delivered<'_>) -> anyhow::Result<Option<u64>>,
    ) -> anyhow::Result<Next> {
        let mut empty = true;
        let patience = match follows {
            true => self.range.expiry() + LATE,
            false => GIVE_UP,
        };
        loop {
            let message = tokio::select! {
                message = batch.next() => message,
                () = shutdown.cancelled() => return Ok(Next::End),
                () = sleep(patience) => {
                    if !follows {
                        let seconds = patience.as_secs();
                        bail!("gave up after {seconds} seconds: NATS delivered nothing from the stream {STREAM}");
                    }
                    if !self.lost_connection() {
                        self.status.report_retry("NATS does not respond");
                    }
                    return Ok(Next::Consumer);
                }
                // The server dropped the pull request of the previous connection.
                _ = self.connections.changed() => return Ok(Next::Consumer),
            };
            let message = match message {
                Some(Ok(message)) => message,
                Some(Err(_)) => return Ok(Next::Consumer),
                None if empty && !follows => return Ok(Next::End),
                None => return Ok(Next::Batch),
            };
            empty = false;
            if self.read_message(&message, follows, handle).await? {
                return Ok(Next::End);
            }
        }
    }

    /// Calls `handle` for an event, unless it is after the range. Returns whether reading ends.
    async fn read_message(
        &mut self,
        message: &Message,
        follows: bool,
        handle: &mut impl FnMut(&Delivered<'_>) -> anyhow::Result<Option<u64>>,
    ) -> anyhow::Result<bool> {
        let info = message.info().ok();
        let stored = info.as_ref().map(|info| SystemTime::from(info.published));
        if stored.is_some_and(|stored| self.range.until.is_some_and(|until| stored >= until)) {
            self.acknowledge(message, AckKind::Nak(None)).await;
            return Ok(true);
        }
        let handled = handle(&Delivered {
            payload: &message.payload,
            pending: info.as_ref().map_or(0, |info| info.pending),
            stored,
        });
        self.wanted = match handled {
            Ok(wanted) => wanted,
            Err(error) => {
                self.acknowledge(message, AckKind::Nak(None)).await;
                return Err(error);
            }
        };
        // If the ack is lost, the event is delivered again.
        self.acknowledge(message, AckKind::Ack).await;
        let sequence = info.map(|info| info.stream_sequence);
        self.position = sequence.or(self.position);
        // Otherwise, reading a busy stream would never end.
        let was_last = !follows && self.last.is_some_and(|last| sequence >= Some(last));
        Ok(was_last || self.wanted == Some(0))
    }

    /// Whether the connection that was there before the last request for a consumer is lost. What it lacks then says nothing, and the cause
    /// is reported already.
    fn lost_connection(&self) -> bool {
        self.client.connection_state() != State::Connected
            || self.connections.has_changed().unwrap_or(true)
    }

    /// Requests stored events, or also those that arrive soon.
    async fn request(
        &self,
        consumer: &PullConsumer,
        follows: bool,
    ) -> Result<pull::Batch, pull::BatchError> {
        let most = if follows || self.durable.is_some() {
            BATCH_SIZE
        } else {
            FETCH_SIZE
        };
        let limit = usize::try_from(self.wanted.unwrap_or(most).min(most)).unwrap_or(1);
        if follows {
            let pull = consumer.batch().max_messages(limit);
            pull.expires(self.range.expiry()).messages().await
        } else {
            consumer.fetch().max_messages(limit).messages().await
        }
    }

    /// Returns events that were requested but not handled, so that the next reader with this name gets them immediately and not after
    /// the ack timeout.
    async fn give_back(&self, mut batch: pull::Batch) {
        if self.durable.is_some() {
            while let Ok(Some(Ok(message))) = timeout(GIVE_BACK_TIMEOUT, batch.next()).await {
                self.acknowledge(&message, AckKind::Nak(None)).await;
            }
        }
    }

    /// Acknowledges an event or gives it back, if NATS keeps the position.
    async fn acknowledge(&self, message: &Message, kind: AckKind) {
        if self.durable.is_some() {
            let _ = message.ack_with(kind).await;
        }
    }
}

/// The name of the connection, and the first part of an ephemeral consumer's.
fn client_name(console: Console) -> String {
    format!("importguard-{}", console.command())
}
