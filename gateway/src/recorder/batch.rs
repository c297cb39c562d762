//! Publishing a batch from the spool.

use std::collections::{HashSet, VecDeque};

use importguard_core::EventId;
use tokio::time::Instant;

use super::{
    Inner,
    publisher::{Sent, Stored},
    refusal::AckError,
    settings::BACKGROUND_TIMEOUT,
};
use crate::spool::{ParkReason, PendingEvent};

/// Maximum number of acks the drain waits for at once. A new event queues behind them at the server, about 25 µs each, so four at most
/// double the 100 µs of an idle server. Four already drain more than 10,000 events a second.
const IN_FLIGHT: usize = 4;

/// Result of publishing a batch.
pub(super) struct Published<'a> {
    /// Events that NATS has stored.
    pub(super) done: Vec<EventId>,
    /// Number of these that it had already.
    pub(super) stored_before: usize,
    /// Events that NATS refuses while it accepts others.
    pub(super) refused: Vec<Refused<'a>>,
    /// The stream's last known sequence before the batch: what NATS stored of it comes later.
    pub(super) sequence: u64,
    /// `Ok` if no event remains to be published; otherwise the reason.
    pub(super) outcome: Result<(), AckError>,
}

/// An event that NATS refuses.
pub(super) struct Refused<'a> {
    pub(super) event: &'a PendingEvent,
    pub(super) reason: ParkReason,
    /// See [`Refusal::may_be_stored`].
    pub(super) may_be_stored: bool,
}

impl Published<'_> {
    /// Number of events that need not be published now.
    pub(super) fn settled(&self) -> usize {
        self.done.len() + self.refused.len()
    }
}

impl Inner {
    /// Publishes `batch` in order. Without publishing them, counts `stored` events as done and `blocked` ones as refused. Stops sending
    /// at the first error that is not a refusal.
    pub(super) async fn publish_all<'a>(
        &self,
        batch: &'a [PendingEvent],
        stored: &HashSet<EventId>,
        blocked: impl Fn(&PendingEvent) -> Option<ParkReason>,
    ) -> Published<'a> {
        let mut published = Published {
            done: Vec::with_capacity(batch.len()),
            stored_before: 0,
            refused: Vec::new(),
            sequence: self.publisher.sequence(),
            outcome: Ok(()),
        };
        let mut acks: VecDeque<(&PendingEvent, Sent, Instant)> = VecDeque::with_capacity(IN_FLIGHT);
        let mut events = batch.iter();
        loop {
            let next = match published.outcome {
                Ok(()) if acks.len() < IN_FLIGHT => events.next(),
                _ => None,
            };
            let (event, acknowledged) = match next {
                Some(event) if stored.contains(&event.id) => (event, Ok(Stored::Before)),
                Some(event) => match blocked(event) {
                    Some(reason) => {
                        published.refused.push(Refused {
                            event,
                            reason,
                            may_be_stored: false,
                        });
                        continue;
                    }
                    None => match self.publisher.send(event).await {
                        Ok(sent) => {
                            acks.push_back((event, sent, Instant::now()));
                            continue;
                        }
                        Err(error) => (event, Err(error)),
                    },
                },
                None => match acks.pop_front() {
                    Some((event, sent, start)) => {
                        let acknowledged =
                            self.publisher.acknowledged(sent, start, BACKGROUND_TIMEOUT);
                        let acknowledged = acknowledged
                            .await
                            .inspect(|_| self.blocked.accepted(&event.subject));
                        (event, acknowledged)
                    }
                    None => return published,
                },
            };
            match acknowledged {
                Ok(stored) => {
                    published.done.push(event.id);
                    published.stored_before += usize::from(stored == Stored::Before);
                }
                Err(error) => match self.refusal(error, &event.subject) {
                    Ok(refusal) => {
                        self.blocked.refused(&event.subject, &refusal);
                        published.refused.push(Refused {
                            event,
                            reason: refusal.reason,
                            may_be_stored: refusal.may_be_stored,
                        });
                    }
                    Err(error) => published.outcome = published.outcome.and(Err(error)),
                },
            }
        }
    }
}
