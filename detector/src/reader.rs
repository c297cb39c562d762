//! Reads decisions, counts them, and acts on what the rules detect.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant, SystemTime},
};

use async_nats::jetstream::{
    Message,
    consumer::{DeliverPolicy, PullConsumer},
    stream::Stream,
};
use futures_util::StreamExt;
use importguard_lists::{Bucket, BucketError, RETENTION, Writer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, warn};

use crate::{
    act::{Outcome, act},
    context::{Context, DECISIONS, Interrupted, RETRY_DELAY},
    decision::{RecordedDecision, Unusable},
    deliveries::Deliveries,
    engine::{Detection, Engine},
    replay::Replay,
};

/// How many events are requested at once: fewer than NATS allows to be unacknowledged.
const BATCH_SIZE: usize = 500;

/// The interval of idle heartbeats. The connection counts as lost after two intervals without a message or heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long a pull request stays open before it must be repeated.
const EXPIRES: Duration = Duration::from_secs(30);

/// How often the bucket is updated with the revision up to which every event is published.
const FINISH_INTERVAL: Duration = Duration::from_secs(1);

/// How often expired entries are cleared, and how many keys are read each time.
const CLEAR_INTERVAL: Duration = Duration::from_secs(300);
const CLEAR_AT_ONCE: u64 = 1000;

/// Timeout for each of the last two steps of a shutdown: updating the bucket, and flushing the connection.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Reads decisions, and writes lists.
pub(crate) struct Reader<'c> {
    pub(crate) context: &'c Context,
    pub(crate) writer: Writer,
    pub(crate) engine: Engine,
    /// The revisions of entries whose events are not yet recorded in the bucket as published.
    pub(crate) own: Vec<u64>,
    pub(crate) deliveries: Deliveries,
    /// Whether the last event that was delivered was the last one in the stream then.
    pub(crate) has_caught_up: bool,
    /// When NATS stored the event that is being handled, by its clock, if that was a moment ago by any clock.
    pub(crate) stored_just_now: Option<OffsetDateTime>,
    /// The kinds of problems that were already logged.
    pub(crate) warned: Vec<&'static str>,
}

/// Whether a step was completed, or interrupted by the shutdown.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    Completely,
    ShuttingDown,
}

/// The position of the consumer in the stream, as sequences.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    /// The last event up to which every event was acknowledged.
    pub(crate) acted: u64,
    /// The last event that was delivered.
    pub(crate) delivered: u64,
}

