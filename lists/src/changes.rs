//! Reads the bucket from a revision on, without a gap.

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

/// How many changes are requested at once: some hundred KB.
const BATCH_SIZE: usize = 2000;

/// How often NATS says that it has nothing new; twice this long without a word means that the connection is lost.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long NATS keeps the consumer of a reader that is gone.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);

/// How long NATS waits for more until a request must be repeated.
const EXPIRES: Duration = Duration::from_secs(60);

/// How often those changes are read that have come in while the others were read. Each pass takes as long as NATS needs to answer; an
/// entry is left out of all only if it changes that often.
const MAX_PASSES: u32 = 20;

/// A change of the bucket: the value at a key since then.
#[derive(Debug)]
pub struct Change {
    /// Its revision.
    pub revision: u64,
    /// When NATS stored it, in Unix nanoseconds.
    pub stored: i128,
    /// What changed.
    pub kind: ChangeKind,
}

/// What changed.
#[derive(Debug)]
pub enum ChangeKind {
    /// An entry was added or replaced, or removed with a record of it. [`Brief::read`] reads the value.
    Entry(Key, Bytes),
    /// An entry was deleted by another client, without a record.
    Deleted(Key),
    /// A key that is not an entry's, and its value.
    Other(String, Bytes),
}

impl ChangeKind {
    /// The value of an entry. None for a key that is not an entry's.
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

/// The connection, the consumer or a message was lost: read on with a new [`Changes`] from the last revision on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the changes of the lists were interrupted: {0}")]
pub struct LostError(String);

/// The changes from a revision on, in order and without a gap.
///
/// It has a consumer of its own that NATS forgets with the connection. async-nats's `watch` renews its consumer by itself, but gives
/// up at times (nats-io/nats.rs #1596) and does not say when it has caught up again.
pub struct Changes {
    bucket: Bucket,
    messages: Stream,
    /// How many changes NATS says are to come.
    pending: u64,
    /// The revision of the last change that was stored when this pass began.
    last: u64,
    /// How often [`stored`](Self::stored) has asked for more, and when it did last.
    passes: u32,
    asked: Instant,
    /// When it was last seen that a change was left out.
    skipped: Option<Instant>,
    /// The revision of the last change that was read.
    read: u64,
    /// The consumer's number of the last message.
    delivered: u64,
}

impl Changes {
    /// The changes after the revision `after`.
    ///
    /// # Errors
    /// If NATS does not answer or refuses.
    pub async fn after(bucket: &Bucket, after: u64) -> Result<Self, BucketError> {
        let policy = DeliverPolicy::ByStartSequence {
            start_sequence: after + 1,
        };
        let consumer = consumer(bucket, policy).await?;
        let pending = consumer.cached_info().num_pending;
        // After the consumer was created: whatever came in between, it sends.
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

    /// How many changes are to come at least, as NATS counts them: too many if entries are replaced before they are sent.
    pub const fn pending(&self) -> u64 {
        self.pending
    }

    /// The next change that was stored before this was called; None once every entry was read that was there when reading began.
    /// Nothing is lost if this is cancelled.
    ///
    /// NATS's count of pending changes alone does not say so: beside changes of the same entries that come in all the time, it never
    /// reaches zero. And an entry that was replaced while the others were read is sent behind them, so those that have come in since are
    /// read as well, until none of them was left out.
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

    /// Whether a change was left out since then, as NATS had replaced it before it was sent. Its successor may still be on its way, so
    /// what the bucket had at some moment since then is not known for sure.
    pub fn skipped_since(&self, moment: Instant) -> bool {
        self.skipped.is_some_and(|skipped| skipped >= moment)
    }

    /// The next change, as soon as there is one. Nothing is lost if this is cancelled.
    ///
    /// # Errors
    /// If the changes were interrupted. No call after that returns a change.
    pub async fn next(&mut self) -> Result<Change, LostError> {
        let message = self.messages.next().await;
        self.take(message)
    }

    /// The next change, if it has arrived already.
    ///
    /// # Errors
    /// If the changes were interrupted. No call after that returns a change.
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
            // It stays unequal, whatever comes next.
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
