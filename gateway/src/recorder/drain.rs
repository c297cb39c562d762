//! The task that brings the recorder back to streaming: it waits for NATS, makes sure of the stream, and publishes the spool
//! in order.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::stream::Stream;
use importguard_core::EventId;
use tokio::time::{Instant, timeout};

use super::{
    Inner,
    publisher::{AckError, BACKGROUND_TIMEOUT, Message},
    state::{Observed, State},
    stream::{self, LookUpError, Unavailable},
};
use crate::spool::{SpoolError, StoredEvent, unix_ms};

/// A batch is one transaction of the spool, which a typical event of 1 KiB makes worth its commit.
const BATCH_EVENTS: u32 = 256;

/// Bounds the memory of a batch of large events.
const BATCH_BYTES: usize = 8 << 20;

/// The drain's acks under way at once. A new event waits behind them at the server, some 25 µs each, so that four at most
/// double the 100 µs of an idle one; and four already drain more than ten thousand events a second.
const IN_FLIGHT: usize = 4;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_AT_MOST: Duration = Duration::from_secs(5);

/// After so many failed look-ups in a row events are published without one: rather twice than never.
const LOOK_UPS: u32 = 3;

#[derive(Debug, thiserror::Error)]
enum DrainError {
    #[error("not connected to NATS")]
    NotConnected,
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
            Self::NotConnected | Self::Stream(_) | Self::Ack(_) => true,
            Self::LookUp(_) | Self::Spool(_) => false,
        }
    }
}

pub(super) struct Drain {
    recorder: Arc<Inner>,
    failed_look_ups: u32,
}

impl Drain {
    pub(super) fn new(recorder: Arc<Inner>) -> Self {
        Self {
            recorder,
            failed_look_ups: 0,
        }
    }

