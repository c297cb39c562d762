//! The source of events: a consumer on the stream, looked up or created again whenever the connection or the stream is lost.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::bail;
use async_nats::{
    Client, ConnectErrorKind, Event,
    jetstream::{
        self, AckKind, ErrorCode,
        consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
        context::GetStreamErrorKind,
        stream::{ConsumerErrorKind, Stream},
    },
};
use futures_util::{FutureExt, StreamExt};
use importguard_gateway::recorder::NatsSettings;
use importguard_runtime::{FileWatches, whole_text};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const STREAM: &str = "IMPORTGUARD";

/// How many events are pulled at once: some 100 KB.
const BATCH_SIZE: u64 = 100;

/// How long NATS keeps a pull request open; the next one follows immediately.
const PULL_EXPIRY: Duration = Duration::from_secs(20);

/// How often a missing server or stream is looked for.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How long NATS keeps an ephemeral consumer without a reader. A server restarts in less.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(300);

/// Time limit for the first connection event, and for the last flush.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where to start reading.
#[derive(Clone, Copy)]
pub(super) enum Begin {
    /// At the next event.
    Next,
    /// At the first event since then.
    At(SystemTime),
}

impl Begin {
    /// `since` ago, but not before 1970.
    pub(super) fn ago(since: Duration) -> Self {
        let then = SystemTime::now().checked_sub(since);
        Self::At(
            then.unwrap_or(SystemTime::UNIX_EPOCH)
                .max(SystemTime::UNIX_EPOCH),
        )
    }

    fn policy(self) -> DeliverPolicy {
        match self {
            Self::Next => DeliverPolicy::New,
            Self::At(time) => DeliverPolicy::ByStartTime {
                start_time: time.into(),
            },
        }
    }
}

/// The result of handling an event.
pub(super) enum Consumed {
    /// It was handled; at most so many more are wanted, if there is a limit.
    More(Option<u64>),
    /// It was handled, and was the last.
    Last,
    /// It was not handled; reading stops.
    Stop,
}

/// The stream on NATS.
pub(super) struct Source {
    client: Client,
    /// Counts the connections.
    connections: watch::Receiver<u64>,
    begin: Begin,
    durable: Option<String>,
    /// Stream sequence of the last event read without `--durable`.
    position: Option<u64>,
    status: StatusReporter,
}

impl Source {
    /// Connects. Waits while no server is reachable.
    ///
    /// # Errors
    /// If a server rejects the connection, or the settings are invalid.
    pub(super) async fn connect(
        nats: &NatsSettings,
        begin: Begin,
        durable: Option<String>,
    ) -> anyhow::Result<Self> {
        let mut files = FileWatches::without_metrics();
        let servers = nats.servers("importguard-tail", &mut files).await?;
        tokio::spawn(async move { files.run_without_sighup().await });
        if let Some(warning) = servers.warning {
            report(&format!("warning: {warning}"));
        }
        let names = servers.names();
        let status = StatusReporter::default();
        let lost = status.clone();
        let servers = servers.on_failure(move |cause| lost.report(&retrying(&cause)));
        let (connected, mut connections) = watch::channel(0);
        let events = status.clone();
        // In order, as the error of the last server is what an attempt ends with: it should be reported once, and not in turns.
        let options = servers.options.retain_servers_order();
        let options = options.event_callback(move |event| {
            match event {
                Event::Connected => connected.send_modify(|count| *count += 1),
                Event::Disconnected => events.report("lost the connection to NATS; reconnecting"),
                Event::ServerError(error) => events.report(&format!("NATS error: {error}")),
                _ => {}
            }
            std::future::ready(())
        });
        let client = loop {
            match options.clone().connect(servers.addresses.clone()).await {
                Ok(client) => break client,
                Err(error) => {
                    let cause = servers.failures.describe(&names, &error.to_string());
                    match error.kind() {
                        ConnectErrorKind::Dns
                        | ConnectErrorKind::Io
                        | ConnectErrorKind::TimedOut => {
                            status.report(&retrying(&cause));
                            tokio::time::sleep(RETRY_INTERVAL).await;
                        }
                        _ => bail!(cause),
                    }
                }
            }
        };
        // The event of this connection arrives a moment later. Mistaken for a reconnection, it would cause a second pull request,
        // and the events sent for the first one would be delivered again only half a minute later.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, connections.wait_for(|count| *count > 0)).await;
        Ok(Self {
            client,
            connections,
            begin,
            durable,
            position: None,
            status,
        })
    }

    /// Calls `handle` for each event, in order, until it stops or `shutdown` is cancelled. At most `wanted` events are wanted, if
    /// there is a limit.
    pub(super) async fn follow(
        &mut self,
        shutdown: CancellationToken,
        mut wanted: Option<u64>,
        mut handle: impl FnMut(&[u8]) -> anyhow::Result<Consumed>,
    ) -> anyhow::Result<()> {
        let jetstream = jetstream::new(self.client.clone());
        loop {
            self.connections.mark_unchanged();
            let found = tokio::select! {
                found = self.consumer(&jetstream) => found?,
                () = shutdown.cancelled() => return Ok(()),
            };
            let Some(consumer) = found else {
                tokio::select! {
                    () = tokio::time::sleep(RETRY_INTERVAL) => continue,
                    () = shutdown.cancelled() => return Ok(()),
                }
            };
            let ended = self
                .read(&consumer, &shutdown, &mut wanted, &mut handle)
                .await?;
            if ended {
                let _ = tokio::time::timeout(FLUSH_TIMEOUT, self.client.flush()).await;
                return Ok(());
            }
        }
    }

