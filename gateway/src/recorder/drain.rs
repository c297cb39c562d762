//! The drain: the task that brings the recorder back to streaming. It waits for NATS, ensures that the stream exists, publishes the spool
//! in order, and retries parked events.

use std::{collections::HashSet, mem, ops::ControlFlow, sync::Arc, time::Duration};

use async_nats::jetstream::stream::{Config, Stream};
use importguard_core::EventId;
use importguard_runtime::signals::Hangup;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Inner,
    batch::{Published, Refused},
    error::DrainError,
    requirements,
    retry::Retry,
    state::{Observed, State},
    status::{Drained, events},
    stream::{self, Unavailable},
};
use crate::spool::{Parking, PendingEvent};

/// Maximum number of events in a batch. A batch is one spool transaction; 256 typical events of 1 KiB justify its commit.
const BATCH_EVENTS: u32 = 256;

/// Like [`BATCH_EVENTS`], but for a spool that is only being emptied. Every event of a restored copy is looked up, and each batch reads
/// the stream once.
const EMPTYING_EVENTS: u32 = 8192;

/// Bounds the memory of a batch of large events.
pub(super) const BATCH_BYTES: usize = 8 << 20;

/// Time to wait for the first connection before its absence is logged as a warning.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_AT_MOST: Duration = Duration::from_secs(5);

/// If NATS fails again before this time after a recovery, the next attempt waits longer than the last.
const STEADY: Duration = Duration::from_secs(10);

/// Number of consecutive failed lookups after which events are published without one: a duplicate is better than a missing event.
const MAX_FAILED_LOOKUPS: u32 = 3;

/// How often to check the stream's settings. Parked events wait for these to change.
const CHECK_INTERVAL: Duration = Duration::from_secs(5 * 60);
const PARKED_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How often to retry parked events although the stream's settings are unchanged: permissions are not part of these.
const RETRY_PARKED: Duration = Duration::from_secs(60);

/// Why the spool is being drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Events are recorded at the same time.
    Record,
    /// Only to empty the spool.
    Empty,
}

pub(super) struct Drain {
    pub(super) recorder: Arc<Inner>,
    failed_lookups: u32,
    /// Since no event waited in the spool, or since the last pass over parked ones.
    pub(super) drained: Drained,
    pub(super) retry: Retry,
    /// When the stream's settings were last checked.
    checked: Instant,
    /// Their values then.
    config: Option<Config>,
    pub(super) purpose: Purpose,
    /// The last reported error is no reason to spool new events: it is over when the drain's next step succeeds.
    is_reported: bool,
    /// On SIGHUP, parked events are retried immediately.
    hangup: Hangup,
}

impl Drain {
    pub(super) fn new(recorder: Arc<Inner>, purpose: Purpose) -> Self {
        Self {
            recorder,
            failed_lookups: 0,
            drained: Drained::default(),
            retry: Retry::default(),
            checked: Instant::now(),
            config: None,
            purpose,
            is_reported: false,
            hangup: match purpose {
                Purpose::Record => Hangup::listen().unwrap_or_default(),
                // No handler, so that the process ends when its terminal closes.
                Purpose::Empty => Hangup::default(),
            },
        }
    }

    /// Runs for as long as the recorder lives or, with [`Purpose::Empty`], until the spool is as empty as it can be.
    pub(super) async fn run(mut self) {
        tracing::info!(
            "connecting to NATS at {}",
            self.recorder.publisher.servers()
        );
        // NATS may be starting at the same time as this gateway. The first attempt to recover either finds a connection or reports that
        // there is none, unless the cause is already known.
        let connected = timeout(CONNECT_TIMEOUT, self.recorder.connected.notified()).await;
        if let (Err(_), Some(error)) = (connected, self.recorder.last_error.last()) {
            tracing::warn!("{error}: buffering events in the spool until NATS accepts them");
        }
        let mut retry = RETRY_FIRST;
        loop {
            let seen = self.recorder.machine.observe();
            match self.recover(seen).await {
                Ok(stream) => {
                    let recovered = Instant::now();
                    if self.stay(stream).await.is_break() {
                        return;
                    }
                    if recovered.elapsed() >= STEADY {
                        retry = RETRY_FIRST;
                        continue;
                    }
                }
                Err(error) => self.report(&error),
            }
            let connected = self.recorder.connected.notified();
            // Retry immediately when the connection is re-established.
            let _ = timeout(retry, connected).await;
            retry = (retry * 2).min(RETRY_AT_MOST);
        }
    }

