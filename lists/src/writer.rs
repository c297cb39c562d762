//! Changes lists, and publishes each change as an event.
//!
//! The entry, which contains the ID of its event, is written first. The event is published once NATS has acknowledged the entry. The key
//! `_events` in the bucket stores the revision up to which every event is published. If a writer was killed between the two steps, another
//! writer finds its change after that revision and publishes the event, with the ID in the entry. So NATS discards an event that had been
//! published after all, within the stream's duplicate window.
//!
//! The bucket keeps only the last value of a key. So before a change whose event is not published is replaced, its event is published.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    self,
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
};
use bytes::Bytes;
use importguard_core::{EventId, UserId};
use time::OffsetDateTime;
use tokio::{sync::SetOnce, time::timeout};

use crate::{
    Author, Brief, Bucket, BucketError, CHANGED_SUBJECT, Changes, Entry, Key, ListChangedEvent,
    Reason, SUBJECTS,
    bucket::subject,
    event::CONTENT_TYPE,
    published::{EVENTS_KEY, Published},
};

/// Timeout for an ack. A cluster elects a leader in less time.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// How many times a message is sent until NATS acknowledges it. A change keeps its message ID, so that NATS stores it only once.
const ATTEMPTS: u32 = 3;

/// How many times a change is tried while others change the same entry.
const CONFLICTS: u32 = 20;

/// The minimum age of a change before another writer publishes its event: its own writer has given up by then.
const GRACE: Duration = Duration::from_secs(60);

/// A value to write at a key.
#[derive(Clone, Debug)]
pub struct Addition {
    /// Who adds or removes the ID.
    pub by: Author,
    /// Why.
    pub reason: Option<Reason>,
    /// When the ID is added or removed.
    pub at: OffsetDateTime,
    /// When the entry expires, in whole seconds; `None` if never.
    pub until: Option<OffsetDateTime>,
    /// Whether the ID is removed instead of added.
    pub removed: bool,
    /// The ID of the event about the change.
    pub event: EventId,
}

/// A change that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The revision of the change.
    pub revision: u64,
    /// Whether there was an active entry before.
    pub existed: bool,
}

/// The result of [`Writer::add_once`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The entry was added, with this revision.
    Now(u64),
    /// The entry had already been added. If its event was not known to be published, this call published it, and the entry has this
    /// revision.
    Before(Option<u64>),
    /// The current entry or removal has the same or a later time than the addition, so it stays.
    Superseded,
    /// The addition has already expired.
    Expired,
}

/// Returns the pseudonym of a user.
type PseudonymOf = dyn Fn(&UserId) -> UserId + Send + Sync;

/// Changes lists, and publishes the events about the changes. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    bucket: Bucket,
    pseudonym: Option<Arc<PseudonymOf>>,
    grace: Duration,
    events_denied: Arc<SetOnce<String>>,
}

/// An ack by NATS.
struct Ack {
    revision: u64,
    /// Whether NATS already had the message before it was first sent.
    duplicate: bool,
}

impl Writer {
    /// Creates a writer to `bucket`.
    pub fn new(bucket: Bucket) -> Self {
        Self {
            bucket,
            pseudonym: None,
            grace: GRACE,
            events_denied: Arc::default(),
        }
    }

    /// Writes pseudonyms instead of user IDs into events, and no reasons, because they may name users. The bucket still has both.
    #[must_use]
    pub fn with_pseudonyms(
        mut self,
        pseudonym: impl Fn(&UserId) -> UserId + Send + Sync + 'static,
    ) -> Self {
        self.pseudonym = Some(Arc::new(pseudonym));
        self
    }

    /// Has events fail at once when `denied` is set, with its text. NATS does not respond to a publication that it denies, but reports
    /// it on the connection.
    #[must_use]
    pub fn with_events_denied(mut self, denied: Arc<SetOnce<String>>) -> Self {
        self.events_denied = denied;
        self
    }

