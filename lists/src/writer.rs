//! Changes lists, and publishes each change as an event.
//!
//! An entry is written first, with its event's ID in it, and the event is published when NATS has the entry. The key `_events` of the
//! bucket says up to which revision every event is published. A writer that finds older changes behind it, of a writer that was
//! killed in between, publishes their events: each under its own ID, so that one that was published after all is no second one
//! within the stream's duplicate window.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    self,
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
};
use bytes::Bytes;
use importguard_core::{EventId, UserId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::{
    Author, Brief, Bucket, BucketError, CHANGED_SUBJECT, Changes, Entry, Key, ListChangedEvent,
    Reason, SUBJECTS, bucket::subject, event::CONTENT_TYPE,
};

/// The key that says up to which revision events are published.
const EVENTS_KEY: &str = "_events";

/// How long NATS is given to acknowledge. A cluster elects a leader in less.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a change is sent again that was not acknowledged: it has the same ID, so NATS takes it once.
const ATTEMPTS: u32 = 3;

/// How often a change is tried again because somebody else changed the same entry.
const CONFLICTS: u32 = 20;

/// How old a change must be before another writer publishes its event: its own writer has given up by then.
const GRACE: Duration = Duration::from_secs(60);

/// What to write at a key.
#[derive(Clone, Debug)]
pub struct Addition {
    /// Who adds or removes the ID.
    pub by: Author,
    /// Why.
    pub reason: Option<Reason>,
    /// When.
    pub at: OffsetDateTime,
    /// Until when, in whole seconds; None for ever.
    pub until: Option<OffsetDateTime>,
    /// Whether it is removed instead.
    pub removed: bool,
    /// The ID of the event about it.
    pub event: EventId,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The revision of the change.
    pub revision: u64,
    /// Whether there was an entry that counted.
    pub existed: bool,
}

/// What [`Writer::add_once`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The entry was added, with this revision.
    Now(u64),
    /// It had been added before.
    Before,
    /// Somebody changed the entry later than this one is dated, so that stands.
    Superseded,
    /// It would have expired already.
    Expired,
}

/// Changes lists. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    bucket: Bucket,
    shown: Arc<dyn Fn(&UserId) -> UserId + Send + Sync>,
    grace: Duration,
}

/// What NATS acknowledged.
struct Ack {
    revision: u64,
    /// Whether it had the message already.
    duplicate: bool,
}

#[derive(Serialize, Deserialize)]
struct Published {
    through: u64,
}

/// Up to which revision every event is published.
struct Cursor {
    /// The revision of the key that says so.
    cursor: u64,
    through: u64,
}

impl Writer {
    /// A writer to `bucket`. Events have what `shown` makes of a user's ID.
    pub fn new(bucket: Bucket, shown: impl Fn(&UserId) -> UserId + Send + Sync + 'static) -> Self {
        let shown = Arc::new(shown);
        Self {
            bucket,
            shown,
            grace: GRACE,
        }
    }

    /// The writer with another time after which it publishes the events that other writers have not: a minute, unless this is
    /// called.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The bucket.
    pub const fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Adds or removes the ID at `key`, whatever was there, and publishes the event. None if it was to be removed and there was no
    /// entry that counted at the addition's time.
    ///
    /// # Errors
    /// If NATS does not acknowledge or refuses. The entry may then have been written; a repetition is harmless.
    /// [`BucketError::Unpublished`] if it was.
    pub async fn write(
        &self,
        key: &Key,
        addition: &Addition,
    ) -> Result<Option<Written>, BucketError> {
        for _ in 0..CONFLICTS {
            let found = self.bucket.value(&key.to_string()).await?;
            let (revision, existed, replaces) = current(found.as_ref(), addition.at);
            if addition.removed && !existed {
                return Ok(None);
            }
            let value = value(addition, replaces)?;
            if let Some(Ack { revision, .. }) = self
                .compare_and_set(key, &value, addition.event, revision)
                .await?
            {
                let written = Written { revision, existed };
                self.publish_event_of(key, &value, written).await?;
                return Ok(Some(written));
            }
        }
        Err(busy())
    }