    /// Reads until the end (true) or until the consumer must be looked up again (false).
    async fn read(
        &mut self,
        consumer: &PullConsumer,
        shutdown: &CancellationToken,
        wanted: &mut Option<u64>,
        handle: &mut impl FnMut(&[u8]) -> anyhow::Result<Consumed>,
    ) -> anyhow::Result<bool> {
        loop {
            let limit = usize::try_from(wanted.unwrap_or(BATCH_SIZE).min(BATCH_SIZE)).unwrap_or(1);
            let pull = consumer.batch().max_messages(limit).expires(PULL_EXPIRY);
            let Ok(mut batch) = pull.messages().await else {
                return Ok(false);
            };
            loop {
                let message = tokio::select! {
                    message = batch.next() => message,
                    () = shutdown.cancelled() => {
                        self.give_back(batch).await;
                        return Ok(true);
                    }
                    // The server dropped the pull request of the previous connection.
                    _ = self.connections.changed() => {
                        self.give_back(batch).await;
                        return Ok(false);
                    }
                };
                let message = match message {
                    Some(Ok(message)) => message,
                    Some(Err(_)) => return Ok(false),
                    None => break,
                };
                let consumed = handle(&message.payload)?;
                if !matches!(consumed, Consumed::Stop) {
                    if self.durable.is_some() {
                        // If the ack is lost, the event is delivered again.
                        let _ = message.ack().await;
                    } else if let Ok(info) = message.info() {
                        self.position = Some(info.stream_sequence);
                    }
                }
                match consumed {
                    Consumed::More(left) => *wanted = left,
                    Consumed::Last | Consumed::Stop => {
                        self.give_back(batch).await;
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Returns events that were received but not handled, so that the next reader with this name gets them immediately and not after
    /// the ack timeout.
    async fn give_back(&self, mut batch: pull::Batch) {
        if self.durable.is_some() {
            while let Some(Some(Ok(message))) = batch.next().now_or_never() {
                let _ = message.ack_with(AckKind::Nak(None)).await;
            }
        }
    }

    /// Looks up or creates the consumer; `None` if that must be retried.
    async fn consumer(
        &mut self,
        jetstream: &jetstream::Context,
    ) -> anyhow::Result<Option<PullConsumer>> {
        let stream = match jetstream.get_stream(STREAM).await {
            Ok(stream) => stream,
            Err(error) => {
                self.status.report(&match error.kind() {
                    GetStreamErrorKind::JetStream(error)
                        if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                    {
                        format!("no stream {STREAM} yet; waiting for a gateway to create it")
                    }
                    _ => format!(
                        "cannot access the stream {STREAM} ({}); retrying",
                        whole_text(&error)
                    ),
                });
                return Ok(None);
            }
        };
        let found = match self.durable.clone() {
            Some(name) => self.durable(&stream, &name).await,
            None => self.ephemeral(&stream).await,
        };
        match found {
            Ok(consumer) => {
                self.status.recovered();
                Ok(Some(consumer))
            }
            Err(error) => match error.kind() {
                // A bad request, such as for the name of a consumer of another kind. Other errors are the server's, and temporary.
                ConsumerErrorKind::JetStream(refused) if refused.code() == 400 => {
                    bail!("NATS rejected the consumer on {STREAM}: {refused}")
                }
                ConsumerErrorKind::InvalidConsumerType => {
                    bail!(
                        "NATS rejected the consumer on {STREAM}: {}",
                        whole_text(&error)
                    )
                }
                _ => {
                    let cause = whole_text(&error);
                    self.status.report(&format!(
                        "cannot create a consumer on {STREAM} ({cause}); retrying"
                    ));
                    Ok(None)
                }
            },
        }
    }

    async fn durable(
        &self,
        stream: &Stream,
        name: &str,
    ) -> Result<PullConsumer, jetstream::stream::ConsumerError> {
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            description: Some("importguard tail".to_owned()),
            ack_policy: AckPolicy::Explicit,
            deliver_policy: self.begin.policy(),
            ..pull::Config::default()
        };
        stream.get_or_create_consumer(name, config).await
    }

    async fn ephemeral(
        &mut self,
        stream: &Stream,
    ) -> Result<PullConsumer, jetstream::stream::ConsumerError> {
        // A stream that was created again counts from 1.
        let last = stream.cached_info().state.last_sequence;
        let seen = self
            .position
            .map(|position| if position > last { 0 } else { position });
        let inbox = self.client.new_inbox();
        let unique = inbox.rsplit('.').next().unwrap_or_default();
        let config = pull::Config {
            name: Some(format!("importguard-tail-{unique}")),
            ack_policy: AckPolicy::None,
            deliver_policy: match seen {
                Some(seen) => DeliverPolicy::ByStartSequence {
                    start_sequence: seen + 1,
                },
                None => self.begin.policy(),
            },
            inactive_threshold: INACTIVE_THRESHOLD,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = stream.create_consumer(config).await?;
        // "New events" means from here on, even if the connection is lost before the first event.
        let delivered = consumer.cached_info().delivered.stream_sequence;
        self.position.get_or_insert(delivered);
        Ok(consumer)
    }
}

fn retrying(cause: &str) -> String {
    format!("{cause}; retrying")
}

/// Prints a status message to standard error.
pub(super) fn report(message: &str) {
    // If standard error is closed, nobody reads it.
    let _ = writeln!(io::stderr(), "importguard tail: {message}");
}

/// Reports each status once, and not at every retry.
#[derive(Clone, Default)]
struct StatusReporter(Arc<Mutex<Option<String>>>);

impl StatusReporter {
    fn report(&self, message: &str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(message) {
            report(message);
            *last = Some(message.to_owned());
        }
    }

    fn recovered(&self) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.take().is_some() {
            report("reading events");
        }
    }
}