    fn report(&mut self, error: &DrainError) {
        let last_error = &self.recorder.last_error;
        self.is_reported =
            !error.is_nats() || self.recorder.machine.observe().state() != State::Spooling;
        // The connection has already logged the cause.
        let known = matches!(error, DrainError::NotConnected(_)) && last_error.last().is_some();
        if !known && last_error.note(&error.to_string()) {
            tracing::warn!("{error}: events stay in the spool");
        }
    }

    /// Clears the last error if it was no reason to spool new events.
    fn recovered(&mut self) {
        if std::mem::take(&mut self.is_reported) {
            self.recorder.last_error.clear();
        }
    }

    /// Moves from spooling to draining: the stream is usable and, if events wait, the first of them is stored or parked. That need not have
    /// been published now, and an error of the spool or of a lookup does not prevent the move, so NATS may fail again at once.
    async fn recover(&mut self, seen: Observed) -> Result<Stream, DrainError> {
        let recorder = self.recorder.clone();
        let publisher = &recorder.publisher;
        let not_connected = || DrainError::NotConnected(publisher.servers().to_owned());
        let connection = publisher.connection().ok_or_else(not_connected)?;
        let mut stream = self.check_stream().await.map_err(|error| {
            // The responses to a connection that is lost meanwhile arrive on no other, which says nothing about the stream.
            match publisher.connection() == Some(connection) {
                true => error.into(),
                false => not_connected(),
            }
        })?;
        match self.publish_next(&mut stream, 1).await {
            Ok(_) => recorder.last_error.clear(),
            Err(error) if error.is_nats() => return Err(error),
            // New events can go to NATS; the drain handles the rest itself.
            Err(error) => self.report(&error),
        }
        self.retry_refused();
        recorder.machine.advance(seen, State::Draining);
        let events = recorder.spool.depth().waiting() + self.drained.total();
        if events > 0 {
            tracing::info!(events, "NATS accepts events again: draining the spool");
        }
        Ok(stream)
    }

    /// Retries everything that NATS refused, from the first parked event.
    fn retry_refused(&mut self) {
        self.recorder.blocked.try_all();
        self.retry.begin();
    }

    /// Checks the stream, and creates it if it is missing. Returns an error if it takes no events. If its settings have changed, parked
    /// events are retried.
    async fn check_stream(&mut self) -> Result<Stream, Unavailable> {
        let Inner {
            publisher,
            settings,
            subjects,
            deviations,
            stream_stats,
            ..
        } = &*self.recorder;
        self.checked = Instant::now();
        let jetstream = publisher.jetstream();
        let last = self.config.as_ref();
        let stream = stream::ensure(jetstream, &settings.stream, last).await?;
        let domain = stream::domain(jetstream).await?;
        let info = stream.cached_info();
        let last = self.config.replace(info.config.clone());
        let is_changed = last.as_ref() != Some(&info.config);
        if is_changed {
            requirements::warn_of_one_replica(info);
        }
        stream::usable(info)?;
        publisher.set_domain(domain);
        let limit = usize::try_from(info.config.max_message_size);
        publisher.limit_messages(limit.ok().filter(|&limit| limit > 0));
        publisher.set_sequence(info.state.last_sequence);
        subjects.lock().clone_from(&info.config.subjects);
        deviations.set(requirements::deviations(&info.config));
        stream_stats.set(info);
        if is_changed {
            self.retry_refused();
        }
        Ok(stream)
    }

