//! Reads the changes of the bucket from a revision onwards, without gaps.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{
    AckPolicy, DeliverPolicy, PullConsumer,
    pull::{Config, Stream},
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};

use crate::{
    Brief, Bucket, BucketError, Key,
    bucket::{is_marker, key_of, request_error},
};

/// How many changes are requested at once: some hundred kilobytes.
const BATCH_SIZE: usize = 2000;

/// The interval of idle heartbeats. The connection counts as lost after two intervals without a message or heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long NATS keeps the consumer after its reader is gone.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);

/// How long a pull request stays open before it must be repeated.
const EXPIRES: Duration = Duration::from_secs(60);

/// The maximum number of passes over changes that arrived during the previous pass. Each pass takes as long as NATS needs to answer a
/// request; an entry is missed in every pass only if it changes that often.
const MAX_PASSES: u32 = 20;

/// A change in the bucket: a key and its new value.
#[derive(Debug)]
pub struct Change {
    /// The revision of the bucket at this change.
    pub revision: u64,
    /// When NATS stored it, in Unix nanoseconds.
    pub stored: i128,
    /// What changed.
    pub kind: ChangeKind,
}

/// What changed.
#[derive(Debug)]
pub enum ChangeKind {
    /// An entry was added or replaced, or removed with a record of the removal. [`Brief::read`] reads the value.
    Entry(Key, Bytes),
    /// An entry was deleted by another client, without a record.
    Deleted(Key),
    /// A key that does not belong to an entry, and its value.
    Other(String, Bytes),
}

impl ChangeKind {
    /// Returns the key and value of an entry; `None` for a key that does not belong to an entry.
    pub fn brief(&self) -> Option<(&Key, Brief<'_>)> {
        match self {
            Self::Entry(key, value) => Some((key, Brief::read(value))),
            Self::Deleted(key) => Some((
                key,
                Brief {
                    removed: true,
                    ..Brief::default()
                },
            )),
            Self::Other(..) => None,
        }
    }
}

/// The connection, the consumer or a message was lost. To continue, create a new [`Changes`] after the last revision that was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the changes of the lists were interrupted: {0}")]
pub struct LostError(String);

/// The changes after a revision, in order and without gaps.
///
/// It creates its own ephemeral consumer, which NATS deletes after 30 s of inactivity. The `watch` of async-nats recreates its consumer
/// automatically, but sometimes gives up (nats-io/nats.rs #1596) and does not report when it has caught up again.
pub struct Changes {
    bucket: Bucket,
    messages: Stream,
    /// The number of changes still to come, according to NATS.
    pending: u64,
    /// The revision of the last change that was stored when this pass began.
    last: u64,
    /// The number of times that [`stored`](Self::stored) requested the state for another pass, and the time of the last request.
    passes: u32,
    asked: Instant,
    /// When a gap in the revisions was last seen: a change that NATS no longer had.
    skipped: Option<Instant>,
    /// The revision of the last change that was read.
    read: u64,
    /// The consumer sequence of the last message.
    delivered: u64,
}