    /// Adds the ID at `key` exactly once for the event ID of `addition`, however often and from however many processes this is
    /// called; its time must be the same each time. A removal or another entry that is dated later stands. The event is published even
    /// if a call before was interrupted between both.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn add_once(&self, key: &Key, addition: &Addition) -> Result<Added, BucketError> {
        for _ in 0..CONFLICTS {
            let found = self.bucket.value(&key.to_string()).await?;
            if let Some((revision, value)) = &found {
                let brief = Brief::read(value);
                let event = Some(addition.event);
                if brief.event == event {
                    // Whoever wrote it may have been killed before the event was published.
                    if self.published().await?.through < *revision {
                        self.publish_event(key, value, *revision).await?;
                    }
                    return Ok(Added::Before);
                }
                if brief.replaces == event {
                    return Ok(Added::Before);
                }
                if brief.at.is_some_and(|at| at >= addition.at) {
                    return Ok(Added::Superseded);
                }
            }
            if addition
                .until
                .is_some_and(|until| until <= OffsetDateTime::now_utc())
            {
                return Ok(Added::Expired);
            }
            let (revision, _, replaces) = current(found.as_ref(), addition.at);
            let value = value(addition, replaces)?;
            if let Some(ack) = self
                .compare_and_set(key, &value, addition.event, revision)
                .await?
            {
                self.publish_event(key, &value, ack.revision).await?;
                return Ok(match ack.duplicate {
                    true => Added::Before,
                    false => Added::Now(ack.revision),
                });
            }
        }
        Err(busy())
    }

    /// Writes without a look at what is there, and publishes the event: for many entries at once. Returns the revision.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn put(&self, key: &Key, addition: &Addition) -> Result<u64, BucketError> {
        let value = value(addition, None)?;
        let message = |message: PublishMessage| message.message_id(addition.event.to_string());
        let revision = self
            .send(&subject(&key.to_string()), &value, message)
            .await?;
        let revision = revision.ok_or_else(busy)?.revision;
        let written = Written {
            revision,
            existed: false,
        };
        self.publish_event_of(key, &value, written).await?;
        Ok(revision)
    }

    /// Publishes the events of changes whose writers were interrupted, and remembers up to where there are none. `own` are the
    /// revisions that this writer's changes have got. Returns the revision up to which there are none: less than the last of `own` if
    /// a younger change of another writer is before that.
    ///
    /// # Errors
    /// If NATS does not acknowledge or refuses; the next writer catches up.
    pub async fn finish(&self, own: &[u64]) -> Result<u64, BucketError> {
        let Cursor { cursor, through } = self.published().await?;
        let mut own = own.to_vec();
        own.push(cursor);
        own.retain(|&revision| revision > through);
        own.sort_unstable();
        own.dedup();
        let contiguous = (through + 1..)
            .zip(&own)
            .take_while(|(expected, revision)| expected == *revision);
        let reached = through + contiguous.count() as u64;
        let reached = self.publish_left(reached, &own).await?;
        if reached > through {
            let value = serde_json::to_vec(&Published { through: reached }).map_err(refused)?;
            // If somebody else was faster, theirs is as good.
            let expect = |message: PublishMessage| message.expected_last_subject_sequence(cursor);
            let (key, value) = (subject(EVENTS_KEY), Bytes::from(value));
            if self.send(&key, &value, expect).await?.is_none() {
                return Ok(self.published().await?.through);
            }
        }
        Ok(reached)
    }

    async fn published(&self) -> Result<Cursor, BucketError> {
        let found = self.bucket.value(EVENTS_KEY).await?;
        let (cursor, through) = found.map_or((0, 0), |(revision, value)| {
            let published = serde_json::from_slice::<Published>(&value);
            (revision, published.map_or(0, |published| published.through))
        });
        Ok(Cursor { cursor, through })
    }

    /// Publishes the events of changes of others after the revision `after`, up to the first whose writer may still be at it.
    async fn publish_left(&self, after: u64, own: &[u64]) -> Result<u64, BucketError> {
        let old = (OffsetDateTime::now_utc() - self.grace).unix_timestamp_nanos();
        let mut changes = Changes::after(&self.bucket, after).await?;
        let mut reached = after;
        // What was interrupted is left to the next writer.
        while let Ok(Ok(Some(change))) = timeout(ACK_TIMEOUT, changes.stored()).await {
            if let Some((key, value)) = change.kind.brief()
                && own.binary_search(&change.revision).is_err()
                && value.event.is_some()
            {
                if change.stored > old {
                    return Ok(reached);
                }
                self.publish_event_about(key, &value, change.revision)
                    .await?;
            }
            reached = change.revision;
        }
        Ok(reached)
    }

    async fn publish_event_of(
        &self,
        key: &Key,
        value: &Bytes,
        Written { revision, existed }: Written,
    ) -> Result<(), BucketError> {
        let published = self.publish_event(key, value, revision).await;
        published.map_err(|cause| BucketError::Unpublished {
            revision,
            existed,
            cause: Box::new(cause),
        })
    }

    async fn publish_event(
        &self,
        key: &Key,
        value: &Bytes,
        revision: u64,
    ) -> Result<(), BucketError> {
        self.publish_event_about(key, &Brief::read(value), revision)
            .await
    }

    async fn publish_event_about(
        &self,
        key: &Key,
        value: &Brief<'_>,
        revision: u64,
    ) -> Result<(), BucketError> {
        let user = (self.shown)(&key.id);
        let Some(event) = ListChangedEvent::new(key, value, revision, user) else {
            return Ok(());
        };
        let payload = Bytes::from(serde_json::to_vec(&event).map_err(refused)?);
        let message = |message: PublishMessage| {
            message
                .message_id(&event.id)
                .header("Content-Type", CONTENT_TYPE)
        };
        self.send(CHANGED_SUBJECT, &payload, message)
            .await
            .map(drop)
    }

    /// Writes if the key still has `revision`, and returns the acknowledgement. None if it has another.
    async fn compare_and_set(
        &self,
        key: &Key,
        value: &Bytes,
        event: EventId,
        revision: u64,
    ) -> Result<Option<Ack>, BucketError> {
        let message = |message: PublishMessage| {
            message
                .message_id(event.to_string())
                .expected_last_subject_sequence(revision)
        };
        self.send(&subject(&key.to_string()), value, message).await
    }

    /// Publishes until it is acknowledged, and returns that. None if the subject's last sequence is not the expected one.
    async fn send(
        &self,
        subject: &str,
        payload: &Bytes,
        with: impl Fn(PublishMessage) -> PublishMessage,
    ) -> Result<Option<Ack>, BucketError> {
        let jetstream: &jetstream::Context = &self.bucket.jetstream;
        for _ in 0..ATTEMPTS {
            let message = with(PublishMessage::build().payload(payload.clone()));
            let sent = timeout(ACK_TIMEOUT, async {
                jetstream
                    .send_publish(subject.to_owned(), message)
                    .await?
                    .await
            });
            match sent.await {
                Ok(Ok(ack)) => {
                    return Ok(Some(Ack {
                        revision: ack.sequence,
                        duplicate: ack.duplicate,
                    }));
                }
                Ok(Err(error)) => match error.kind() {
                    PublishErrorKind::WrongLastSequence => return Ok(None),
                    PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {}
                    _ => return Err(publish_error(subject, &error)),
                },
                Err(_) => {}
            }
        }
        Err(BucketError::Refused(format!(
            "no acknowledgement for {}: NATS is stuck or unreachable, or its permissions deny it",
            shown(subject)
        )))
    }
}