    /// Works for as long as the recorder lives.
    pub(super) async fn run(mut self) {
        let mut retry = RETRY_FIRST;
        loop {
            let seen = self.recorder.machine.see();
            match self.recover(seen).await {
                Ok(stream) => {
                    retry = RETRY_FIRST;
                    self.stay(&stream).await;
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

    fn report(&self, error: &DrainError) {
        let last_error = &self.recorder.last_error;
        // The connection has already logged the cause.
        let known = matches!(error, DrainError::NotConnected) && last_error.last().is_some();
        if !known && last_error.note(&error.to_string()) {
            tracing::warn!("{error}: events stay in the spool");
        }
    }

    /// Spooling → draining: the stream is there and, if events wait, NATS has acknowledged the first of them.
    async fn recover(&mut self, seen: Observed) -> Result<Stream, DrainError> {
        let recorder = self.recorder.clone();
        if !recorder.publisher.connected() {
            return Err(DrainError::NotConnected);
        }
        let stream =
            stream::ensure(recorder.publisher.jetstream(), &recorder.settings.stream).await?;
        let limit = usize::try_from(stream.cached_info().config.max_message_size);
        recorder
            .publisher
            .limit_messages(limit.ok().filter(|&limit| limit > 0));
        match self.publish_next(&stream, 1).await {
            Ok(_) => recorder.last_error.clear(),
            Err(error) if error.is_nats() => return Err(error),
            // New events can go to NATS; the drain itself sees to the rest.
            Err(error) => self.report(&error),
        }
        recorder.machine.advance(seen, State::Draining);
        let events = recorder.spool.depth().events();
        if events > 0 {
            tracing::info!(events, "NATS accepts events again: draining the spool");
        }
        Ok(stream)
    }

    /// Draining ⇄ streaming, until a publication fails.
    async fn stay(&mut self, stream: &Stream) {
        let recorder = self.recorder.clone();
        let mut retry = RETRY_FIRST;
        loop {
            let seen = recorder.machine.see();
            match seen.state() {
                State::Spooling => return,
                State::Draining => match self.publish_next(stream, BATCH_EVENTS).await {
                    Ok(0) => {
                        if recorder.machine.advance(seen, State::Streaming) {
                            tracing::info!("the spool is empty: streaming to NATS");
                        }
                    }
                    Ok(_) => retry = RETRY_FIRST,
                    Err(error) if error.is_nats() => recorder.fail(seen, &error.to_string()),
                    Err(error) => {
                        self.report(&error);
                        let _ = timeout(retry, recorder.machine.left(State::Draining)).await;
                        retry = (retry * 2).min(RETRY_AT_MOST);
                    }
                },
                State::Streaming => {
                    tokio::select! {
                        () = recorder.machine.left(State::Streaming) => {}
                        // Somebody's ack failed while others' came: no reason to spool, but one event to bring along.
                        () = recorder.spool.depth().grown() => {
                            recorder.machine.advance(seen, State::Draining);
                        }
                    }
                }
            }
        }
    }

    /// Publishes the first `limit` events of the spool, in order, and deletes exactly those that NATS has. Returns how many; an
    /// error if it hasn't them all.
    async fn publish_next(&mut self, stream: &Stream, limit: u32) -> Result<usize, DrainError> {
        let recorder = self.recorder.clone();
        let Inner {
            spool, publisher, ..
        } = &*recorder;
        if spool.depth().events() == 0 {
            return Ok(0);
        }
        let batch = spool.advance(Vec::new(), limit, BATCH_BYTES).await?;
        let stored = self.stored(stream, &batch).await?;
        let connection = publisher.connection();
        let mut done = Vec::with_capacity(batch.len());
        let mut outcome = Ok(());
        let mut acks = VecDeque::with_capacity(IN_FLIGHT);
        let mut events = batch.iter();
        loop {
            let next = match outcome {
                Ok(()) if acks.len() < IN_FLIGHT => events.next(),
                _ => None,
            };
            match next {
                Some(event) if stored.contains(&event.id) => done.push(event.id),
                Some(event) => match publisher.send(Message::from(event)).await {
                    Ok(ack) => {
                        let deadline = Instant::now() + BACKGROUND_TIMEOUT;
                        acks.push_back((event.id, ack, deadline));
                    }
                    Err(error) => outcome = Err(error),
                },
                None => match acks.pop_front() {
                    Some((id, ack, deadline)) => {
                        match publisher.acknowledged(ack, connection, deadline).await {
                            Ok(()) => done.push(id),
                            Err(error) => outcome = outcome.and(Err(error)),
                        }
                    }
                    None => break,
                },
            }
        }
        let count = done.len();
        if count > 0 {
            spool.advance(done, 0, 0).await?;
        }
        recorder.metrics.drained(count);
        outcome?;
        Ok(count)
    }

    /// Which events of `batch` must not be published again, as the stream has them and NATS may have forgotten their ids.
    async fn stored(
        &mut self,
        stream: &Stream,
        batch: &[StoredEvent],
    ) -> Result<HashSet<EventId>, DrainError> {
        let window = stream.cached_info().config.duplicate_window;
        // A quarter is for what lies between this look and the publication.
        let remembered_ms = i64::try_from((window - window / 4).as_millis()).unwrap_or(i64::MAX);
        let forgotten = |attempted_ms: i64| attempted_ms.saturating_add(remembered_ms) < unix_ms();
        let possibly_stored: HashMap<EventId, i64> = batch
            .iter()
            .filter_map(|event| Some((event.id, event.attempted_ms()?)))
            .filter(|&(_, attempted_ms)| forgotten(attempted_ms))
            .collect();
        let Some(&since_ms) = possibly_stored.values().min() else {
            return Ok(HashSet::new());
        };
        let inbox = self.recorder.publisher.client().new_inbox();
        match stream::stored(stream, inbox, &possibly_stored, since_ms).await {
            Ok(stored) => {
                self.failed_look_ups = 0;
                tracing::info!(
                    looked_up = possibly_stored.len(),
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
                    events = possibly_stored.len(),
                    "events are published that may be in the stream already: subscribers see them twice, with the same id"
                );
                Ok(HashSet::new())
            }
        }
    }
}
