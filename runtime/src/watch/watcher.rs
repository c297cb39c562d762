use std::{
    convert::Infallible, fmt::Display, io, mem, path::PathBuf, pin::pin, sync::Arc, thread,
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{debug, error, warn};

use super::{Fingerprint, LastGood};

/// The lowest priority of a thread.
const NICE: i32 = 19;

/// The result of reading files.
#[derive(Debug)]
pub struct Snapshot<T, E> {
    /// The files that were read, in their state just before. May differ between reads, if one file names another.
    pub files: Fingerprint,
    /// Their content, or why it is invalid.
    pub content: Result<T, E>,
    /// Whether content that is held back may be accepted later though its files stay the same: they are read again at each check.
    pub retry: bool,
}

impl<T, E> Snapshot<T, E> {
    /// The result of `read`, which must read `files` and no others.
    pub fn take(files: &[PathBuf], read: impl FnOnce() -> Result<T, E>) -> Self {
        Self {
            files: files.iter().map(|file| &**file).collect(),
            content: read(),
            retry: false,
        }
    }
}

/// The outcome of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload<E> {
    /// The new content is active.
    Applied,
    /// The files contain the active content.
    Unchanged,
    /// The new content is invalid; the last good one stays active.
    Failed(E),
    /// The new content is doubtful; the last good one stays active until a forced reload of the same files confirms it.
    HeldBack(E),
}

/// How long a file that was shortened where it is has to stay unchanged before it is read: its writer may be slow.
const TRUNCATED: Duration = Duration::from_secs(5);

/// How long a check or a read of files may take before it is reported as failed.
const OVERDUE: Duration = Duration::from_secs(30);

/// A pipe blocks its reader until there is a writer, and a network file system that is not reachable may do so for ever.
const OVERDUE_ERROR: &str = "reading them has taken more than 30s; check that they are regular files, and that their file system responds";

type Read<T, E> = Arc<dyn Fn() -> Snapshot<T, E> + Send + Sync>;

/// What a thread read, and the state of its files after that.
type Pending<T, E> = oneshot::Receiver<(Snapshot<T, E>, Fingerprint)>;

/// Checks files at an interval, and reads them again when they have changed and settled.
pub struct FileWatcher<T, E> {
    read: Read<T, E>,
    is_same: fn(&T, &T) -> bool,
    /// Why the second is doubtful as a successor of the first.
    doubt: fn(&T, &T) -> Option<E>,
    /// Called when a check or a read is overdue.
    on_overdue: Box<dyn Fn(&str) + Send>,
    last_good: LastGood<T>,
    /// The files of the active content.
    applied: Fingerprint,
    /// The files that the last attempt read.
    attempted: Fingerprint,
    /// Whether their content was held back.
    held_back: bool,
    /// Whether it was held back for a reason that may end by itself.
    retry: bool,
    /// The same files at the last check, and when they were first seen as they are.
    seen: Fingerprint,
    seen_since: Instant,
    /// Whether a check or a read was reported as overdue, and none has succeeded since.
    overdue: bool,
    /// A read that is overdue, and the files in their state just before. Another one would block, too, until they change.
    pending: Option<(Fingerprint, Pending<T, E>)>,
}

