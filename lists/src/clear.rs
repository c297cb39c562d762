//! Clears inactive entries: expired entries, and the records of removals.
//!
//! Deciders evaluate the expiry themselves, so this only saves space. They compare the bucket's number of keys with their own to detect
//! entries that were deleted while they were disconnected. So the keys to be cleared are first announced in the bucket.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    Bucket, BucketError, Changes, Key,
    bucket::{request_error, subject},
};

/// How long inactive entries are kept. A decider that was disconnected for less than this sees every removal; otherwise, it may have to
/// read all lists again.
pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The key of announcements.
const CLEARED_KEY: &str = "_cleared";

/// The maximum number of keys in an announcement: with the longest IDs, it stays below NATS's default message limit of 1 MB.
const BATCH: usize = 1000;

/// Timeout for the next change, and for the ack of an announcement.
const PATIENCE: Duration = Duration::from_secs(5);

/// The result of [`Bucket::clear`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// The number of keys that were read, including importguard's own.
    pub read: u64,
    /// The number of entries that were cleared.
    pub cleared: u64,
    /// The number of entries that were left only because the event about them may not be published yet.
    pub unpublished: u64,
}

/// Keys whose entries are about to be cleared if they are inactive.
#[derive(Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// The keys, as written in the bucket.
    pub(crate) keys: Vec<String>,
    /// The revision after which the next call continues to read; 0 to start over.
    pub(crate) next: u64,
}

impl Announcement {
    /// Returns the keys in the announcement that is the value of `key`; `None` if the value is not an announcement.
    pub fn read(key: &str, value: &[u8]) -> Option<impl Iterator<Item = Key> + use<>> {
        let found = (key == CLEARED_KEY).then(|| serde_json::from_slice::<Self>(value).ok())??;
        Some(found.keys.into_iter().filter_map(|key| Key::parse(&key)))
    }
}

impl Bucket {
    /// Reads up to `most` keys, continuing where the last call in any process stopped, and clears the entries that have been inactive for
    /// at least `retention`. It leaves those whose event may not be published yet: the event is made from the entry.
    ///
    /// # Errors
    /// If NATS does not answer, or refuses a request.
    pub async fn clear(&self, most: u64, retention: Duration) -> Result<Cleared, BucketError> {
        let found = self.value(CLEARED_KEY).await?;
        let (expected, after) = found.map_or((0, 0), |(revision, value)| {
            let last = serde_json::from_slice::<Announcement>(&value);
            (revision, last.map_or(0, |last| last.next))
        });
        let published = self.published().await?;
        let mut changes = Changes::after(self, after).await?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let before = now.saturating_sub(retention);
        let mut cleared = Cleared::default();
        let (mut dead, mut reached) = (Vec::new(), after);
        let mut is_all = false;
        while cleared.read < most && dead.len() < BATCH {
            let Ok(Ok(change)) = timeout(PATIENCE, changes.stored()).await else {
                break;
            };
            let Some(change) = change else {
                is_all = true;
                break;
            };
            cleared.read += 1;
            reached = change.revision;
            if let Some((key, value)) = change.kind.brief() {
                let old = match value.removed {
                    true => change.stored <= i128::try_from(before.as_nanos()).unwrap_or_default(),
                    false => value.is_dead(before.as_secs()),
                };
                if old && published.lacks(change.revision, value.event) {
                    cleared.unpublished += 1;
                } else if old {
                    dead.push((key.to_string(), change.revision));
                }
            }
        }
        // At the end of the bucket, the next call starts over.
        let next = if is_all { 0 } else { reached };
        if dead.is_empty() && next == after {
            return Ok(cleared);
        }
        let announcement = Announcement {
            keys: dead.iter().map(|(key, _)| key.clone()).collect(),
            next,
        };
        let value = serde_json::to_vec(&announcement)
            .map_err(|error| BucketError::Refused(error.to_string()))?;
        if !self.announce(Bytes::from(value), expected).await? {
            // Another process is clearing entries.
            return Ok(cleared);
        }
        for (key, revision) in dead {
            // Only up to that revision, because the ID may have been added again meanwhile.
            let purged = self
                .stream
                .purge()
                .filter(subject(&key))
                .sequence(revision + 1)
                .await;
            purged.map_err(|error| {
                request_error(&error, "$JS.API.STREAM.PURGE.KV_IMPORTGUARD_LISTS")
            })?;
            cleared.cleared += 1;
        }
        Ok(cleared)
    }

    /// Writes the announcement. Returns `false` if another process wrote one meanwhile.
    async fn announce(&self, value: Bytes, expected: u64) -> Result<bool, BucketError> {
        use async_nats::jetstream::{context::PublishErrorKind, message::PublishMessage};
        let message = PublishMessage::build()
            .payload(value)
            .expected_last_subject_sequence(expected);
        let sent = async {
            let sent = self.jetstream.send_publish(subject(CLEARED_KEY), message);
            sent.await?.await
        };
        match timeout(PATIENCE, sent).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Ok(Err(error)) => Err(BucketError::Refused(error.to_string())),
            Err(_) => Err(BucketError::NoAnswer("$KV.IMPORTGUARD_LISTS.>")),
        }
    }
}
