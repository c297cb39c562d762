//! Stores events that NATS has not acknowledged yet on disk: commits them before their callback is answered, and reads them back in
//! order.

mod clock;
mod directory;
mod files;
mod health;
mod parked;
mod reader;
mod rescue;
mod store;
mod supervised;
mod wal;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use clap::ValueEnum;
use importguard_core::EventId;
use importguard_telemetry::propagation::MessageHeaders;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::{clock::SteadyClock, directory::Location, store::Contents, supervised::Supervised};

pub use self::{
    directory::{SpoolOpenError, set_aside_files, sync_dir},
    health::{SpoolState, SpoolStatus},
    reader::{SpoolReadError, SpoolReader, SpoolSummary},
};
pub(crate) use self::{
    health::Health,
    parked::{ParkReason, ParkedBatch, ParkedCounts, ParkedQuery, Parking},
};

/// Capacity of the command queue, by default far more than a gateway's concurrent callbacks. When it is full, callers wait for the
/// writer.
const QUEUE: usize = 1024;

/// How often to check whether files were deleted, replaced, locked or overwritten.
const EXAMINE: Duration = Duration::from_secs(1);

/// What the disk confirms before an event counts as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SpoolSync {
    /// Survives a power cut and a crash of the operating system
    Full,
    /// Survives the end of the process only; faster
    Normal,
}

/// An event that NATS has not acknowledged yet.
#[derive(Clone, Debug)]
pub(crate) struct PendingEvent {
    /// Events leave the spool in the order of their IDs.
    pub(crate) id: EventId,
    /// As text, like the operationID: another version of importguard may have spooled it.
    pub(crate) subject: Cow<'static, str>,
    pub(crate) operation_id: String,
    pub(crate) trace: MessageHeaders,
    pub(crate) payload: Bytes,
    /// The sequence after which the event is in the stream, if it is there at all: it was published and no ack was received. `None` if it
    /// was never published.
    pub(crate) attempted_after: Option<u64>,
    /// NATS refuses the event while it accepts others, so it does not wait for its turn.
    pub(crate) parked: Option<ParkReason>,
}

/// Why an event could not be spooled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("the spool is full")]
    Full,
    #[error("half of the spool is in use, so that no event can be parked in it")]
    ParkedFull,
    #[error("the spool took longer than the request may take")]
    TooSlow,
    #[error("the spool is broken: {0}")]
    Broken(String),
    #[error("the spool is closed")]
    Closed,
}

/// Why the spool cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("the spool is broken: {0}")]
    Broken(String),
    #[error("the spool is closed")]
    Closed,
}

/// Contents of the spool. The spool's thread updates them; any thread may read them.
#[derive(Debug)]
pub(crate) struct Depth {
    contents: Mutex<Contents>,
    /// The waiting events of `contents`, so that the check for every event needs no lock.
    waiting: AtomicUsize,
    max_bytes: AtomicU64,
    clock: SteadyClock,
    changed: Notify,
}

impl Depth {
    fn of(spool: &Supervised) -> Self {
        let depth = Self {
            contents: Mutex::default(),
            waiting: AtomicUsize::default(),
            max_bytes: AtomicU64::default(),
            clock: SteadyClock::start(),
            changed: Notify::default(),
        };
        depth.set(spool);
        depth
    }

    fn contents(&self) -> Contents {
        *self.contents.lock()
    }

    /// Returns the number of events, parked ones included.
    pub(crate) fn events(&self) -> usize {
        self.contents().events
    }

    /// Returns the number of events that wait for publication.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Returns the number of parked events, by reason.
    pub(crate) fn parked(&self) -> ParkedCounts {
        self.contents().parked
    }

    /// Returns how many bytes of the file are in use. An empty spool uses some pages too.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.contents().used_bytes
    }

    /// Returns how many bytes of the file may be in use.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes.load(Ordering::Relaxed)
    }

    /// Returns how long the oldest event has been waiting, independent of the system clock; `None` if no event waits.
    pub(crate) fn oldest_age(&self) -> Option<Duration> {
        let oldest = self.contents().oldest?;
        Some(self.clock.since(oldest.spooled_ms).unwrap_or_default())
    }

    /// Returns once an event waits in the spool.
    pub(crate) async fn grown(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.waiting() > 0 {
                return;
            }
            changed.await;
        }
    }

    fn set(&self, spool: &Supervised) {
        // A spool that could not be reopened still holds what it held before.
        let Some(store) = spool.store() else {
            return;
        };
        let contents = store.contents;
        *self.contents.lock() = contents;
        self.max_bytes.store(store.max_bytes, Ordering::Relaxed);
        self.waiting.store(contents.waiting(), Ordering::Release);
        self.changed.notify_waiters();
    }
}

/// Handle to the spool: a queue of commands to its thread.
#[derive(Debug)]
pub(crate) struct Spool {
    /// Taken when the spool is closed, so that the thread ends.
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    depth: Arc<Depth>,
    health: Arc<Health>,
    thread: Mutex<Option<JoinHandle<()>>>,
    thread_ended: CancellationToken,
}

