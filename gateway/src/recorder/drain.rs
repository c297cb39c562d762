//! The task that brings the recorder back to streaming: it waits for NATS, makes sure of the stream, publishes the spool
//! in order, and tries again what is parked.

use std::{collections::HashSet, mem, ops::ControlFlow, sync::Arc, time::Duration};

use async_nats::jetstream::stream::{Config, Stream};
use importguard_core::EventId;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep, timeout},
};

use super::{
    Inner,
    batch::Published,
    refusal::AckError,
    requirements,
    retry::Retry,
    state::{Observed, State},
    status::events,
    stream::{self, LookUpError, Unavailable},
};
use crate::spool::{Parking, SpoolError, StoredEvent};

/// A batch is one transaction of the spool, which a typical event of 1 KiB makes worth its commit.
const BATCH_EVENTS: u32 = 256;

/// The same for a spool that is only to be emptied. Of a restored copy every event is looked up, for which the stream is read once a
/// batch.
const EMPTYING_EVENTS: u32 = 8192;

/// Bounds the memory of a batch of large events.
pub(super) const BATCH_BYTES: usize = 8 << 20;

/// How long the first connection may take before its absence is a warning.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_AT_MOST: Duration = Duration::from_secs(5);

/// After so many failed look-ups in a row events are published without one: rather twice than never.
const LOOK_UPS: u32 = 3;

/// How often the stream's settings are looked at: what is parked waits for a change of them.
const LOOK: Duration = Duration::from_secs(5 * 60);
const LOOK_WHILE_PARKED: Duration = Duration::from_secs(5);

