//! Follows the bucket: applies its changes, and continually proves that none is missing.
//!
//! The follower requests the bucket's state once a second. If every change up to the last one in that state is applied, the lists were
//! complete at the time of the request. The number of keys must match as well: it does not if entries were deleted without a record, by
//! a purge of the stream or of old delete markers while this decider was disconnected. In that case, and if the bucket was recreated or
//! restored from a backup ([`Recent`]), the follower reads everything again. If a list then has less than half of the entries that
//! evaluations see, entries were probably lost: it holds the lists back until they are there again or SIGHUP confirms their loss.

use std::{
    collections::VecDeque,
    io, mem,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_nats::jetstream;
use importguard_lists::{Bucket, BucketError, Change, Changes, LostError, State};
use time::OffsetDateTime;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep_until, timeout},
};

use super::{
    super::{
        recent::{HistoryError, Recent},
        snapshot::Snapshot,
        status::Loss,
    },
    LiveLists, REQUEST_TIMEOUT, Watch,
};

/// The interval between requests for the bucket's state.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between these requests until the lists are proven to be complete.
const PROOF_INTERVAL: Duration = Duration::from_millis(10);

/// The timeout of that proof, after which everything is read again: the same entries change too often to compare the number of keys.
const PROOF_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout for the changes up to a state that NATS reported. They arrive over the same connection.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long entries may take to be cleared after they were announced.
const CLEARING_TIMEOUT: Duration = Duration::from_secs(60);

/// The maximum number of changes that are applied before evaluations see them.
const BATCH: usize = 1000;

/// The minimum interval between snapshots. A snapshot is written only if there were changes.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);

/// For how many changes the number of keys is kept: more than arrive before NATS answers a request.
const REMEMBERED: usize = 10_000;

/// How many changes are read between two progress reports.
const PROGRESS: u64 = 10_000;

/// Follows the bucket, and holds the state that was read from it.
pub(super) struct Follower {
    watch: Watch,
    lists: LiveLists,
    /// When the bucket was created; `None` if nothing was read from it.
    created: Option<OffsetDateTime>,
    /// The most recently applied changes.
    recent: Recent,
    /// When the last change was applied.
    applied: Instant,
    /// The revision and the number of keys after each of the last changes, until the number of keys is proven.
    counted: VecDeque<(u64, u64)>,
    /// Whether the lists are complete up to their revision, so that evaluations may see them.
    complete: bool,
    /// Whether the number of keys has matched since the changes were last interrupted.
    proven: bool,
    /// The number of keys that were announced as about to be cleared, and the time of the last announcement.
    clearing: Option<(u64, Instant)>,
    saved: Option<(u64, Instant)>,
    /// Whether it is in doubt that what is read now replaces what evaluations see.
    doubted: bool,
    /// The lists that lost entries, because of which all are held back.
    short: Vec<String>,
}

/// The bucket's state, as NATS reported it, and the time of the request.
struct ReportedState {
    state: State,
    asked: Instant,
}

/// Why following ends.
enum End {
    /// The changes were interrupted. Following can continue from the last revision.
    Interrupted(String),
    /// The known state may be wrong, so everything must be read again.
    Doubt(String),
}

impl End {
    fn silent() -> Self {
        Self::Interrupted("NATS does not answer".to_owned())
    }