    /// Sets the minimum age of other writers' changes before this writer publishes their missing events. The default is one minute.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The bucket.
    pub const fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Adds or removes the ID at `key`, replacing any value, and publishes the event. Returns `None` if the ID was to be removed and had no
    /// active entry at the addition's time.
    ///
    /// # Errors
    /// If NATS refuses the change or does not acknowledge it. The entry may have been written even so; a retry is harmless.
    /// [`BucketError::Unpublished`] if the entry was written, but its event was not published.
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
            let pending = match self.publish_replaced(key, found.as_ref()).await {
                Ok(()) => None,
                // Who is on a list matters more than the record of it.
                Err(_) => found.as_ref(),
            };
            let value = value(addition, replaces)?;
            if let Some(Ack { revision, .. }) = self
                .compare_and_set(key, &value, addition.event, revision)
                .await?
            {
                let written = Written { revision, existed };
                if let Some((before, value)) = pending {
                    let published = self.publish_event(key, value, *before).await;
                    published.map_err(unpublished(written, true))?;
                }
                let published = self.publish_event(key, &value, revision).await;
                published.map_err(unpublished(written, false))?;
                return Ok(Some(written));
            }
        }
        Err(busy())
    }

    /// Adds the ID at `key` exactly once per event ID of `addition`, however often and from however many processes this is called. The
    /// addition's time must be the same in each call. An entry or removal with the same or a later time stays. The event is published even
    /// if an earlier call was interrupted after it wrote the entry.
    ///
    /// # Errors
    /// If NATS refuses the change or its event, or does not acknowledge it. The entry may have been written even so; a retry is harmless.
    pub async fn add_once(&self, key: &Key, addition: &Addition) -> Result<Added, BucketError> {
        for _ in 0..CONFLICTS {
            let found = self.bucket.value(&key.to_string()).await?;
            if let Some((revision, value)) = &found {
                let brief = Brief::read(value);
                let event = Some(addition.event);
                if brief.event == event {
                    // Its writer may have been killed before it published the event.
                    if !self.bucket.published().await?.lacks(*revision, event) {
                        return Ok(Added::Before(None));
                    }
                    self.publish_event(key, value, *revision).await?;
                    return Ok(Added::Before(Some(*revision)));
                }
                if brief.replaces == event {
                    return Ok(Added::Before(None));
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
            self.publish_replaced(key, found.as_ref()).await?;
            let (revision, _, replaces) = current(found.as_ref(), addition.at);
            let value = value(addition, replaces)?;
            if let Some(ack) = self
                .compare_and_set(key, &value, addition.event, revision)
                .await?
            {
                self.publish_event(key, &value, ack.revision).await?;
                return Ok(match ack.duplicate {
                    true => Added::Before(Some(ack.revision)),
                    false => Added::Now(ack.revision),
                });
            }
        }
        Err(busy())
    }

    /// Writes an entry if `key` still has `revision`, which is 0 if it has no value, and publishes the event. If others have changed it since,
    /// a change with the same or a later time than the addition's stays, as in [`add_once`](Self::add_once). Returns the new revision, or
    /// `None` if nothing was written.
    ///
    /// For bulk imports, which read all revisions at once and call [`publish_all`](Self::publish_all) after that: if the event about the
    /// current value is not published, it is lost.
    ///
    /// # Errors
    /// Same as [`write`](Self::write).
    pub async fn put(
        &self,
        key: &Key,
        addition: &Addition,
        revision: u64,
    ) -> Result<Option<u64>, BucketError> {
        let value = value(addition, None)?;
        let Some(Ack { revision, .. }) = self
            .compare_and_set(key, &value, addition.event, revision)
            .await?
        else {
            return Ok(match self.add_once(key, addition).await? {
                Added::Now(revision) => Some(revision),
                Added::Before(_) | Added::Superseded | Added::Expired => None,
            });
        };
        let written = Written {
            revision,
            existed: false,
        };
        let published = self.publish_event(key, &value, revision).await;
        published.map_err(unpublished(written, false))?;
        Ok(Some(revision))
    }

    /// Publishes every missing event, also of changes whose writers may still be active: NATS discards those that come twice.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub async fn publish_all(&self) -> Result<(), BucketError> {
        let impatient = self.clone().with_grace(Duration::ZERO);
        impatient.finish(&[]).await.map(drop)
    }

    /// Publishes the missing events of interrupted writers, and stores the revision up to which every event is published. `own` are the
    /// revisions of this writer's changes. Returns the stored revision. It is less than the last of `own` if another writer's change before
    /// that is younger than the minimum age.
    ///
    /// # Errors
    /// If NATS refuses a message or does not acknowledge it. The next writer catches up.
    pub async fn finish(&self, own: &[u64]) -> Result<u64, BucketError> {
        let Published { revision, through } = self.bucket.published().await?;
        let mut own = own.to_vec();
        own.push(revision);
        own.retain(|&revision| revision > through);
        own.sort_unstable();
        own.dedup();
        let contiguous = (through + 1..)
            .zip(&own)
            .take_while(|(expected, revision)| expected == *revision);
        let reached = through + contiguous.count() as u64;
        let reached = self.publish_left(reached, &own).await?;
        if reached > through {
            let published = Published {
                revision,
                through: reached,
            };
            let value = serde_json::to_vec(&published).map_err(refused)?;
            // If another writer stored a revision meanwhile, that one is used.
            let expect = |message: PublishMessage| message.expected_last_subject_sequence(revision);
            let (key, value) = (subject(EVENTS_KEY), Bytes::from(value));
            if self.send(&key, &value, expect).await?.is_none() {
                return Ok(self.bucket.published().await?.through);
            }
        }
        Ok(reached)
    }

    /// Publishes the events of other writers' changes after the revision `after`, up to the first change whose writer may still be active.
    /// Returns the revision up to which every event is published.
    async fn publish_left(&self, after: u64, own: &[u64]) -> Result<u64, BucketError> {
        let old = (OffsetDateTime::now_utc() - self.grace).unix_timestamp_nanos();
        let mut changes = Changes::after(&self.bucket, after).await?;
        let mut reached = after;
        // If reading is interrupted, the rest is left to the next writer.
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

    /// Publishes the event about the value that is about to be replaced, unless it is known to be published.
    async fn publish_replaced(
        &self,
        key: &Key,
        found: Option<&(u64, Bytes)>,
    ) -> Result<(), BucketError> {
        let Some((revision, value)) = found else {
            return Ok(());
        };
        let brief = Brief::read(value);
        if brief.event.is_none() || !self.bucket.published().await?.lacks(*revision, brief.event) {
            return Ok(());
        }
        self.publish_event_about(key, &brief, *revision).await
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
        let pseudonym = self.pseudonym.as_ref().map(|of| of(&key.id));
        let Some(event) = ListChangedEvent::new(key, value, revision, pseudonym) else {
            return Ok(());
        };
        let payload = Bytes::from(serde_json::to_vec(&event).map_err(refused)?);
        let message = |message: PublishMessage| {
            message
                .message_id(&event.id)
                .header("Content-Type", CONTENT_TYPE)
        };
        tokio::select! {
            sent = self.send(CHANGED_SUBJECT, &payload, message) => sent.map(drop),
            why = self.events_denied.wait() => Err(refused(why)),
        }
    }

    /// Writes if the key still has `revision`, and returns the ack. `None` if the key has another revision.
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

    /// Publishes with retries until NATS acknowledges the message, and returns the ack. `None` if the subject's last sequence is not the
    /// expected one.
    async fn send(
        &self,
        subject: &str,
        payload: &Bytes,
        with: impl Fn(PublishMessage) -> PublishMessage,
    ) -> Result<Option<Ack>, BucketError> {
        let jetstream: &jetstream::Context = &self.bucket.jetstream;
        for attempt in 0..ATTEMPTS {
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
                        duplicate: ack.duplicate && attempt == 0,
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

/// Returns the revision at a key, whether its entry is active at `at`, and the ID of its event.
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

/// Returns how the error of publishing an event is reported after a change is made.
fn unpublished(
    Written { revision, existed }: Written,
    lost: bool,
) -> impl FnOnce(BucketError) -> BucketError {
    move |cause| BucketError::Unpublished {
        revision,
        existed,
        lost,
        cause: Box::new(cause),
    }
}

fn busy() -> BucketError {
    BucketError::Refused("others change the same entry all the time; try again".to_owned())
}

fn refused(error: impl std::fmt::Display) -> BucketError {
    BucketError::Refused(error.to_string())
}

/// Returns the subject as error messages show it: without the user's ID.
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
