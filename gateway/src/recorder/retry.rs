//! Retries parked events, from the oldest to the newest.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::jetstream::stream::Stream;
use importguard_core::EventId;

use super::{
    batch::Refused,
    drain::{BATCH_BYTES, Drain},
    error::DrainError,
};
use crate::spool::{ParkReason, ParkedQuery, PendingEvent};

/// A small batch, because a single event may be enough to see that its subject is still refused.
const BATCH_EVENTS: usize = 64;

/// Number of refusals of single events that end a pass. The next pass continues from there.
const REFUSALS: usize = 256;

/// A pass over the parked events.
#[derive(Debug, Default)]
pub(super) struct Retry {
    after: Option<EventId>,
    /// The pass did not start at the first event, so it says nothing about subjects that it did not encounter.
    is_partial: bool,
    refusals: usize,
    /// Subjects that NATS refused in this pass, and why. One event of each has been tried.
    refused: BTreeMap<String, ParkReason>,
    /// The subjects that were blocked when the pass began: it says nothing about those that were blocked since.
    blocked: Option<BTreeSet<String>>,
}

impl Retry {
    /// Creates a pass that starts after the given event, or at the first one if `None`.
    pub(super) fn after(event: Option<EventId>) -> Self {
        Self {
            after: event,
            is_partial: event.is_some(),
            ..Self::default()
        }
    }

    /// Returns the event after which the next pass starts once this one is over; `None` for the first event.
    pub(super) fn reached(&self) -> Option<EventId> {
        self.after
    }

    /// Retries the next batch. Returns whether the pass is over.
    pub(super) async fn step(
        &mut self,
        drain: &mut Drain,
        stream: &mut Stream,
    ) -> Result<bool, DrainError> {
        let recorder = drain.recorder.clone();
        self.blocked
            .get_or_insert_with(|| recorder.blocked.subjects());
        let depth = recorder.spool.depth();
        if depth.parked().total() == 0 {
            self.end(drain);
            return Ok(true);
        }
        let query = ParkedQuery {
            after: self.after,
            except: self.refused.keys().cloned().collect(),
            limit: BATCH_EVENTS,
            max_bytes: BATCH_BYTES,
            sequence: recorder.publisher.sequence(),
        };
        let batch = recorder.spool.parked(query).await?;
        let stored = drain.stored(stream, &batch.events).await?;
        // The first event of each subject shows whether the others are worth trying.
        let mut subjects = BTreeSet::new();
        let (first, others): (Vec<_>, Vec<_>) = batch
            .events
            .into_iter()
            .partition(|event| subjects.insert(event.subject.clone()));
        let probed = recorder.publish_all(&first, &stored, |_| None);
        let probed = probed.await;
        for Refused { event, reason, .. } in &probed.refused {
            if reason.is_about_the_subject() {
                self.refused.insert(event.subject.to_string(), *reason);
            }
        }
        let taken = |event: &&PendingEvent| probed.done.contains(&event.id);
        let taken: BTreeSet<_> = first
            .iter()
            .filter(taken)
            .map(|event| &*event.subject)
            .collect();
        recorder.blocked.keep(|subject| !taken.contains(subject));
        drain.settle(probed, true).await?;
        let refused = |event: &PendingEvent| self.refused.get(&*event.subject).copied();
        let published = recorder.publish_all(&others, &stored, refused);
        let published = published.await;
        let of_one_event = |refused: &&Refused<'_>| !refused.reason.is_about_the_subject();
        self.refusals += published.refused.iter().filter(of_one_event).count();
        drain.settle(published, true).await?;
        self.after = batch.next;
        if self.after.is_none() {
            self.end(drain);
        }
        Ok(self.after.is_none() || self.refusals >= REFUSALS)
    }

    fn end(&self, drain: &Drain) {
        let blocked = &drain.recorder.blocked;
        if !self.is_partial {
            let known = self.blocked.as_ref();
            blocked.keep(|subject| {
                self.refused.contains_key(subject)
                    || known.is_some_and(|known| !known.contains(subject))
            });
        }
        let parked = drain.recorder.spool.depth().parked();
        for reason in ParkReason::ALL {
            if parked.of(reason) == 0 {
                blocked.forget(reason);
            }
        }
    }
}
