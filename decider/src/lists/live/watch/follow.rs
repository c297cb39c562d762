//! Follows the bucket: applies its changes, and proves again and again that none is missing.
//!
//! NATS is asked for the bucket's state once a second. If every change up to the last one that it had then is applied, the lists were
//! complete when it was asked. The number of keys must fit as well: it does not if entries were deleted without a trace, by a purge of
//! the stream or of old delete markers while this decider was away. Then, and if the bucket is another one than before or was restored
//! from a backup ([`Recent`]), everything is read anew.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_nats::jetstream;
use importguard_lists::{Bucket, BucketError, Change, Changes, LostError, State};
use time::OffsetDateTime;
use tokio::time::{sleep_until, timeout};

use super::{
    super::{
        recent::{HistoryError, Recent},
        snapshot::Snapshot,
    },
    LiveLists, REQUEST_TIMEOUT, Watch,
};

/// How often NATS is asked whether there are changes.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is asked while the lists are not proven to be complete.
const PROOF_INTERVAL: Duration = Duration::from_millis(10);

/// For how long, before everything is read anew: the same entries change too often to compare the number of keys.
const PROOF_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the changes up to a state that NATS told may take to arrive. They come over the same connection.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long what was announced may take to be cleared away.
const CLEARING_TIMEOUT: Duration = Duration::from_secs(60);

/// How many changes are applied before evaluations see them.
const BATCH: usize = 1000;

/// How often a snapshot is written, if anything changed.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);

/// For how many changes the number of keys is remembered: more than come in until NATS has answered.
const REMEMBERED: usize = 10_000;

/// How many entries are read between two reports of progress.
const PROGRESS: u64 = 10_000;

/// Follows the bucket with what is known of it.
pub(super) struct Follower {
    watch: Watch,
    lists: LiveLists,
    /// When the bucket was created; None if nothing is known of it.
    created: Option<OffsetDateTime>,
    /// The last changes that were applied.
    recent: Recent,
    /// When the last change was applied.
    applied: Instant,
    /// The number of keys after each of the last changes, while it has not been compared.
    counted: VecDeque<(u64, u64)>,
    /// Whether the lists are complete but for changes after their revision, so that evaluations may see them.
    complete: bool,
    /// Whether the number of keys was right since the changes were last interrupted.
    proven: bool,
    /// How many keys are about to be cleared away, or were, and since when.
    clearing: Option<(u64, Instant)>,
    saved: Option<(u64, Instant)>,
}

/// What NATS told of the bucket, and when it was asked.
struct Told {
    state: State,
    asked: Instant,
}

/// Why following ends.
enum End {
    /// The changes were interrupted; they can be followed from the last revision on.
    Interrupted(String),
    /// What is known is wrong.
    Doubt(String),
}

impl End {
    fn silent() -> Self {
        Self::Interrupted("NATS does not answer".to_owned())
    }
}

impl From<BucketError> for End {
    fn from(error: BucketError) -> Self {
        Self::Interrupted(error.to_string())
    }
}

impl From<HistoryError> for End {
    fn from(error: HistoryError) -> Self {
        Self::Doubt(error.to_string())
    }
}

impl From<LostError> for End {
    fn from(error: LostError) -> Self {
        Self::Interrupted(error.to_string())
    }
}

impl Follower {
    pub(super) fn new(watch: Watch, snapshot: Option<Snapshot>) -> Self {
        let mut follower = Self {
            watch,
            lists: LiveLists::default(),
            created: None,
            recent: Recent::default(),
            applied: Instant::now(),
            counted: VecDeque::new(),
            complete: false,
            proven: false,
            clearing: None,
            saved: None,
        };
        if let Some(snapshot) = snapshot {
            follower.saved = Some((snapshot.lists.revision(), Instant::now()));
            follower.lists = snapshot.lists;
            follower.created = Some(snapshot.created);
            follower.recent = snapshot.recent;
            follower.complete = true;
        }
        follower
    }

    /// The revision up to which changes are applied.
    pub(super) const fn revision(&self) -> u64 {
        self.lists.revision()
    }

    /// Follows until the changes are interrupted, and returns why.
    pub(super) async fn follow(&mut self, jetstream: &jetstream::Context) -> String {
        loop {
            match self.try_follow(jetstream).await {
                End::Interrupted(cause) => return cause,
                End::Doubt(cause) => {
                    self.watch.status.doubt(cause);
                    self.forget();
                }
            }
        }
    }

