use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::sleep;
use tracing::{Instrument, Span, warn};

/// Tells of an overload once a second, however many callbacks it has.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary(Arc<AtomicU64>);

impl Summary {
    /// Counts one. The first since the last line has a second of silence end with the next.
    pub(super) fn count(&self) {
        if self.0.fetch_add(1, Relaxed) > 0 {
            return;
        }
        let counted = Arc::clone(&self.0);
        let tell = async move {
            sleep(Duration::from_secs(1)).await;
            warn!(
                callbacks = counted.swap(0, Relaxed),
                cause = "overloaded",
                "in the last second more callbacks came than can be answered in time; these were answered by IMPORTGUARD_ON_OVERLOAD, or without an event by IMPORTGUARD_ON_UNRECORDABLE: run more gateways, or raise IMPORTGUARD_MAX_IN_FLIGHT if this one has time to spare"
            );
        };
        // The line belongs to no single callback.
        tokio::spawn(tell.instrument(Span::none()));
    }
}
