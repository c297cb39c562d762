//! Clears away what no longer counts: entries that expired, and the records of removals.
//!
//! Deciders evaluate the expiry themselves, so this only saves space. They compare the number of keys with what they know, to notice
//! entries that were deleted while they were away; so what is about to be cleared away is announced in the bucket first.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    Bucket, BucketError, Changes, Key,
    bucket::{request_error, subject},
};

/// How long what no longer counts is kept. A decider that was away for less learns of each removal; one that was away for longer may
/// have to read all lists anew.
pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The key of announcements.
const CLEARED_KEY: &str = "_cleared";

/// How many keys are announced at once: with the longest IDs, less than NATS's default limit of 1 MB.
const BATCH: usize = 1000;

/// How long NATS is given to send the next entry.
const PATIENCE: Duration = Duration::from_secs(5);

/// What clearing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// The number of entries that were read.
    pub read: u64,
    /// The number of entries that were cleared away.
    pub cleared: u64,
}

/// Keys that are about to be cleared away, if they do not count.
#[derive(Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// The keys, as in the bucket.
    pub(crate) keys: Vec<String>,
    /// The revision up to which the bucket was read for it; it is read on from there the next time.
    pub(crate) next: u64,
}

impl Announcement {
    /// Reads the value of `key`, if it is an announcement.
    pub fn read(key: &str, value: &[u8]) -> Option<impl Iterator<Item = Key> + use<>> {
        let found = (key == CLEARED_KEY).then(|| serde_json::from_slice::<Self>(value).ok())??;
        Some(found.keys.into_iter().filter_map(|key| Key::parse(&key)))
    }
}

impl Bucket {
    /// Reads up to `most` entries, from where the last call in any process ended, and clears away those that have not counted for
    /// `retention`.
    ///
    /// # Errors
    /// If NATS does not answer or refuses.
    pub async fn clear(&self, most: u64, retention: Duration) -> Result<Cleared, BucketError> {
        let found = self.value(CLEARED_KEY).await?;
        let (expected, after) = found.map_or((0, 0), |(revision, value)| {
            let last = serde_json::from_slice::<Announcement>(&value);
            (revision, last.map_or(0, |last| last.next))
        });
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
                if old {
                    dead.push((key.to_string(), change.revision));
                }
            }
        }
        // From the start again, the next time.
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
            // Somebody else is at it.
            return Ok(cleared);
        }
        for (key, revision) in dead {
            // Only up to that revision: the ID may have been added again meanwhile.
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

    /// Writes the announcement; false if somebody else was faster.
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
