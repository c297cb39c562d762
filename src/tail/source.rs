//! Where events come from: a consumer on the stream, found or made again whenever the connection or the stream was away.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
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
use importguard_runtime::whole_text;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const STREAM: &str = "IMPORTGUARD";

/// How many events are asked for at once: some 100 KB.
const AT_ONCE: u64 = 100;

/// How long NATS keeps a question for events; the next follows at once.
const ASK_FOR: Duration = Duration::from_secs(20);

/// How often what is missing is looked for again: soon for a person, and no burden for a server.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How long NATS keeps the place of a reader that is gone and has no name. A restart of a server takes less.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// How long an orderly end may take.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Where to begin.
#[derive(Clone, Copy)]
pub(super) enum Begin {
    /// With the next event.
    Next,
    /// With the first event since then.
    At(SystemTime),
}

impl Begin {
    /// `since` ago; as long ago as can be said where that is longer.
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

/// What became of an event that was offered.
pub(super) enum Taken {
    /// It was used; at most so many more are wanted, if there is a limit.
    More(Option<u64>),
    /// It was used, and was the last.
    Last,
    /// It was not used, and no other will be.
    Left,
}

/// The stream on NATS.
pub(super) struct Source {
    client: Client,
    /// Counts the connections.
    connections: watch::Receiver<u64>,
    begin: Begin,
    durable: Option<String>,
    /// The last event that a reader without a name has seen.
    position: Option<u64>,
    notes: Notes,
}

impl Source {
    /// Connects; waits for a server that is away, and fails where one refuses.
    pub(super) async fn connect(
        nats: &NatsSettings,
        begin: Begin,
        durable: Option<String>,
    ) -> anyhow::Result<Self> {
        let credentials = nats.credentials().await?;
        let credentials = credentials.map(|watcher| watcher.last_good());
        let servers = nats.servers("importguard-tail", credentials)?;
        let names = servers.names();
        let notes = Notes::default();
        let (connected, mut connections) = watch::channel(0);
        let heard = notes.clone();
        let options = servers.options.event_callback(move |event| {
            match event {
                Event::Connected => connected.send_modify(|count| *count += 1),
                Event::Disconnected => heard.say("the connection to NATS is lost; waiting for it"),
                Event::ServerError(error) => heard.say(&format!("NATS says: {error}")),
                _ => {}
            }
            std::future::ready(())
        });
        let client = loop {
            match options.clone().connect(servers.addresses.clone()).await {
                Ok(client) => break client,
                Err(error) => match error.kind() {
                    ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::TimedOut => {
                        let why = whole_text(&error);
                        notes.say(&format!("no NATS at {names} yet ({why}); waiting for it"));
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                    _ => return Err(error).context(format!("NATS at {names} doesn't let us in")),
                },
            }
        };
        // The word of this connection comes a moment after it. Taken for another one later, it would make us ask twice, and
        // what NATS had sent for the first time would come half a minute late.
        let _ = tokio::time::timeout(END_WITHIN, connections.wait_for(|count| *count > 0)).await;
        Ok(Self {
            client,
            connections,
            begin,
            durable,
            position: None,
            notes,
        })
    }

    /// Offers the events to `take`, one after the other, until that wants no more or `shutdown` is cancelled. At most
    /// `wanted` are wanted, if there is a limit.
    pub(super) async fn follow(
        &mut self,
        shutdown: CancellationToken,
        mut wanted: Option<u64>,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<Taken>,
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
                    () = tokio::time::sleep(LOOK_AGAIN) => continue,
                    () = shutdown.cancelled() => return Ok(()),
                }
            };
            let ended = self
                .read(&consumer, &shutdown, &mut wanted, &mut take)
                .await?;
            if ended {
                // An ack is on its way when it is with the kernel.
                let _ = tokio::time::timeout(END_WITHIN, self.client.flush()).await;
                return Ok(());
            }
        }
    }

    /// Reads until the end (true) or until the consumer must be looked for again (false).
    async fn read(
        &mut self,
        consumer: &PullConsumer,
        shutdown: &CancellationToken,
        wanted: &mut Option<u64>,
        take: &mut impl FnMut(&[u8]) -> anyhow::Result<Taken>,
    ) -> anyhow::Result<bool> {
        loop {
            let limit = usize::try_from(wanted.unwrap_or(AT_ONCE).min(AT_ONCE)).unwrap_or(1);
            let asked = consumer.batch().max_messages(limit).expires(ASK_FOR);
            let Ok(mut batch) = asked.messages().await else {
                return Ok(false);
            };
            loop {
                let message = tokio::select! {
                    message = batch.next() => message,
                    () = shutdown.cancelled() => {
                        self.give_back(batch).await;
                        return Ok(true);
                    }
                    // What was asked over the connection before is forgotten.
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
                let taken = take(&message.payload)?;
                if !matches!(taken, Taken::Left) {
                    if self.durable.is_some() {
                        // An ack that is lost means that the event comes again.
                        let _ = message.ack().await;
                    } else if let Ok(info) = message.info() {
                        self.position = Some(info.stream_sequence);
                    }
                }
                match taken {
                    Taken::More(left) => *wanted = left,
                    Taken::Last | Taken::Left => {
                        self.give_back(batch).await;
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// What was received and not printed is for the next reader of this name, at once and not when its time is over.
    async fn give_back(&self, mut batch: pull::Batch) {
        if self.durable.is_some() {
            while let Some(Some(Ok(message))) = batch.next().now_or_never() {
                let _ = message.ack_with(AckKind::Nak(None)).await;
            }
        }
    }

    /// The consumer, found or made; none where it must be looked for again.
    async fn consumer(
        &mut self,
        jetstream: &jetstream::Context,
    ) -> anyhow::Result<Option<PullConsumer>> {
        let stream = match jetstream.get_stream(STREAM).await {
            Ok(stream) => stream,
            Err(error) => {
                self.notes.say(&match error.kind() {
                    GetStreamErrorKind::JetStream(error)
                        if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                    {
                        format!(
                            "there is no stream {STREAM} yet; waiting for a gateway to create it"
                        )
                    }
                    _ => format!(
                        "can't look at the stream {STREAM} ({}); trying again",
                        whole_text(&error)
                    ),
                });
                return Ok(None);
            }
        };
        let found = match self.durable.clone() {
            Some(name) => self.named(&stream, &name).await,
            None => self.nameless(&stream).await,
        };
        match found {
            Ok(consumer) => {
                self.notes.all_is_well();
                Ok(Some(consumer))
            }
            Err(error) => match error.kind() {
                // A bad request, as one for a name that is somebody's other kind of consumer. The rest is the server's trouble
                // and passes.
                ConsumerErrorKind::JetStream(refused) if refused.code() == 400 => {
                    bail!("NATS refuses a consumer on {STREAM}: {refused}")
                }
                ConsumerErrorKind::InvalidConsumerType => {
                    bail!(
                        "NATS refuses a consumer on {STREAM}: {}",
                        whole_text(&error)
                    )
                }
                _ => {
                    let why = whole_text(&error);
                    self.notes.say(&format!(
                        "NATS gave no consumer on {STREAM} ({why}); trying again"
                    ));
                    Ok(None)
                }
            },
        }
    }

    async fn named(
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

    async fn nameless(
        &mut self,
        stream: &Stream,
    ) -> Result<PullConsumer, jetstream::stream::ConsumerError> {
        // A stream that was made anew counts from 1 again.
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
            inactive_threshold: FORGOTTEN_AFTER,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = stream.create_consumer(config).await?;
        // What is new is new from here on, also when the connection is lost before the first event.
        let delivered = consumer.cached_info().delivered.stream_sequence;
        self.position.get_or_insert(delivered);
        Ok(consumer)
    }
}

/// Tells the person at the terminal something that is no event.
pub(super) fn say(note: &str) {
    // Where standard error is closed, nobody is left to tell.
    let _ = writeln!(io::stderr(), "importguard tail: {note}");
}

/// What was said last, so that it isn't said twice a second.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Option<String>>>);

impl Notes {
    fn say(&self, note: &str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(note) {
            say(note);
            *last = Some(note.to_owned());
        }
    }

    fn all_is_well(&self) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.take().is_some() {
            say("reading events");
        }
    }
}