enum Command {
    Append {
        event: PendingEvent,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
    Run(Box<dyn FnOnce(&mut Supervised) + Send>),
}

impl Spool {
    /// Opens the spool in `dir`, which may grow to `max_bytes`, and starts its thread. Blocks on the disk. `ended` is cancelled when the
    /// thread ends, whether the spool was closed or the thread failed. Must be called inside a tokio runtime.
    pub(crate) fn open(
        dir: &Path,
        max_bytes: u64,
        sync: SpoolSync,
        ended: CancellationToken,
    ) -> Result<Self, SpoolOpenError> {
        let health = Arc::new(Health::default());
        let location = Location {
            dir: dir.to_owned(),
            max_bytes,
            sync,
        };
        let spool = Supervised::open(location, health.clone())?;
        let depth = Arc::new(Depth::of(&spool));
        let thread_ended = CancellationToken::new();
        let (commands, receiver) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn({
                let depth = depth.clone();
                let thread_ended = thread_ended.clone();
                move || {
                    // Also cancelled if the thread panics.
                    let _guards = (ended.drop_guard(), thread_ended.drop_guard());
                    writer::run(spool, receiver, depth);
                }
            })
            .map_err(|source| SpoolOpenError::Unusable {
                dir: dir.to_owned(),
                source,
            })?;
        tokio::spawn(examine(commands.downgrade(), depth.clone()));
        Ok(Self {
            commands: Mutex::new(Some(commands)),
            depth,
            health,
            thread: Mutex::new(Some(thread)),
            thread_ended,
        })
    }

    pub(crate) fn depth(&self) -> &Arc<Depth> {
        &self.depth
    }

    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Returns once `event` is committed, or an error at `deadline`. An event whose commit began before may be committed anyway, and so may
    /// one that was attempted.
    pub(crate) async fn append(
        &self,
        event: PendingEvent,
        deadline: Instant,
    ) -> Result<(), AppendError> {
        let commands = self.commands().ok_or(AppendError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let appended = async {
            commands
                .send(Command::Append { event, reply })
                .await
                .map_err(|_| AppendError::Closed)?;
            answer.await.map_err(|_| AppendError::Closed)?
        };
        timeout_at(deadline, appended)
            .await
            .unwrap_or(Err(AppendError::TooSlow))
    }

    /// Deletes the events in `done` permanently.
    pub(crate) async fn delete(&self, done: Vec<EventId>) -> Result<(), SpoolError> {
        self.run(move |spool| spool.delete(&done)).await
    }

    /// Returns the first waiting events in order: at most `limit`, and at most `max_bytes` of payload unless the first event alone is
    /// larger. From the next call on, they count as attempted after `sequence`, the stream's last known one.
    pub(crate) async fn next(
        &self,
        limit: u32,
        max_bytes: usize,
        sequence: u64,
    ) -> Result<Vec<PendingEvent>, SpoolError> {
        self.run(move |spool| spool.next(limit, max_bytes, sequence))
            .await
    }

    /// Parks events: they stay in the spool but no longer wait for their turn.
    pub(crate) async fn park(&self, events: Vec<Parking>) -> Result<(), SpoolError> {
        self.run(move |spool| spool.park(&events)).await
    }

    /// Reads parked events. A batch may be empty although more follow: see [`ParkedBatch::next`].
    pub(crate) async fn parked(&self, query: ParkedQuery) -> Result<ParkedBatch, SpoolError> {
        self.run(move |spool| spool.parked(&query)).await
    }

    /// Does `work` on the spool's thread.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Supervised) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let commands = self.commands().ok_or(SpoolError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let depth = self.depth.clone();
        let run = move |spool: &mut Supervised| {
            let done = work(spool);
            // Even after an error: the spool may have been repaired, and hold fewer or more events.
            depth.set(spool);
            // The caller may have given up.
            let _ = reply.send(done);
        };
        commands
            .send(Command::Run(Box::new(run)))
            .await
            .map_err(|_| SpoolError::Closed)?;
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// Accepts no more events. Returns once queued events are committed and the thread has ended, or at `deadline`.
    pub(crate) async fn close(&self, deadline: Instant) {
        drop(self.commands.lock().take());
        if timeout_at(deadline, self.thread_ended.cancelled())
            .await
            .is_err()
        {
            tracing::warn!("the spool did not finish in time; what it has committed is safe");
            return;
        }
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the spool's thread panicked");
        }
    }

    fn commands(&self) -> Option<mpsc::Sender<Command>> {
        self.commands.lock().clone()
    }
}

/// Requests an examination of the spool at regular intervals until it is closed.
async fn examine(commands: mpsc::WeakSender<Command>, depth: Arc<Depth>) {
    let mut tick = interval(EXAMINE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(commands) = commands.upgrade() else {
            return;
        };
        let depth = depth.clone();
        let examine = move |spool: &mut Supervised| {
            spool.examine();
            depth.set(spool);
        };
        if commands
            .send(Command::Run(Box::new(examine)))
            .await
            .is_err()
        {
            return;
        }
    }
}