impl Changes {
    /// Creates a consumer for the changes after the revision `after`.
    ///
    /// # Errors
    /// If NATS does not answer, or refuses the request.
    pub async fn after(bucket: &Bucket, after: u64) -> Result<Self, BucketError> {
        let policy = DeliverPolicy::ByStartSequence {
            start_sequence: after + 1,
        };
        let consumer = consumer(bucket, policy).await?;
        let pending = consumer.cached_info().num_pending;
        // Requested after the consumer was created, which therefore sends everything up to this revision.
        let last = match pending {
            0 => after,
            _ => bucket.state().await?.last,
        };
        let messages = consumer
            .stream()
            .max_messages_per_batch(BATCH_SIZE)
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES)
            .messages()
            .await
            .map_err(|error| {
                request_error(&error, "$JS.API.CONSUMER.MSG.NEXT.KV_IMPORTGUARD_LISTS.>")
            })?;
        Ok(Self {
            bucket: bucket.clone(),
            messages,
            pending,
            last,
            passes: 0,
            asked: Instant::now(),
            skipped: None,
            read: after,
            delivered: 0,
        })
    }

    /// The number of changes still to come, as NATS counted them with the last message. It is an estimate: more changes may be stored
    /// since, and changes that are replaced before they are sent do not arrive.
    pub const fn pending(&self) -> u64 {
        self.pending
    }

    /// Returns the next stored change, or `None` once every entry that existed when reading began was read. Cancel safe: no change is
    /// lost.
    ///
    /// The number of pending changes alone does not tell when that is: it never reaches zero while the same entries change constantly. In
    /// addition, an entry that is replaced during reading is sent after all others. So the changes that arrived meanwhile are read as
    /// well, in further passes, until a pass misses no change.
    ///
    /// # Errors
    /// If the changes were interrupted, or NATS does not answer.
    pub async fn stored(&mut self) -> Result<Option<Change>, LostError> {
        while self.pending > 0 {
            if self.read < self.last {
                return self.next().await.map(Some);
            }
            let complete = self.passes > 0 && !self.skipped_since(self.asked);
            if complete || self.passes == MAX_PASSES {
                break;
            }
            let asked = Instant::now();
            let state = self.bucket.state().await;
            self.last = state.map_err(|error| LostError(error.to_string()))?.last;
            self.asked = asked;
            self.passes += 1;
        }
        Ok(None)
    }

    /// Whether a change was missed since `moment` because it was replaced before NATS sent it. Its replacement may still be in transit, so
    /// the state of the bucket at any time since `moment` is uncertain.
    pub fn skipped_since(&self, moment: Instant) -> bool {
        self.skipped.is_some_and(|skipped| skipped >= moment)
    }

    /// Waits for the next change. Cancel safe: no change is lost.
    ///
    /// # Errors
    /// If the changes were interrupted. Later calls return no change either.
    pub async fn next(&mut self) -> Result<Change, LostError> {
        let message = self.messages.next().await;
        self.take(message)
    }

    /// Returns the next change if it has already arrived, without waiting.
    ///
    /// # Errors
    /// If the changes were interrupted. Later calls return no change either.
    pub fn arrived(&mut self) -> Option<Result<Change, LostError>> {
        let message = self.messages.next().now_or_never()?;
        Some(self.take(message))
    }

    fn take(
        &mut self,
        message: Option<Result<async_nats::jetstream::Message, impl std::error::Error>>,
    ) -> Result<Change, LostError> {
        let message = message
            .ok_or_else(|| LostError("the connection was closed".to_owned()))?
            .map_err(|error| LostError(error.to_string()))?;
        let info = message
            .info()
            .map_err(|error| LostError(error.to_string()))?;
        if info.consumer_sequence != self.delivered + 1 {
            // `delivered` stays as it is, so that every later message fails this check too.
            return Err(LostError("a message was lost on the way".to_owned()));
        }
        self.delivered += 1;
        let revision = info.stream_sequence;
        if revision != self.read + 1 {
            self.skipped = Some(Instant::now());
        }
        (self.read, self.pending) = (revision, info.pending);
        let stored = info.published.unix_timestamp_nanos();
        let deleted = message.headers.as_ref().is_some_and(is_marker);
        let key = key_of(&message.subject).unwrap_or_default();
        let kind = match (Key::parse(key), deleted) {
            (Some(key), false) => ChangeKind::Entry(key, message.message.payload),
            (Some(key), true) => ChangeKind::Deleted(key),
            (None, _) => ChangeKind::Other(key.to_owned(), message.message.payload),
        };
        Ok(Change {
            revision,
            stored,
            kind,
        })
    }
}

async fn consumer(bucket: &Bucket, policy: DeliverPolicy) -> Result<PullConsumer, BucketError> {
    let config = Config {
        ack_policy: AckPolicy::None,
        deliver_policy: policy,
        inactive_threshold: INACTIVE_THRESHOLD,
        memory_storage: true,
        num_replicas: 1,
        ..Config::default()
    };
    let created = bucket.stream.create_consumer(config).await;
    created.map_err(|error| match error.kind() {
        async_nats::jetstream::stream::ConsumerErrorKind::JetStream(error) => {
            BucketError::Refused(error.to_string())
        }
        _ => request_error(&error, "$JS.API.CONSUMER.CREATE.KV_IMPORTGUARD_LISTS"),
    })
}