/// How often parked events are tried though the stream's settings are the same: permissions are not among these.
const RETRY_PARKED: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(super) enum DrainError {
    #[error("NATS at {0} has not responded yet")]
    NotConnected(String),
    #[error(transparent)]
    Stream(#[from] Unavailable),
    #[error(transparent)]
    Ack(#[from] AckError),
    #[error(transparent)]
    LookUp(#[from] LookUpError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl DrainError {
    /// A reason to spool new events too.
    fn is_nats(&self) -> bool {
        match self {
            Self::NotConnected(_) | Self::Stream(_) | Self::Ack(_) => true,
            Self::LookUp(_) | Self::Spool(_) => false,
        }
    }
}

/// What the spool is drained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Events are recorded meanwhile.
    Record,
    /// It is to be empty, and that is all.
    Empty,
}

pub(super) struct Drain {
    pub(super) recorder: Arc<Inner>,
    failed_look_ups: u32,
    /// How many events were published from the spool since it was last empty.
    drained: usize,
    retry: Option<Retry>,
    /// When the stream's settings were last looked at, and which they were.
    looked: (Instant, Option<Config>),
    retried: Instant,
    /// Where the last pass over what is parked ended, if it was not at the end.
    reached: Option<EventId>,
    purpose: Purpose,
    /// The last error is none of NATS.
    is_reported: bool,
    /// SIGHUP has parked events tried at once.
    hangup: Option<Signal>,
}

impl Drain {
    pub(super) fn new(recorder: Arc<Inner>, purpose: Purpose) -> Self {
        Self {
            recorder,
            failed_look_ups: 0,
            drained: 0,
            retry: None,
            looked: (Instant::now(), None),
            retried: Instant::now(),
            reached: None,
            purpose,
            is_reported: false,
            hangup: match purpose {
                Purpose::Record => signal(SignalKind::hangup()).ok(),
                // It ends with its terminal.
                Purpose::Empty => None,
            },
        }
    }

    /// Works for as long as the recorder lives, or until the spool is as empty as it can be.
    pub(super) async fn run(mut self) {
        tracing::info!(
            "connecting to NATS at {}",
            self.recorder.publisher.servers()
        );
        // NATS may be starting along with this gateway. The first attempt to recover finds a connection, or reports that there is
        // none, unless the reason is known.
        let connected = timeout(CONNECT_TIMEOUT, self.recorder.connected.notified()).await;
        if let (Err(_), Some(error)) = (connected, self.recorder.last_error.last()) {
            tracing::warn!("{error}: buffering events in the spool until NATS accepts them");
        }
        let mut retry = RETRY_FIRST;
        loop {
            let seen = self.recorder.machine.see();
            match self.recover(seen).await {
                Ok(stream) => {
                    retry = RETRY_FIRST;
                    if self.stay(stream).await.is_break() {
                        return;
                    }
                }
                Err(error) => {
                    self.report(&error);
                    let connected = self.recorder.connected.notified();
                    // A connection that comes back is worth a try at once.
                    let _ = timeout(retry, connected).await;
                    retry = (retry * 2).min(RETRY_AT_MOST);
                }
            }
        }
    }

    fn report(&mut self, error: &DrainError) {
        let last_error = &self.recorder.last_error;
        self.is_reported = !error.is_nats();
        // The connection has already logged the cause.
        let known = matches!(error, DrainError::NotConnected(_)) && last_error.last().is_some();
        if !known && last_error.note(&error.to_string()) {
            tracing::warn!("{error}: events stay in the spool");
        }
    }

    /// What was reported of the spool or of a look-up is over.
    fn recovered(&mut self) {
        if std::mem::take(&mut self.is_reported) {
            self.recorder.last_error.clear();
        }
    }

    /// Spooling → draining: the stream is there and, if events wait, NATS has acknowledged the first of them, or refused it for
    /// what it is.
    async fn recover(&mut self, seen: Observed) -> Result<Stream, DrainError> {
        let recorder = self.recorder.clone();
        if !recorder.publisher.connected() {
            let servers = recorder.publisher.servers().to_owned();
            return Err(DrainError::NotConnected(servers));
        }
        let mut stream = self.look().await?;
        match self.publish_next(&mut stream, 1).await {
            Ok(_) => recorder.last_error.clear(),
            Err(error) if error.is_nats() => return Err(error),
            // New events can go to NATS; the drain itself sees to the rest.
            Err(error) => self.report(&error),
        }
        self.retry = Some(Retry::default());
        recorder.machine.advance(seen, State::Draining);
        let events = recorder.spool.depth().waiting() + self.drained;
        if events > 0 {
            tracing::info!(events, "NATS accepts events again: draining the spool");
        }
        Ok(stream)
    }

    /// Looks at the stream, which is created if it is missing. What is parked is tried again if its settings have changed.
    async fn look(&mut self) -> Result<Stream, Unavailable> {
        let Inner {
            publisher,
            settings,
            deviations,
            reach,
            ..
        } = &*self.recorder;
        self.looked.0 = Instant::now();
        let stream = stream::ensure(publisher.jetstream(), &settings.stream).await?;
        let info = stream.cached_info();
        let limit = usize::try_from(info.config.max_message_size);
        publisher.limit_messages(limit.ok().filter(|&limit| limit > 0));
        publisher.has_reached(info.state.last_sequence);
        deviations.set(requirements::deviations(&info.config));
        reach.set(info);
        let config = Some(info.config.clone());
        if self.looked.1 != config {
            self.looked.1 = config;
            self.retry = Some(Retry::default());
        }
        Ok(stream)
    }

    /// Draining ⇄ streaming, until a publication fails. Breaks when there is nothing left to do.
    async fn stay(&mut self, mut stream: Stream) -> ControlFlow<()> {
        let recorder = self.recorder.clone();
        let limit = match self.purpose {
            Purpose::Record => BATCH_EVENTS,
            Purpose::Empty => EMPTYING_EVENTS,
        };
        let mut retry = RETRY_FIRST;
        loop {
            let seen = recorder.machine.see();
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
                                0 => "which is empty now".to_owned(),
                                _ => format!("where {} that NATS refuses remain", events(parked)),
                            };
                            match drained {
                                0 => tracing::info!(parked, "streaming events to NATS"),
                                _ => tracing::info!(
                                    events = drained,
                                    parked,
                                    "published {} from the spool, {rest}: streaming to NATS",
                                    events(drained)
                                ),
                            }
                        }
                        continue;
                    }
                    outcome => outcome.map(drop),
                },
                State::Streaming if self.retry.is_some() => self.retry_parked(&mut stream).await,
                State::Streaming if self.purpose == Purpose::Record => {
                    self.wait(seen, &mut stream).await
                }
                State::Streaming => match self.reached.take() {
                    None => return ControlFlow::Break(()),
                    reached => {
                        self.retry = Some(Retry::after(reached));
                        Ok(())
                    }
                },
            };
            match outcome {
                Ok(()) => {
                    retry = RETRY_FIRST;
                    self.recovered();
                }
                Err(error) if error.is_nats() => recorder.fail(seen, &error.to_string()),
                Err(error) => {
                    self.report(&error);
                    let _ = timeout(retry, recorder.machine.left(seen.state())).await;
                    retry = (retry * 2).min(RETRY_AT_MOST);
                }
            }
        }
    }

    /// Streaming, until there is something to do.
    async fn wait(&mut self, seen: Observed, stream: &mut Stream) -> Result<(), DrainError> {
        let recorder = self.recorder.clone();
        tokio::select! {
            () = recorder.machine.left(State::Streaming) => {}
            // Somebody's ack failed while others' came: no reason to spool, but one event to bring along.
            () = recorder.spool.depth().grown() => {
                recorder.machine.advance(seen, State::Draining);
            }
            () = received(&mut self.hangup) => self.retry = Some(Retry::default()),
            () = sleep(LOOK_WHILE_PARKED) => self.tick(stream).await?,
        }
        Ok(())
    }

    /// Looks at the stream's settings and tries parked events, when it is time to.
    async fn tick(&mut self, stream: &mut Stream) -> Result<(), DrainError> {
        let parked = self.recorder.spool.depth().parked().total();
        if parked == 0 && self.looked.0.elapsed() < LOOK {
            return Ok(());
        }
        match self.look().await {
            Ok(seen) => *stream = seen,
            Err(error @ Unavailable::Unfit(_)) => return Err(error.into()),
            // Publications will tell, if it matters.
            Err(error) => tracing::debug!(%error, "can't look at the stream"),
        }
        if parked > 0 && self.retried.elapsed() >= RETRY_PARKED {
            self.retry = Some(Retry::after(self.reached));
        }
        Ok(())
    }

    /// Tries the next of the parked events.
    async fn retry_parked(&mut self, stream: &mut Stream) -> Result<(), DrainError> {
        let Some(mut retry) = self.retry.take() else {
            return Ok(());
        };
        let stepped = retry.step(self, stream).await;
        self.retried = Instant::now();
        match stepped {
            Ok(true) => self.reached = retry.reached(),
            Ok(false) => self.retry = Some(retry),
            // There will be no other pass.
            Err(_) if self.purpose == Purpose::Empty => self.retry = Some(retry),
            Err(_) => {}
        }
        stepped.map(drop)
    }

    /// Publishes the first `limit` events of the spool, in order, deletes exactly those that NATS has and parks those that it
    /// refuses. Returns how many; an error if some are still to be published.
    async fn publish_next(&mut self, stream: &mut Stream, limit: u32) -> Result<usize, DrainError> {
        let recorder = self.recorder.clone();
        if recorder.spool.depth().waiting() == 0 {
            return Ok(0);
        }
        let sequence = recorder.publisher.sequence();
        let batch = recorder.spool.next(limit, BATCH_BYTES, sequence).await?;
        let window = stream.cached_info().config.duplicate_window;
        // A quarter is for what lies between this look and the publication.
        let are_remembered = recorder.attempts.are_within(window - window / 4);
        let stored = if are_remembered {
            HashSet::new()
        } else {
            self.stored(stream, &batch).await?
        };
        recorder.attempts.note(Duration::ZERO);
        let blocked = |event: &StoredEvent| recorder.blocked.reason(&event.subject);
        let config = &stream.cached_info().config;
        let published = recorder.publish_all(config, &batch, &stored, blocked).await;
        let count = published.settled();
        // What NATS may still remember has not been looked up.
        let forget = !are_remembered;
        self.settle(published, forget).await?;
        Ok(count)
    }

    /// Deletes what NATS has and parks what it refuses.
    pub(super) async fn settle(
        &mut self,
        published: Published<'_>,
        forget_attempts: bool,
    ) -> Result<(), DrainError> {
        let recorder = self.recorder.clone();
        let Inner { spool, metrics, .. } = &*recorder;
        let Published {
            done,
            refused,
            outcome,
        } = published;
        let drained = done.len();
        if drained > 0 {
            spool.delete(done).await?;
        }
        metrics.drained(drained);
        self.drained += drained;
        if !refused.is_empty() {
            let parking = |(event, reason): (&StoredEvent, _)| Parking {
                id: event.id,
                reason,
                attempted_after: event.attempted_after().filter(|_| !forget_attempts),
            };
            spool
                .park(refused.into_iter().map(parking).collect())
                .await?;
        }
        Ok(outcome?)
    }

    /// Which events of `batch` must not be published again, as the stream has them and NATS may have forgotten their ids.
    pub(super) async fn stored(
        &mut self,
        stream: &mut Stream,
        batch: &[StoredEvent],
    ) -> Result<HashSet<EventId>, DrainError> {
        let attempts = batch
            .iter()
            .filter_map(|event| Some((event.id, event.attempted_after()?)));
        let Some(after) = attempts.clone().map(|(_, after)| after).min() else {
            return Ok(HashSet::new());
        };
        let ids: HashSet<_> = attempts.map(|(id, _)| id).collect();
        let inbox = self.recorder.publisher.client().new_inbox();
        match stream::stored(stream, inbox, &ids, after).await {
            Ok(stored) => {
                self.failed_look_ups = 0;
                tracing::info!(
                    looked_up = ids.len(),
                    found = stored.len(),
                    "looked up events that may have been stored before"
                );
                Ok(stored)
            }
            Err(error) if self.failed_look_ups + 1 < LOOK_UPS => {
                self.failed_look_ups += 1;
                Err(error.into())
            }
            Err(error) => {
                self.failed_look_ups = 0;
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

/// Ready when the signal arrives; never if there is no handler for it.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
