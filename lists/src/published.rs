//! The revision up to which every event is published.

use importguard_core::EventId;
use serde::{Deserialize, Serialize};

use crate::{Bucket, BucketError};

/// The key that stores the revision up to which every event is published.
pub(crate) const EVENTS_KEY: &str = "_events";

/// The value at [`EVENTS_KEY`].
#[derive(Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) through: u64,
}

/// The revision up to which every event is published.
pub(crate) struct Cursor {
    /// The revision of [`EVENTS_KEY`] itself.
    pub(crate) revision: u64,
    pub(crate) through: u64,
}

impl Cursor {
    /// Whether the event about the value with this revision may not be published yet. A value without an event, such as one that another
    /// program wrote, has none to publish.
    pub(crate) fn lacks(&self, revision: u64, event: Option<EventId>) -> bool {
        event.is_some() && revision > self.through
    }
}

impl Bucket {
    pub(crate) async fn published(&self) -> Result<Cursor, BucketError> {
        let found = self.value(EVENTS_KEY).await?;
        let (revision, through) = found.map_or((0, 0), |(revision, value)| {
            let published = serde_json::from_slice::<Published>(&value);
            (revision, published.map_or(0, |published| published.through))
        });
        Ok(Cursor { revision, through })
    }
}
