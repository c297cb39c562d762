//! Follows the stream of decisions, and acts on what the rules detect.
//!
//! The position is that of a durable consumer. An event is acknowledged once the entries that it led to are written. Windows are not
//! stored: after a start, they are rebuilt from the stream, starting twice the longest window before the position. Decisions up to the
//! position only count. Decisions after it are acted on, as if they had not been delivered before. That is harmless for those that were
//! already acted on, because the event ID of an entry is derived from the rule and the event that reached the threshold.

use std::{fmt, sync::Arc, time::Duration};

use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    context::GetStreamErrorKind,
    stream::Stream,
};
use importguard_core::EventId;
use importguard_lists::{
    Bucket, BucketSettings, CHANGED_SUBJECT, ChangeMade, ListChangedEvent, ListName, Writer,
};
use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    act::AUTHOR,
    engine::{Engine, Made},
    metrics::Metrics,
    reader::{Position, Reader},
    replay::Replay,
    rules::Rules,
    settings::Settings,
    status::Status,
};

/// The stream of events.
const STREAM: &str = "IMPORTGUARD";

/// The subjects of decisions.
pub const DECISIONS: &str = "importguard.v1.decision.*";

/// How long NATS waits for an ack before it delivers an event again.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// The delay before a retry.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Why reading was interrupted.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) String);

impl Interrupted {
    pub(crate) fn new(cause: impl fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

impl<E: std::error::Error + 'static> From<E> for Interrupted {
    fn from(error: E) -> Self {
        Self(importguard_runtime::whole_text(&error))
    }
}

/// Follows the stream, and holds what the detector needs for that.
pub(crate) struct Follower {
    pub(crate) settings: Settings,
    pub(crate) rules: Arc<Rules>,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) metrics: Metrics,
    pub(crate) status: Status,
    pub(crate) shutdown: CancellationToken,
}

/// When the stream and the consumer were created.
type Created = (OffsetDateTime, OffsetDateTime);

/// The state that was built from one stream and consumer.
struct Known {
    created: Created,
    engine: Engine,
}

impl Follower {
    /// Follows until shutdown.
    pub(crate) async fn run(&self) {
        let mut known = None;
        while !self.shutdown.is_cancelled() {
            let Err(Interrupted(cause)) = self.try_run(&mut known).await else {
                return;
            };
            if self.status.interrupted(&cause) {
                warn!("not detecting: {cause}; retrying");
            }
            tokio::select! {
                () = sleep(RETRY_DELAY) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
    }

    async fn try_run(&self, known: &mut Option<Known>) -> Result<(), Interrupted> {
        let prepared = tokio::select! {
            prepared = self.prepare(known) => prepared?,
            // What is interrupted here is repeated after the next start.
            () = self.shutdown.cancelled() => return Ok(()),
        };
        let (consumer, mut reader, created) = prepared;
        let read = reader.read(&consumer).await;
        let Reader { engine, .. } = reader;
        *known = Some(Known { created, engine });
        read
    }

    /// Opens the stream, the bucket and the consumer, and rebuilds the windows unless they are known.
    async fn prepare(
        &self,
        known: &mut Option<Known>,
    ) -> Result<(PullConsumer, Reader<'_>, Created), Interrupted> {
        let stream = self.stream().await?;
        let settings = BucketSettings { replicas: 1 };
        let bucket = Bucket::open_or_create(&self.jetstream, settings).await?;
        let mut consumer = self.consumer(&stream).await?;
        let info = consumer.info().await?.clone();
        let created = (stream.cached_info().created, info.created);
        let position = Position {
            acted: info.ack_floor.stream_sequence,
            delivered: info.delivered.stream_sequence,
        };
        let kept = known.take().filter(|known| known.created == created);
        let has_windows = kept.is_some();
        let engine = match kept {
            Some(known) => known.engine,
            None => {
                let made = self.made(&stream).await?;
                Engine::new(self.rules.clone(), self.settings.memory, made)
            }
        };
        let mut reader = Reader {
            follower: self,
            writer: Writer::new(bucket, Clone::clone),
            engine,
            own: Vec::new(),
            warned: Vec::new(),
        };
        if !has_windows {
            reader.rebuild(&stream, position).await?;
        }
        reader.report_owners();
        self.status.reading(info.num_pending);
        info!(
            pending = info.num_pending,
            consumer = self.settings.consumer,
            "detecting by {} rules",
            self.rules.iter().len()
        );
        Ok((consumer, reader, created))
    }

    async fn stream(&self) -> Result<Stream, Interrupted> {
        self.jetstream
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

    /// Returns the durable consumer, creating it if it is missing. A new one starts at the next decision.
    async fn consumer(&self, stream: &Stream) -> Result<PullConsumer, Interrupted> {
        let name = &self.settings.consumer;
        let config = pull::Config {
            durable_name: Some(name.clone()),
            description: Some("importguard detect".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            deliver_policy: DeliverPolicy::New,
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

    /// The name of the consumer that reads stored events.
    pub(crate) fn replay(&self) -> String {
        format!("{}-replay", self.settings.consumer)
    }

    /// Reads the entries that detectors added recently: their owners may still be listed, and each entry restarted a window.
    async fn made(&self, stream: &Stream) -> Result<Made, Interrupted> {
        let longest = self
            .rules
            .longest_entry()
            .max(self.rules.longest_window() * 2);
        let begin = DeliverPolicy::ByStartTime {
            start_time: OffsetDateTime::now_utc() - longest,
        };
        let mut replay = Replay::open(stream, &self.replay(), CHANGED_SUBJECT, begin).await?;
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