    /// Moves between draining and streaming until a publication fails. Breaks when nothing is left to do.
    async fn stay(&mut self, mut stream: Stream) -> ControlFlow<()> {
        let recorder = self.recorder.clone();
        let limit = match self.purpose {
            Purpose::Record => BATCH_EVENTS,
            Purpose::Empty => EMPTYING_EVENTS,
        };
        let mut retry = RETRY_FIRST;
        loop {
            let seen = recorder.machine.observe();
            let is_parked_retry = seen.state() == State::Streaming && self.retry.is_due;
            let outcome = match seen.state() {
                State::Spooling => return ControlFlow::Continue(()),
                State::Draining => match self.publish_next(&mut stream, limit).await {
                    Ok(0) => {
                        self.recovered();
                        recorder.attempts.settle();
                        if recorder.machine.advance(seen, State::Streaming) {
                            let drained = mem::take(&mut self.drained);
                            let parked = recorder.spool.depth().parked().total();
                            let rest = match parked {
                                0 => "is empty now".to_owned(),
                                _ => format!("keeps {} that NATS refuses", events(parked)),
                            };
                            match drained.total() {
                                0 => tracing::info!(parked, "streaming events to NATS"),
                                total => tracing::info!(
                                    events = total,
                                    parked,
                                    "published {drained} from the spool, which {rest}: streaming to NATS"
                                ),
                            }
                        }
                        continue;
                    }
                    outcome => outcome.map(drop),
                },
                State::Streaming if is_parked_retry => self.retry_parked(&mut stream).await,
                State::Streaming if self.purpose == Purpose::Record => {
                    self.wait(seen, &mut stream).await
                }
                State::Streaming if self.retry.has_more() => {
                    self.retry.resume();
                    Ok(())
                }
                State::Streaming => return ControlFlow::Break(()),
            };
            match outcome {
                Ok(()) => {
                    retry = RETRY_FIRST;
                    self.recovered();
                }
                // A parked event is an exception already: only other events show whether NATS accepts events.
                Err(error) if error.is_nats() && !is_parked_retry => {
                    recorder.fail(seen, &error.to_string());
                }
                Err(error) => {
                    self.report(&error);
                    let _ = timeout(retry, recorder.machine.wait_until_left(seen.state())).await;
                    retry = (retry * 2).min(RETRY_AT_MOST);
                }
            }
        }
    }

    /// Waits in the streaming state until there is something to do.
    async fn wait(&mut self, seen: Observed, stream: &mut Stream) -> Result<(), DrainError> {
        let recorder = self.recorder.clone();
        tokio::select! {
            () = recorder.machine.wait_until_left(State::Streaming) => {}
            // The ack of one event failed while others arrived. That is no reason to spool new events, but this one must be drained.
            () = recorder.spool.depth().grown() => {
                recorder.machine.advance(seen, State::Draining);
            }
            () = self.hangup.received() => self.retry_refused(),
            () = sleep(PARKED_CHECK_INTERVAL) => self.tick(stream).await?,
        }
        Ok(())
    }

    /// Checks the stream's settings and schedules a retry of parked events, each when it is due.
    async fn tick(&mut self, stream: &mut Stream) -> Result<(), DrainError> {
        let parked = self.recorder.spool.depth().parked().total();
        let is_refused = parked > 0 || self.recorder.blocked.any();
        if !is_refused && self.checked.elapsed() < CHECK_INTERVAL {
            return Ok(());
        }
        match self.check_stream().await {
            Ok(seen) => *stream = seen,
            Err(error @ (Unavailable::Unfit(_) | Unavailable::NoLeader(_))) => {
                return Err(error.into());
            }
            // If it matters, publications will fail.
            Err(error) => tracing::debug!(%error, "can't look at the stream"),
        }
        if parked > 0 && self.retry.elapsed() >= RETRY_PARKED {
            self.retry.resume();
        }
        Ok(())
    }

