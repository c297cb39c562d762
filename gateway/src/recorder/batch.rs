//! Publishing a batch from the spool.

use std::collections::{HashSet, VecDeque};

use async_nats::jetstream::stream::Config;
use importguard_core::EventId;
use tokio::time::Instant;

use super::{
    Inner,
    publisher::{BACKGROUND_TIMEOUT, Message, Sent},
    refusal::{AckError, Refusal},
    requirements,
};
use crate::spool::{ParkReason, StoredEvent};

/// The drain's acks under way at once. A new event waits behind them at the server, some 25 µs each, so that four at most
/// double the 100 µs of an idle one; and four already drain more than ten thousand events a second.
const IN_FLIGHT: usize = 4;

/// What became of a batch.
pub(super) struct Published<'a> {
    /// NATS has these.
    pub(super) done: Vec<EventId>,
    /// NATS takes others, but not these.
    pub(super) refused: Vec<(&'a StoredEvent, ParkReason)>,
    /// Why the rest is still to be published.
    pub(super) outcome: Result<(), AckError>,
}

impl Published<'_> {
    /// How many need not be published now.
    pub(super) fn settled(&self) -> usize {
        self.done.len() + self.refused.len()
    }
}

impl Inner {
    /// Publishes `batch` in order, without what is `stored` already or `blocked`.
    pub(super) async fn publish_all<'a>(
        &self,
        config: &Config,
        batch: &'a [StoredEvent],
        stored: &HashSet<EventId>,
        blocked: impl Fn(&StoredEvent) -> Option<ParkReason>,
    ) -> Published<'a> {
        let mut published = Published {
            done: Vec::with_capacity(batch.len()),
            refused: Vec::new(),
            outcome: Ok(()),
        };
        let mut acks: VecDeque<(&StoredEvent, Sent, Instant)> = VecDeque::with_capacity(IN_FLIGHT);
        let mut events = batch.iter();
        loop {
            let next = match published.outcome {
                Ok(()) if acks.len() < IN_FLIGHT => events.next(),
                _ => None,
            };
            let (event, acknowledged) = match next {
                Some(event) if stored.contains(&event.id) => (event, Ok(())),
                Some(event) => match blocked(event) {
                    Some(reason) => {
                        published.refused.push((event, reason));
                        continue;
                    }
                    None => match self.publisher.send(Message::from(event)).await {
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
                        (event, acknowledged.await)
                    }
                    None => return published,
                },
            };
            match acknowledged {
                Ok(()) => published.done.push(event.id),
                Err(error) => match refusal(error, config, &event.subject) {
                    Ok(refusal) => {
                        self.blocked.refused(&event.subject, &refusal);
                        published.refused.push((event, refusal.reason));
                    }
                    Err(error) => published.outcome = published.outcome.and(Err(error)),
                },
            }
        }
    }
}

/// What `error` says about this event or its subject; else the error.
fn refusal(error: AckError, config: &Config, subject: &str) -> Result<Refusal, AckError> {
    match error {
        AckError::Refused(refusal) => Ok(refusal),
        AckError::NoStream if !requirements::takes(config, subject) => {
            Ok(Refusal::subject_missing(subject))
        }
        error => Err(error),
    }
}