    fn no_signal(error: io::Error) -> Self {
        Self::Interrupted(format!("SIGHUP cannot be received: {error}"))
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
            doubted: false,
            short: Vec::new(),
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

    /// The revision of the bucket up to which changes are applied.
    pub(super) const fn revision(&self) -> u64 {
        self.lists.revision()
    }

    /// Follows until the changes are interrupted. Returns the cause.
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

    /// Discards the known state. Evaluations still see it until everything is read again.
    fn forget(&mut self) {
        self.doubted = true;
        self.lists = LiveLists::default();
        (self.created, self.recent) = (None, Recent::default());
        (self.complete, self.proven, self.clearing) = (false, false, None);
    }

    async fn try_follow(&mut self, jetstream: &jetstream::Context) -> End {
        // A proof from before the interruption is no longer valid.
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

    /// Applies the changes that the bucket already has.
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
        // A change up to that state that is no longer in the bucket was replaced or deleted.
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
        self.publish();
        Ok((bucket, changes))
    }

    /// Applies changes as they arrive, and requests the bucket's state.
    async fn keep_up(
        &mut self,
        bucket: &Bucket,
        mut changes: Changes,
    ) -> Result<std::convert::Infallible, End> {
        let began = Instant::now();
        let mut hangup = signal(SignalKind::hangup()).map_err(End::no_signal)?;
        let mut reported: Option<ReportedState> = None;
        let mut asking = Box::pin(ask(bucket.clone(), Instant::now()));
        loop {
            tokio::select! {
                _ = hangup.recv() => self.take_as_they_are(),
                change = changes.next() => {
                    self.apply_arrived(change?, &mut changes)?;
                }
                answer = &mut asking => {
                    let answer = answer?;
                    self.check(&answer, &changes)?;
                    reported.get_or_insert(answer);
                    let pause = if self.proven { CONFIRM_INTERVAL } else { PROOF_INTERVAL };
                    asking = Box::pin(ask(bucket.clone(), Instant::now() + pause));
                }
            }
            if let Some(known) = reported.take_if(|reported| reported.state.last <= self.revision())
            {
                if changes.skipped_since(known.asked) {
                    // The state may include a change that was replaced since, and its replacement may still be in transit.
                    asking = Box::pin(ask(bucket.clone(), Instant::now() + PROOF_INTERVAL));
                } else if self.proven && self.short.is_empty() {
                    self.watch.status.confirm(known.asked);
                    self.save_now_and_then();
                }
            } else if let Some(waiting) = &reported
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

    /// Applies a change and those that have already arrived after it, up to [`BATCH`], and then lets evaluations see them.
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
        self.publish();
        lost
    }

    /// Lets evaluations see the lists, unless most entries of one of them may have been lost.
    fn publish(&mut self) {
        if self.doubted {
            let losses = self.losses();
            let short = losses.iter().map(|loss| loss.list.clone()).collect();
            let known = mem::replace(&mut self.short, short);
            if !losses.is_empty() {
                self.watch.status.held_back(&losses, known == self.short);
                return;
            }
        }
        self.doubted = false;
        self.watch.publish(&self.lists);
    }

    /// The lists that have less than half of the active entries that evaluations see. Not only those of the policy: the next one may have
    /// another list.
    fn losses(&self) -> Vec<Loss> {
        // Expired entries may have been cleared meanwhile.
        let time = unix_seconds();
        let in_use = self.watch.load();
        let losses = in_use.iter().map(|(list, _)| Loss {
            list: list.to_owned(),
            before: in_use.active(list, time),
            now: self.lists.active(list, time),
        });
        losses
            .filter(|loss| loss.now < loss.before.div_ceil(2))
            .collect()
    }

    /// Lets evaluations see lists that are held back.
    fn take_as_they_are(&mut self) {
        if !self.short.is_empty() {
            self.short.clear();
            self.doubted = false;
            self.publish();
        }
    }

    fn apply(&mut self, change: &Change) {
        let dropped = self.lists.apply(change, unix_seconds());
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

    /// Returns the number of keys that the bucket had when its last change was `last`. `None` if that is unknown because the change is
    /// not applied yet, or is too old.
    fn keys_at(&self, last: u64) -> Option<u64> {
        if last == self.revision() {
            return Some(self.lists.keys());
        }
        let place = self.counted.binary_search_by_key(&last, |(at, _)| *at);
        Some(self.counted[place.ok()?].1)
    }

    /// Compares the state that NATS reported with the known state.
    fn check(&mut self, reported: &ReportedState, changes: &Changes) -> Result<(), End> {
        let State {
            created,
            last,
            keys,
        } = reported.state;
        if self.created != Some(created) {
            return Err(End::Doubt("the bucket was created anew".to_owned()));
        }
        if last < self.revision() && reported.asked > self.applied {
            let cause = "the bucket was restored to an earlier state";
            return Err(End::Doubt(cause.to_owned()));
        }
        let Some(known) = self.keys_at(last) else {
            return Ok(());
        };
        if changes.skipped_since(reported.asked) {
            // NATS may count a key that is not counted here yet.
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

fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

async fn ask(bucket: Bucket, at: Instant) -> Result<ReportedState, End> {
    sleep_until(at.into()).await;
    let asked = Instant::now();
    let state = within(bucket.state()).await?;
    Ok(ReportedState { state, asked })
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
