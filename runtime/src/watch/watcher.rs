use std::{
    convert::Infallible, fmt::Display, io, path::PathBuf, sync::Arc, thread, time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

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

type Read<T, E> = Arc<dyn Fn() -> Snapshot<T, E> + Send + Sync>;

/// Checks files at an interval, and reads them again when they have changed and settled.
pub struct FileWatcher<T, E> {
    read: Read<T, E>,
    is_same: fn(&T, &T) -> bool,
    /// Why the second is doubtful as a successor of the first.
    doubt: fn(&T, &T) -> Option<E>,
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
        let snapshot = match on_thread("load", move || first()).await {
            Ok(snapshot) => snapshot,
            // The thread could not be started, or panicked, in which case this call will panic too.
            Err(_) => read(),
        };
        Ok(Self {
            read,
            is_same: |_, _| false,
            doubt: |_, _| None,
            last_good: LastGood::new(snapshot.content?),
            applied: snapshot.files.clone(),
            seen: snapshot.files.clone(),
            attempted: snapshot.files,
            held_back: false,
            retry: false,
            seen_since: Instant::now(),
        })
    }

    /// Keeps the active content, and its activation time, if a reload yields the same according to `is_same`.
    pub fn keep_if(mut self, is_same: fn(&T, &T) -> bool) -> Self {
        self.is_same = is_same;
        self
    }

    /// Holds new content back if `doubt` returns a reason, given the active and the new content. A forced reload that finds the same
    /// files again confirms it: whoever forced it could know the reason. A reason that stays while the files are read again is
    /// returned once.
    pub fn hold_back_if(mut self, doubt: fn(&T, &T) -> Option<E>) -> Self {
        self.doubt = doubt;
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
    /// shortened), so that none is read while it is being written; if `forced`, in any case. A check or read that fails for lack of a thread is repeated.
    async fn check(&mut self, forced: bool) -> Option<Reload<E>> {
        let attempted = self.attempted.clone();
        let now = spawn_blocking(move || attempted.refreshed()).await.ok()?;
        if !forced && !self.is_due(&now) {
            self.see(now);
            return None;
        }
        let read = Arc::clone(&self.read);
        let reload = on_thread("reload", move || {
            lower_priority();
            let snapshot = read();
            let after = snapshot.files.refreshed();
            (snapshot, after)
        });
        let (snapshot, after) = reload
            .await
            .inspect_err(|error| warn!("cannot read changed files, retrying: {error}"))
            .ok()?;
        if after != snapshot.files {
            debug!("files changed while they were read; reading them again");
            self.see(after);
            return None;
        }
        let again = snapshot.files == self.attempted;
        self.attempted = snapshot.files.clone();
        self.see(snapshot.files);
        let doubt = match &snapshot.content {
            Ok(_) if forced && again && self.held_back => None,
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
        let untouched = again && self.last_good.error().is_none();
        if snapshot.content.is_ok() {
            self.applied = self.attempted.clone();
        }
        Some(self.apply(snapshot.content, untouched))
    }

    /// Whether the files, which are `now` so, have changed since the last attempt and settled.
    fn is_due(&self, now: &Fingerprint) -> bool {
        (*now != self.attempted || self.retry)
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

/// Runs `work` on a new thread called `name`. Unlike a task of `spawn_blocking`, it does not delay the end of the process.
///
/// # Errors
/// If the thread cannot be started or `work` panics.
async fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // The receiver is gone if the process is ending.
            let _ = done.send(work());
        })?;
    result
        .await
        .map_err(|_| io::Error::other("its thread panicked"))
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