    /// Forgets what is known. Evaluations still see it until everything is read anew.
    fn forget(&mut self) {
        self.lists = LiveLists::default();
        (self.created, self.recent) = (None, Recent::default());
        (self.complete, self.proven, self.clearing) = (false, false, None);
    }

    async fn try_follow(&mut self, jetstream: &jetstream::Context) -> End {
        // Or the proof of before would be taken for one of now.
        self.proven = false;
        self.counted.clear();
        match self.catch_up(jetstream).await {
            Ok((bucket, changes)) => match self.keep_up(&bucket, changes).await {
                Err(end) => end,
                Ok(never) => match never {},
            },
            Err(end) => end,
        }
    }

    /// Applies what the bucket has.
    async fn catch_up(&mut self, jetstream: &jetstream::Context) -> Result<(Bucket, Changes), End> {
        let opened = timeout(REQUEST_TIMEOUT * 2, Bucket::open(jetstream)).await;
        let missing = matches!(opened, Ok(Err(BucketError::Missing)));
        self.watch.status.missing(missing);
        let bucket = opened.map_err(|_| End::silent())??;
        let state = bucket.state_when_opened();
        match self.created {
            Some(created) if created != state.created => {
                return Err(End::Doubt("the bucket was created anew".to_owned()));
            }
            _ if state.last < self.revision() => {
                return Err(End::Doubt(
                    "the bucket was restored to an earlier state".to_owned(),
                ));
            }
            _ => {}
        }
        self.created = Some(state.created);
        let known = self.revision();
        let from_the_start = known == 0;
        let mut changes = within(Changes::after(&bucket, self.recent.begin())).await?;
        let of = changes.pending();
        let (mut read, mut is_compared) = (0, false);
        while let Some(change) = next(&mut changes).await? {
            if read % PROGRESS == 0 && !self.complete {
                self.watch.status.reading(read, of);
            }
            if change.revision <= known {
                self.recent.compare(&change)?;
                continue;
            }
            if !is_compared {
                self.recent.compared()?;
                is_compared = true;
            }
            read += 1;
            self.apply(&change);
        }
        if !is_compared {
            self.recent.compared()?;
        }
        self.recent.finish()?;
        // What came before the state, and is no longer there, was replaced or deleted.
        self.lists.advance(state.last);
        if !self.complete {
            self.lists.shrink();
            (self.complete, self.proven) = (true, from_the_start);
            tracing::info!(
                revision = self.revision(),
                entries = self.lists.entries(),
                "read all live lists"
            );
        }
        self.watch.status.applied(read);
        self.watch.publish(&self.lists);
        Ok((bucket, changes))
    }

    /// Applies changes as they come, and asks for the bucket's state.
    async fn keep_up(
        &mut self,
        bucket: &Bucket,
        mut changes: Changes,
    ) -> Result<std::convert::Infallible, End> {
        let began = Instant::now();
        let mut told: Option<Told> = None;
        let mut asking = Box::pin(ask(bucket.clone(), Instant::now()));
        loop {
            tokio::select! {
                change = changes.next() => {
                    self.apply_arrived(change?, &mut changes)?;
                }
                answer = &mut asking => {
                    let answer = answer?;
                    self.check(&answer, &changes)?;
                    told.get_or_insert(answer);
                    let pause = if self.proven { CONFIRM_INTERVAL } else { PROOF_INTERVAL };
                    asking = Box::pin(ask(bucket.clone(), Instant::now() + pause));
                }
            }
            if let Some(known) = told.take_if(|told| told.state.last <= self.revision()) {
                if changes.skipped_since(known.asked) {
                    // It may have had a change that was replaced since, and what replaced it may still be on its way.
                    asking = Box::pin(ask(bucket.clone(), Instant::now() + PROOF_INTERVAL));
                } else if self.proven {
                    self.watch.status.confirm(known.asked);
                    self.save_now_and_then();
                }
            } else if let Some(waiting) = &told
                && waiting.asked.elapsed() > ARRIVAL_TIMEOUT
            {
                return Err(End::Interrupted(format!(
                    "NATS has a change {}, and does not send it",
                    waiting.state.last
                )));
            }
            if !self.proven && began.elapsed() > PROOF_TIMEOUT {
                let cause =
                    "the number of keys cannot be compared while the same entries change so often";
                return Err(End::Doubt(cause.to_owned()));
            }
        }
    }

