//! The revision up to which every event is published.

use importguard_core::EventId;
use serde::{Deserialize, Serialize};

use crate::{Bucket, BucketError};

/// The key that stores the revision up to which every event is published.
pub(crate) const EVENTS_KEY: &str = "_events";

/// The value at [`EVENTS_KEY`].
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Published {
    /// The revision of [`EVENTS_KEY`] itself.
    #[serde(skip)]
    pub(crate) revision: u64,
    /// The revision up to which every event is published.
    pub(crate) through: u64,
}

impl Published {
    /// Whether the event about the value with this revision may not be published yet. A value without an event, such as one that another
    /// program wrote, has none to publish.
    pub(crate) fn lacks(&self, revision: u64, event: Option<EventId>) -> bool {
        event.is_some() && revision > self.through
    }
}

impl Bucket {
    pub(crate) async fn published(&self) -> Result<Published, BucketError> {
        let Some((revision, value)) = self.value(EVENTS_KEY).await? else {
            return Ok(Published::default());
        };
        let published: Published = serde_json::from_slice(&value).unwrap_or_default();
        Ok(Published {
            revision,
            ..published
        })
    }
}