/// The revision at a key, whether its entry counts at `at`, and the ID of its event.
fn current(found: Option<&(u64, Bytes)>, at: OffsetDateTime) -> (u64, bool, Option<EventId>) {
    found.map_or((0, false, None), |(revision, value)| {
        let brief = Brief::read(value);
        let at = u64::try_from(at.unix_timestamp()).unwrap_or_default();
        (*revision, !brief.is_dead(at), brief.event)
    })
}

fn value(addition: &Addition, replaces: Option<EventId>) -> Result<Bytes, BucketError> {
    let entry = Entry {
        by: addition.by.clone(),
        reason: addition.reason.clone(),
        at: addition.at,
        until: addition.until,
        removed: addition.removed,
        event: addition.event,
        replaces,
    };
    entry.to_value().map(Bytes::from).map_err(refused)
}

fn busy() -> BucketError {
    BucketError::Refused("others change the same entry all the time; try again".to_owned())
}

fn refused(error: impl std::fmt::Display) -> BucketError {
    BucketError::Refused(error.to_string())
}

/// A subject for messages, which must not have users' IDs.
fn shown(subject: &str) -> &str {
    match subject == CHANGED_SUBJECT {
        true => subject,
        false => SUBJECTS,
    }
}

fn publish_error(subject: &str, error: &PublishError) -> BucketError {
    let subject = shown(subject);
    match error.kind() {
        PublishErrorKind::StreamNotFound => BucketError::Refused(format!(
            "no stream takes {subject}: a gateway creates the stream IMPORTGUARD when it starts"
        )),
        _ => BucketError::Refused(format!("{subject}: {error}")),
    }
}
