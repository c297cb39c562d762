//! Retries parked events, from the oldest to the newest.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use async_nats::jetstream::stream::Stream;
use importguard_core::EventId;
use tokio::time::Instant;

use super::{
    batch::Refused,
    drain::{BATCH_BYTES, Drain, Purpose},
    error::DrainError,
};
use crate::spool::{ParkReason, ParkedQuery, PendingEvent};

/// A small batch, because a single event may be enough to see that its subject is still refused.
const BATCH_EVENTS: usize = 64;

/// Number of refusals of single events that end a pass. The next pass continues from there.
const REFUSALS: usize = 256;

/// Passes over the parked events.
#[derive(Debug)]
pub(super) struct Retry {
    /// Whether a pass is due or under way.
    pub(super) is_due: bool,
    /// When the last batch was retried.
    retried: Instant,
    /// The event after which to continue; `None` for the first one.
    after: Option<EventId>,
    /// Refusals of single events in this pass.
    refusals: usize,
    /// Subjects that NATS refused in this pass, and why. One event of each has been tried.
    refused: BTreeMap<String, ParkReason>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            is_due: false,
            retried: Instant::now(),
            after: None,
            refusals: 0,
            refused: BTreeMap::new(),
        }
    }
}

impl Retry {
    /// Schedules a pass that begins with the first event.
    pub(super) fn begin(&mut self) {
        self.after = None;
        self.resume();
    }

    /// Schedules a pass that begins where the last one ended.
    pub(super) fn resume(&mut self) {
        self.is_due = true;
        self.refusals = 0;
        self.refused.clear();
    }

    /// Returns whether the last pass ended before the last event.
    pub(super) fn has_more(&self) -> bool {
        self.after.is_some()
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.retried.elapsed()
    }
}

impl Drain {
    /// Retries the next parked events.
    pub(super) async fn retry_parked(&mut self, stream: &mut Stream) -> Result<(), DrainError> {
        let retried = self.retry_batch(stream).await;
        self.retry.retried = Instant::now();
        self.retry.is_due = match &retried {
            Ok(()) => self.retry.has_more() && self.retry.refusals < REFUSALS,
            // A spool that is only being emptied gets no other pass.
            Err(_) => self.purpose == Purpose::Empty,
        };
        if !self.retry.is_due {
            let drained = mem::take(&mut self.drained);
            if drained.total() > 0 {
                tracing::info!(
                    events = drained.total(),
                    parked = self.recorder.spool.depth().parked().total(),
                    "published {drained} that NATS had refused"
                );
            }
        }
        retried
    }

    async fn retry_batch(&mut self, stream: &mut Stream) -> Result<(), DrainError> {
        let recorder = self.recorder.clone();
        let parked = || recorder.spool.depth().parked();
        if parked().total() == 0 {
            self.retry.after = None;
            recorder.blocked.forget_all_but(parked());
            return Ok(());
        }
        let query = ParkedQuery {
            after: self.retry.after,
            except: self.retry.refused.keys().cloned().collect(),
            limit: BATCH_EVENTS,
            max_bytes: BATCH_BYTES,
            sequence: recorder.publisher.sequence(),
        };
        let batch = recorder.spool.parked(query).await?;
        let stored = self.stored(stream, &batch.events).await?;
        // The first event of each subject shows whether the others are worth trying.
        let mut subjects = BTreeSet::new();
        let (first, others): (Vec<_>, Vec<_>) = batch
            .events
            .into_iter()
            .partition(|event| subjects.insert(event.subject.clone()));
        let probed = recorder.publish_all(&first, &stored, |_| None).await;
        for Refused { event, reason, .. } in &probed.refused {
            if reason.is_about_the_subject() {
                let subject = event.subject.to_string();
                self.retry.refused.insert(subject, *reason);
            }
        }
        self.settle(probed, true).await?;
        let refused = |event: &PendingEvent| self.retry.refused.get(&*event.subject).copied();
        let published = recorder.publish_all(&others, &stored, refused).await;
        let of_one_event = |refused: &&Refused<'_>| !refused.reason.is_about_the_subject();
        self.retry.refusals += published.refused.iter().filter(of_one_event).count();
        self.settle(published, true).await?;
        self.retry.after = batch.next;
        if batch.next.is_none() {
            recorder.blocked.forget_all_but(parked());
        }
        Ok(())
    }
}