impl<T, E> FileWatcher<T, E>
where
    T: Send + Sync + 'static,
    E: Display + Send + 'static,
{
    /// Reads the files for the first time, on another thread, as that may take long.
    ///
    /// # Errors
    /// If their content is invalid.
    pub async fn open(
        read: impl Fn() -> Snapshot<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let read: Read<T, E> = Arc::new(read);
        let first = Arc::clone(&read);
        let snapshot = match on_thread("load", move || first()) {
            Ok(first) => first.await.ok(),
            Err(_) => None,
        };
        // If the thread panicked, this call will panic, too.
        let snapshot = snapshot.unwrap_or_else(|| read());
        Ok(Self {
            read,
            is_same: |_, _| false,
            doubt: |_, _| None,
            on_overdue: Box::new(|error| error!("cannot reload files: {error}")),
            last_good: LastGood::new(snapshot.content?),
            applied: snapshot.files.clone(),
            seen: snapshot.files.clone(),
            attempted: snapshot.files,
            held_back: false,
            retry: false,
            seen_since: Instant::now(),
            overdue: false,
            pending: None,
        })
    }

    /// Keeps the active content, and its activation time, if a reload yields the same according to `is_same`.
    pub fn keep_if(mut self, is_same: fn(&T, &T) -> bool) -> Self {
        self.is_same = is_same;
        self
    }

    /// Holds new content back if `doubt` returns a reason, given the active and the new content. A forced reload that finds the same
    /// files again confirms it, unless [`retry`](Snapshot::retry) has become true: whoever forced it could know the reason. A reason that
    /// stays while the files are read again is returned once.
    pub fn hold_back_if(mut self, doubt: fn(&T, &T) -> Option<E>) -> Self {
        self.doubt = doubt;
        self
    }

    /// Calls `report` with the reason when a check or a read takes so long that it counts as failed.
    pub(super) fn on_overdue(mut self, report: impl Fn(&str) + Send + 'static) -> Self {
        self.on_overdue = Box::new(report);
        self
    }

    /// The active content.
    pub fn last_good(&self) -> LastGood<T> {
        self.last_good.clone()
    }

    /// Checks the files at the interval `every`, and reads them immediately when `reload` changes, for as long as it is polled.
    /// Calls `on_reload` after each reload.
    pub async fn run(
        mut self,
        every: Duration,
        mut reload: watch::Receiver<()>,
        on_reload: impl Fn(Reload<E>),
    ) -> Infallible {
        let mut checks = interval(every);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let forced = tokio::select! {
                _ = checks.tick() => false,
                Ok(()) = reload.changed() => true,
            };
            if let Some(outcome) = self.check(forced).await {
                on_reload(outcome);
            }
        }
    }

    /// Reads the files if they have changed since the last attempt and not since the last check (or for some seconds, if one was
    /// shortened), so that none is read while it is being written; if `forced`, in any case. A check or read that fails for lack of a
    /// thread is repeated.
    async fn check(&mut self, forced: bool) -> Option<Reload<E>> {
        let now = self.current().await?;
        let is_pending = matches!(&self.pending, Some((files, _)) if *files == now);
        if !forced && !is_pending && !self.is_due(&now) {
            self.see(now);
            return None;
        }
        let pending = self.pending.take().filter(|_| is_pending && !forced);
        let patience = if pending.is_some() {
            Duration::ZERO
        } else {
            OVERDUE
        };
        let mut read = match pending {
            Some((_, read)) => read,
            None => self.start_read()?,
        };
        let Ok(result) = timeout(patience, &mut read).await else {
            self.pending = Some((now, read));
            self.report_overdue();
            return None;
        };
        let (snapshot, after) = result
            .inspect_err(|_| warn!("cannot read changed files, retrying: the thread panicked"))
            .ok()?;
        self.overdue = false;
        if after != snapshot.files {
            debug!("files changed while they were read; reading them again");
            self.see(after);
            return None;
        }
        let again = snapshot.files == self.attempted;
        self.attempted = snapshot.files.clone();
        self.see(snapshot.files);
        let doubt = match &snapshot.content {
            Ok(_) if forced && again && self.held_back && (self.retry || !snapshot.retry) => None,
            Ok(content) => (self.doubt)(&self.last_good.load(), content),
            Err(_) => None,
        };
        let retried = !forced && again && self.held_back;
        self.held_back = doubt.is_some();
        self.retry = self.held_back && snapshot.retry;
        if let Some(doubt) = doubt {
            let reason = doubt.to_string();
            let reported = retried && self.last_good.error().as_ref() == Some(&reason);
            self.last_good.fail(reason);
            return (!reported).then_some(Reload::HeldBack(doubt));
        }
        let untouched = self.attempted == self.applied;
        if snapshot.content.is_ok() {
            self.applied = self.attempted.clone();
        }
        Some(self.apply(snapshot.content, untouched))
    }

    /// The files of the last attempt in their current state. Waits for it however long it takes: another call would block, too.
    async fn current(&mut self) -> Option<Fingerprint> {
        let attempted = self.attempted.clone();
        let mut current = pin!(spawn_blocking(move || attempted.refreshed()));
        let in_time = timeout(OVERDUE, &mut current).await;
        let current = match in_time {
            Ok(current) => current,
            Err(_) => {
                self.report_overdue();
                current.await
            }
        };
        current.ok()
    }

    fn start_read(&self) -> Option<Pending<T, E>> {
        let read = Arc::clone(&self.read);
        let reload = on_thread("reload", move || {
            lower_priority();
            let snapshot = read();
            let after = snapshot.files.refreshed();
            (snapshot, after)
        });
        reload
            .inspect_err(|error| warn!("cannot read changed files, retrying: {error}"))
            .ok()
    }

    fn report_overdue(&mut self) {
        if !mem::replace(&mut self.overdue, true) {
            self.last_good.fail(OVERDUE_ERROR.to_owned());
            (self.on_overdue)(OVERDUE_ERROR);
        }
    }

    /// Whether the files, which are `now` so, have changed since the last attempt and settled, or have to be read again for another
    /// reason.
    fn is_due(&self, now: &Fingerprint) -> bool {
        (*now != self.attempted || self.retry || self.overdue)
            && *now == self.seen
            && (!now.is_truncated_since(&self.applied) || self.seen_since.elapsed() >= TRUNCATED)
    }

    fn see(&mut self, now: Fingerprint) {
        if now != self.seen {
            self.seen = now;
            self.seen_since = Instant::now();
        }
    }

    /// A forced read of `untouched` files replaces nothing, since a replaced certificate closes the connections made with it.
    fn apply(&self, content: Result<T, E>, untouched: bool) -> Reload<E> {
        match content {
            Ok(content) if untouched || (self.is_same)(&self.last_good.load(), &content) => {
                self.last_good.confirm();
                Reload::Unchanged
            }
            Ok(content) => {
                self.last_good.replace(content);
                Reload::Applied
            }
            Err(error) => {
                self.last_good.fail(error.to_string());
                Reload::Failed(error)
            }
        }
    }
}

/// Runs `work` on a new thread called `name`. Unlike a task of `spawn_blocking`, it does not delay the end of the process. There is no
/// result if it panics.
///
/// # Errors
/// If the thread cannot be started.
fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // The receiver is gone if the process is ending.
            let _ = done.send(work());
        })?;
    Ok(result)
}

/// Lowers the priority of the current thread, so that it does not slow down request processing. On Linux, priorities are per
/// thread.
fn lower_priority() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        debug!(%error, "a background thread runs at normal priority");
    }
}

#[cfg(test)]
mod tests;