impl Reader<'_> {
    /// Rebuilds the windows, and acts on events that were delivered but not acknowledged: they may not have been handled.
    pub(crate) async fn rebuild(
        &mut self,
        stream: &Stream,
        position: Position,
    ) -> Result<(), Interrupted> {
        let name = self.context.replay_consumer();
        let from = DeliverPolicy::ByStartSequence {
            start_sequence: position.acted.max(1),
        };
        let next = Replay::open(stream, &name, DECISIONS, from)
            .await?
            .next()
            .await?;
        let stored = |message: &Message| message.info().map(|info| info.published);
        let at = match &next {
            Some(message) => stored(message).map_err(Interrupted::new)?,
            None => OffsetDateTime::now_utc(),
        };
        let begin = DeliverPolicy::ByStartTime {
            start_time: at - self.context.rules.longest_window() * 2,
        };
        let mut replay = Replay::open(stream, &name, DECISIONS, begin).await?;
        let (began, mut events) = (Instant::now(), 0_u64);
        while let Some(message) = replay.next().await? {
            let info = message.info().map_err(Interrupted::new)?;
            if info.stream_sequence > position.delivered {
                break;
            }
            let (stored, act) = (info.published, info.stream_sequence > position.acted);
            if self.observe(&message, stored, act).await == Done::ShuttingDown {
                break;
            }
            self.context.metrics.events.inc();
            events += 1;
        }
        drop(replay);
        self.engine.forget_made();
        let _ = stream.delete_consumer(&name).await;
        info!(
            events,
            seconds = began.elapsed().as_secs_f32(),
            "rebuilt the windows"
        );
        Ok(())
    }

    /// Reads until shutdown.
    ///
    /// # Errors
    /// If reading was interrupted.
    pub(crate) async fn read(&mut self, consumer: &PullConsumer) -> Result<(), Interrupted> {
        let mut messages = consumer
            .stream()
            .max_messages_per_batch(BATCH_SIZE)
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES)
            .messages()
            .await?;
        let shutdown = self.context.shutdown.clone();
        let mut finish = interval(FINISH_INTERVAL);
        finish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clear = interval(CLEAR_INTERVAL);
        clear.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => {
                    let message = message.ok_or_else(|| Interrupted::new("the connection was closed"))??;
                    if self.take(message).await? == Done::ShuttingDown {
                        break;
                    }
                }
                _ = finish.tick() => {
                    self.finish().await;
                    self.report_owners();
                    self.check_connection()?;
                }
                _ = clear.tick() => self.clear().await,
                () = shutdown.cancelled() => break,
            }
        }
        let _ = timeout(LAST_WRITES, self.finish()).await;
        let client = self.context.jetstream.client();
        let _ = timeout(LAST_WRITES, client.flush()).await;
        Ok(())
    }

    async fn take(&mut self, message: Message) -> Result<Done, Interrupted> {
        let info = message.info().map_err(Interrupted::new)?;
        let (stored, pending) = (info.published, info.pending);
        if info.delivered > 1 {
            self.context.metrics.redelivered.inc();
        }
        let is_new = self.has_caught_up && info.delivered == 1;
        self.stored_just_now = is_new.then_some(stored);
        self.has_caught_up = pending == 0;
        self.count_delivery(info.consumer_sequence);
        let status = &self.context.status;
        status.handling(SystemTime::from(stored), pending);
        let done = self.observe(&message, stored, true).await;
        self.context.metrics.events.inc();
        if done == Done::Completely {
            // A lost ack is harmless: NATS redelivers the event, and acting on it again changes nothing.
            let _ = message.ack().await;
        }
        self.context.status.handled(pending);
        Ok(done)
    }

    /// Warns if another process gets a part of the events, so that neither counts them all.
    fn count_delivery(&mut self, number: u64) {
        let Context {
            jetstream,
            metrics,
            settings,
            ..
        } = self.context;
        let connection = jetstream.client().statistics().connects.load(Relaxed);
        let was_shared = self.deliveries.are_shared();
        metrics
            .missed
            .inc_by(self.deliveries.add(number, connection));
        if self.deliveries.are_shared() && !was_shared {
            warn!(
                consumer = settings.consumer,
                "another process reads the events of this consumer, so that each counts a part only: \
                 stop one, or give it a consumer of its own (IMPORTGUARD_DETECT_CONSUMER)"
            );
        }
    }

    pub(crate) fn report_owners(&self) {
        let rules = self.context.rules.iter().enumerate();
        let owners = rules.map(|(index, rule)| {
            let (count, forgotten) = self.engine.owners(index);
            (rule.id.clone(), count, forgotten)
        });
        self.context.status.owners(owners.collect());
    }

    /// Counts an event, and acts on the detections that it leads to. If `act` is `false`, the event was handled before: it only counts for
    /// the windows.
    async fn observe(&mut self, message: &Message, stored: OffsetDateTime, act: bool) -> Done {
        let decision = match RecordedDecision::read(&message.payload) {
            Ok(decision) => decision,
            Err(unusable) => {
                if act {
                    self.skipped(unusable);
                }
                return Done::Completely;
            }
        };
        if !act {
            self.engine.replay(&decision, stored);
            return Done::Completely;
        }
        let observed = self.engine.observe(&decision, stored);
        for (happened, reason) in [
            (observed.late, "late"),
            (observed.unnamed, "unnamed_friends"),
        ] {
            if happened {
                self.context.metrics.skipped(reason);
            }
        }
        for detection in &observed.detections {
            if self.engine.is_listed(detection) {
                continue;
            }
            if self.act(detection, &decision).await == Done::ShuttingDown {
                return Done::ShuttingDown;
            }
        }
        Done::Completely
    }

    /// Reports an event that no rule can count.
    fn skipped(&mut self, unusable: Unusable) {
        let reason = unusable.into_str();
        self.context.metrics.skipped(reason);
        if self.is_first(reason) {
            warn!("{}", unusable.advice());
        }
    }

    /// Warns if an entry that was not made, as it had expired by this host's clock, had not when NATS stored the decision.
    fn check_clock(&mut self, detection: &Detection) {
        let had_time = |stored| stored < detection.until;
        if self.stored_just_now.is_some_and(had_time) && self.is_first("clock") {
            warn!(
                "an entry had expired before it could be made, although NATS stored the decision a moment ago: the clock of this host is \
                 probably ahead, or that of NATS behind, by more than the rule's `for`, and the rule puts nobody on its list \
                 (importguard_detector_detections_total with the outcome \"expired\" counts such entries)"
            );
        }
    }

    /// Whether there was no problem of this kind before.
    fn is_first(&mut self, kind: &'static str) -> bool {
        let is_first = !self.warned.contains(&kind);
        if is_first {
            self.warned.push(kind);
        }
        is_first
    }

    /// Adds an owner to a list. Retries until it succeeds, because the event must not be acknowledged before.
    async fn act(&mut self, detection: &Detection, decision: &RecordedDecision) -> Done {
        let context = self.context;
        let Some(rule) = context.rules.get(detection.rule) else {
            return Done::Completely;
        };
        let (mut last, reading) = (None, context.status.is_reading());
        let outcome = loop {
            let acted = tokio::select! {
                acted = act(&self.writer, rule, detection) => acted,
                () = context.shutdown.cancelled() => return Done::ShuttingDown,
            };
            let error: BucketError = match acted {
                // An attempt before wrote the entry, and could not publish its event or missed the ack.
                Ok(Outcome::Repeated(Some(revision))) if last.is_some() => {
                    break Outcome::Added(revision);
                }
                Ok(outcome) => break outcome,
                Err(error) => error,
            };
            context.metrics.failures.inc();
            // What is delivered next may have waited for the retries.
            self.has_caught_up = false;
            self.stored_just_now = None;
            if last.as_ref() != Some(&error) {
                if context.status.interrupted(&error.to_string()) {
                    warn!(
                        rule = rule.id,
                        list = rule.list.as_str(),
                        "cannot put an owner on the list: {error}; retrying"
                    );
                }
                last = Some(error);
            }
            tokio::select! {
                () = sleep(RETRY_DELAY) => {}
                () = context.shutdown.cancelled() => return Done::ShuttingDown,
            }
            // The bucket may have been deleted.
            if let Ok(bucket) = Bucket::open_or_create(&context.jetstream, 1).await {
                if bucket.created() != self.writer.bucket().created() {
                    self.own.clear();
                }
                self.writer = Writer::new(bucket);
            }
        };
        if let Some(error) = last {
            context.status.resumed(&error.to_string(), reading);
        }
        context.metrics.detected(&rule.id, outcome.into_str());
        if outcome == Outcome::Expired {
            self.check_clock(detection);
        }
        if let Some(until) = outcome.listed_until(detection) {
            self.engine.list(detection, until);
        }
        if let Outcome::Added(revision) | Outcome::Repeated(Some(revision)) = outcome {
            self.own.push(revision);
        }
        // The log omits the owner: IDs are personal data. The events have the ID.
        let (id, list) = (rule.id.as_str(), rule.list.as_str());
        let event = detection.event.to_string();
        let (operation_id, decision) = (decision.operation_id.as_deref(), decision.id.to_string());
        match outcome {
            Outcome::Added(_) => {
                let until = detection.until.format(&Rfc3339).unwrap_or_default();
                let evidence = rule.evidence();
                info!(
                    rule = id,
                    list,
                    event,
                    decision,
                    operationID = operation_id,
                    until,
                    "put an owner on a list: {evidence}"
                );
            }
            other => {
                let outcome = other.into_str();
                debug!(
                    rule = id,
                    list,
                    event,
                    decision,
                    operationID = operation_id,
                    outcome,
                    "made no entry"
                );
            }
        }
        Done::Completely
    }

    /// Records in the bucket which events are published.
    async fn finish(&mut self) {
        if self.own.is_empty() {
            return;
        }
        match self.writer.finish(&self.own).await {
            Ok(reached) => self.own.retain(|revision| *revision > reached),
            Err(error) => debug!("cannot say which changes have an event: {error}"),
        }
    }

    /// Interrupts reading after a reconnect, so that the stream, the bucket and the consumer are opened again.
    fn check_connection(&self) -> Result<(), Interrupted> {
        let client = self.context.jetstream.client();
        let connected = client.connection_state() == async_nats::connection::State::Connected;
        match self.context.status.cause() {
            Some(cause) if connected => Err(Interrupted(cause)),
            _ => Ok(()),
        }
    }

    async fn clear(&self) {
        if let Err(error) = self.writer.bucket().clear(CLEAR_AT_ONCE, RETENTION).await {
            warn!("cannot clear away entries that ended: {error}");
        }
    }
}

impl Unusable {
    const fn advice(self) -> &'static str {
        match self {
            Self::Unreadable => {
                "skipping messages that are not events about decisions (importguard_detector_skipped_total counts them)"
            }
            Self::Pseudonymised => {
                "skipping events with pseudonyms, as lists need user IDs: a detector needs gateways without IMPORTGUARD_PSEUDONYM_KEY and IMPORTGUARD_PSEUDONYM_KEY_FILE (importguard_detector_skipped_total counts them)"
            }
        }
    }
}
