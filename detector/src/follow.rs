//! Follows the stream of decisions, and acts on what the rules detect.
//!
//! The position is that of a durable consumer. An event is acknowledged once the entries that it led to are written. Windows are not
//! stored: after a start, they are rebuilt from the stream, starting twice the longest window before the position. Decisions up to the
//! position only count. Decisions after it are acted on, as if they had not been delivered before. That is harmless for those that were
//! already acted on, because the event ID of an entry is derived from the rule and the event that reached the threshold.

use std::time::Duration;

use async_nats::jetstream::{
    ErrorCode,
    consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, pull},
    context::GetStreamErrorKind,
    stream::Stream,
};
use importguard_core::EventId;
use importguard_lists::{Bucket, CHANGED_SUBJECT, ChangeMade, ListChangedEvent, ListName, Writer};
use time::OffsetDateTime;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    act::AUTHOR,
    context::{Context, DECISIONS, Interrupted, RETRY_DELAY},
    deliveries::Deliveries,
    engine::{Engine, Made},
    reader::{Position, Reader},
    replay::Replay,
};

/// The stream of events.
const STREAM: &str = "IMPORTGUARD";

/// How long NATS waits for an ack before it delivers an event again.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// When the stream and the consumer were created.
type Created = (OffsetDateTime, OffsetDateTime);

/// The state that was built from one stream and consumer.
struct Known {
    created: Created,
    engine: Engine,
    /// When the bucket was created that `own` is about.
    bucket: OffsetDateTime,
    own: Vec<u64>,
}

/// Follows the stream.
pub(crate) struct Follower<'c> {
    context: &'c Context,
    known: Option<Known>,
}

impl<'c> Follower<'c> {
    pub(crate) const fn new(context: &'c Context) -> Self {
        let known = None;
        Self { context, known }
    }

    /// Follows until shutdown.
    pub(crate) async fn run(mut self) {
        let Context {
            status, shutdown, ..
        } = self.context;
        while !shutdown.is_cancelled() {
            let Err(Interrupted(cause)) = self.try_run().await else {
                return;
            };
            if status.interrupted(&cause) {
                warn!("not detecting: {cause}; retrying");
            }
            tokio::select! {
                () = sleep(RETRY_DELAY) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn try_run(&mut self) -> Result<(), Interrupted> {
        let shutdown = &self.context.shutdown;
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared?,
            // What is interrupted here is repeated after the next start.
            () = shutdown.cancelled() => return Ok(()),
        };
        let (consumer, mut reader, created) = prepared;
        let read = reader.read(&consumer).await;
        self.known = Some(Known {
            created,
            engine: reader.engine,
            bucket: reader.writer.bucket().created(),
            own: reader.own,
        });
        read
    }

    /// Opens the stream, the bucket and the consumer, and rebuilds the windows unless they are known.
    async fn prepare(&mut self) -> Result<(PullConsumer, Reader<'c>, Created), Interrupted> {
        let context = self.context;
        let stream = self.stream().await?;
        let bucket = Bucket::open_or_create(&context.jetstream, 1).await?;
        let mut consumer = self.consumer(&stream).await?;
        let info = consumer.info().await?.clone();
        let created = (stream.cached_info().created, info.created);
        let position = Position {
            // NATS 2.9 reports 0 until the first ack.
            acted: info.ack_floor.stream_sequence.max(before(&info.config)),
            delivered: info.delivered.stream_sequence,
        };
        let own = self
            .known
            .as_ref()
            .filter(|known| known.bucket == bucket.created())
            .map(|known| known.own.clone())
            .unwrap_or_default();
        // What is known of another stream or consumer stays until the windows are rebuilt, which may fail.
        let kept = self.known.take_if(|known| known.created == created);
        let has_windows = kept.is_some();
        let engine = match kept {
            Some(known) => known.engine,
            None => {
                let made = self.made(&stream).await?;
                Engine::new(context.rules.clone(), context.settings.memory, made)
            }
        };
        let mut reader = Reader {
            context,
            writer: Writer::new(bucket),
            engine,
            own,
            has_caught_up: false,
            stored_just_now: None,
            deliveries: Deliveries::default(),
            warned: Vec::new(),
        };
        if !has_windows {
            reader.rebuild(&stream, position).await?;
        }
        reader.report_owners();
        context.status.reading(info.num_pending);
        info!(
            pending = info.num_pending,
            consumer = context.settings.consumer,
            "detecting by {} rules",
            context.rules.iter().len()
        );
        Ok((consumer, reader, created))
    }

    async fn stream(&self) -> Result<Stream, Interrupted> {
        self.context
            .jetstream
            .get_stream(STREAM)
            .await
            .map_err(|error| match error.kind() {
                GetStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Interrupted::new(format!(
                        "there is no stream {STREAM} yet, which a gateway creates when it starts"
                    ))
                }
                _ => error.into(),
            })
    }

    /// Returns the durable consumer, creating it if it is missing. A new one starts at the next decision, and its configuration records
    /// where that was: a consumer that starts at "new" messages does not tell. In a stream that replaced the one that was followed, every
    /// decision is new.
    async fn consumer(&self, stream: &Stream) -> Result<PullConsumer, Interrupted> {
        let name = &self.context.settings.consumer;
        let info = stream.cached_info();
        let before = self.known.as_ref().map(|known| known.created.0);
        let start_sequence = match before.is_some_and(|before| before < info.created) {
            true => 1,
            false => info.state.last_sequence + 1,
        };
        let config = pull::Config {
            durable_name: Some(name.clone()),
            description: Some("importguard detect".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            filter_subject: DECISIONS.to_owned(),
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer(name, config).await?;
        let found = &consumer.cached_info().config;
        if found.filter_subject != DECISIONS || found.ack_policy != AckPolicy::Explicit {
            return Err(Interrupted::new(format!(
                "the consumer {name} is not a detector's: set IMPORTGUARD_DETECT_CONSUMER to another name"
            )));
        }
        Ok(consumer)
    }

    /// Reads the entries that detectors added recently: their owners may still be listed, and each entry restarted a window.
    async fn made(&self, stream: &Stream) -> Result<Made, Interrupted> {
        let rules = &self.context.rules;
        let longest = rules.longest_entry().max(rules.longest_window() * 2);
        let begin = DeliverPolicy::ByStartTime {
            start_time: OffsetDateTime::now_utc() - longest,
        };
        let mut replay = Replay::open(
            stream,
            &self.context.replay_consumer(),
            CHANGED_SUBJECT,
            begin,
        )
        .await?;
        let mut made = Made::default();
        while let Some(message) = replay.next().await? {
            let event = serde_json::from_slice::<ListChangedEvent>(&message.payload);
            let Ok(event) = event else { continue };
            let data = event.data;
            if data.by != AUTHOR || data.change != ChangeMade::Added {
                continue;
            }
            made.events.extend(EventId::parse(&event.id).ok());
            if let (Ok(list), Some(until)) = (ListName::parse(&data.list), data.until) {
                made.entries.push((list, data.user_id, until));
            }
        }
        Ok(made)
    }
}

/// The last sequence before the start of a consumer; 0 if its configuration does not say.
fn before(consumer: &consumer::Config) -> u64 {
    match consumer.deliver_policy {
        DeliverPolicy::ByStartSequence { start_sequence } => start_sequence.saturating_sub(1),
        _ => 0,
    }
}