    /// Applies a change, and those that have arrived with it, before evaluations see them.
    fn apply_arrived(&mut self, first: Change, changes: &mut Changes) -> Result<(), End> {
        self.apply(&first);
        let mut applied = 1;
        let mut lost = Ok(());
        while applied < BATCH
            && let Some(change) = changes.arrived()
        {
            match change {
                Ok(change) => self.apply(&change),
                Err(error) => {
                    lost = Err(error.into());
                    break;
                }
            }
            applied += 1;
        }
        self.watch.status.applied(applied as u64);
        self.watch.publish(&self.lists);
        lost
    }

    fn apply(&mut self, change: &Change) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let dropped = self.lists.apply(change, now.as_secs());
        self.recent.apply(change);
        self.applied = Instant::now();
        if dropped > 0 {
            let before = self.clearing.map_or(0, |(count, _)| count);
            self.clearing = Some((before + dropped, Instant::now()));
        }
        if self.complete && !self.proven {
            if self.counted.len() == REMEMBERED {
                self.counted.pop_front();
            }
            self.counted.push_back((self.revision(), self.lists.keys()));
        }
    }

    /// The number of keys that the bucket had when its last change was `last`. None if that is not known: it is not applied yet, or
    /// too long ago.
    fn keys_at(&self, last: u64) -> Option<u64> {
        if last == self.revision() {
            return Some(self.lists.keys());
        }
        let place = self.counted.binary_search_by_key(&last, |(at, _)| *at);
        Some(self.counted[place.ok()?].1)
    }

    /// Compares what NATS told with what is known.
    fn check(&mut self, told: &Told, changes: &Changes) -> Result<(), End> {
        let State {
            created,
            last,
            keys,
        } = told.state;
        if self.created != Some(created) {
            return Err(End::Doubt("the bucket was created anew".to_owned()));
        }
        if last < self.revision() && told.asked > self.applied {
            let cause = "the bucket was restored to an earlier state";
            return Err(End::Doubt(cause.to_owned()));
        }
        let Some(known) = self.keys_at(last) else {
            return Ok(());
        };
        if changes.skipped_since(told.asked) {
            // A key that is counted there may not be counted here.
            return Ok(());
        }
        if keys == known {
            (self.proven, self.clearing) = (true, None);
            self.counted.clear();
            return Ok(());
        }
        let may_be_cleared = self.clearing.is_some_and(|(count, since)| {
            (known..=known + count).contains(&keys) && since.elapsed() < CLEARING_TIMEOUT
        });
        if may_be_cleared {
            return Ok(());
        }
        Err(End::Doubt(format!(
            "the bucket has {keys} keys where {known} were expected: some were deleted without a record"
        )))
    }

    fn save_now_and_then(&mut self) {
        let due = self.saved.is_none_or(|(revision, at)| {
            revision != self.revision() && at.elapsed() >= SNAPSHOT_INTERVAL
        });
        if let (true, Some(created)) = (due, self.created) {
            self.saved = Some((self.revision(), Instant::now()));
            self.watch.save(Snapshot {
                lists: self.lists.clone(),
                created,
                recent: self.recent.clone(),
                confirmed: self.watch.status.confirmed(),
            });
        }
    }
}

async fn ask(bucket: Bucket, at: Instant) -> Result<Told, End> {
    sleep_until(at.into()).await;
    let asked = Instant::now();
    let state = within(bucket.state()).await?;
    Ok(Told { state, asked })
}

async fn within<T>(answer: impl Future<Output = Result<T, BucketError>>) -> Result<T, End> {
    match timeout(REQUEST_TIMEOUT * 2, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(End::silent()),
    }
}

async fn next(changes: &mut Changes) -> Result<Option<Change>, End> {
    match timeout(ARRIVAL_TIMEOUT, changes.stored()).await {
        Ok(change) => Ok(change?),
        Err(_) => Err(End::Interrupted(
            "NATS does not send the changes".to_owned(),
        )),
    }
}