    /// Publishes the first `limit` events of the spool in order, deletes those that NATS has stored, and parks those that it refuses.
    /// Returns the number of events deleted or parked, or an error if some are still to be published.
    async fn publish_next(&mut self, stream: &mut Stream, limit: u32) -> Result<usize, DrainError> {
        let recorder = self.recorder.clone();
        if recorder.spool.depth().waiting() == 0 {
            return Ok(0);
        }
        let sequence = recorder.publisher.sequence();
        let batch = recorder.spool.next(limit, BATCH_BYTES, sequence).await?;
        let window = stream.cached_info().config.duplicate_window;
        // A quarter of the window is reserved for the time between this check and the publication.
        let are_remembered = recorder.attempts.are_within(window - window / 4);
        let stored = if are_remembered {
            HashSet::new()
        } else {
            self.stored(stream, &batch).await?
        };
        recorder.attempts.note(Duration::ZERO);
        let blocked = |event: &PendingEvent| recorder.blocked.reason_to_park(&event.subject);
        let published = recorder.publish_all(&batch, &stored, blocked).await;
        let count = published.settled();
        // Events were not looked up if NATS may still remember them, so keep the record of earlier attempts.
        let forget = !are_remembered;
        self.settle(published, forget).await?;
        Ok(count)
    }

    /// Deletes the events that NATS has stored and parks those that it refuses.
    pub(super) async fn settle(
        &mut self,
        published: Published<'_>,
        forget_attempts: bool,
    ) -> Result<(), DrainError> {
        let recorder = self.recorder.clone();
        let Inner { spool, metrics, .. } = &*recorder;
        let Published {
            done,
            stored_before,
            refused,
            sequence,
            outcome,
        } = published;
        let drained = Drained {
            published: done.len() - stored_before,
            stored_before,
        };
        if !done.is_empty() {
            spool.delete(done).await?;
        }
        metrics.drained(drained.total());
        self.drained.add(drained);
        recorder.drained.lock().add(drained);
        if !refused.is_empty() {
            let parking = |refused: Refused<'_>| Parking {
                id: refused.event.id,
                reason: refused.reason,
                attempted_after: match refused.event.attempted_after {
                    attempted if refused.may_be_stored => attempted.or(Some(sequence)),
                    _ if forget_attempts => None,
                    attempted => attempted,
                },
            };
            spool
                .park(refused.into_iter().map(parking).collect())
                .await?;
        }
        Ok(outcome?)
    }

    /// Returns the events of `batch` that must not be published again: the stream has them, and NATS may have forgotten their IDs. After
    /// [`MAX_FAILED_LOOKUPS`] failed lookups in a row, returns none.
    pub(super) async fn stored(
        &mut self,
        stream: &mut Stream,
        batch: &[PendingEvent],
    ) -> Result<HashSet<EventId>, DrainError> {
        let attempts = batch
            .iter()
            .filter_map(|event| Some((event.id, event.attempted_after?)));
        let Some(after) = attempts.clone().map(|(_, after)| after).min() else {
            return Ok(HashSet::new());
        };
        let ids: HashSet<_> = attempts.map(|(id, _)| id).collect();
        let inbox = self.recorder.publisher.client().new_inbox();
        match stream::stored(stream, inbox, &ids, after).await {
            Ok(stored) => {
                self.failed_lookups = 0;
                tracing::info!(
                    looked_up = ids.len(),
                    found = stored.len(),
                    "looked up events that may have been stored before"
                );
                Ok(stored)
            }
            Err(error) if self.failed_lookups + 1 < MAX_FAILED_LOOKUPS => {
                self.failed_lookups += 1;
                Err(error.into())
            }
            Err(error) => {
                self.failed_lookups = 0;
                tracing::warn!(
                    %error,
                    events = ids.len(),
                    "events are published that may be in the stream already: subscribers see them twice, with the same id"
                );
                Ok(HashSet::new())
            }
        }
    }
}
