//! The store as the spool's thread uses it: monitored while it is in use, and repaired if possible.
//!
//! An event counts as recorded only if the files are found in place after its commit. Files that were deleted or replaced are recreated
//! with the events that are still readable through the open ones. A corrupt database is set aside. Every other failure, also to read the
//! disk, is retried until its cause is gone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use importguard_core::EventId;

use super::{
    AppendError, ParkedBatch, ParkedQuery, Parking, PendingEvent, SpoolError, SpoolOpenError,
    directory::{self, Location, Lock},
    files::Files,
    health::{Fault, Health, SpoolState},
    rescue::{Rescued, rescue},
    store::Store,
};

/// Delay between attempts to append to a broken spool. Appends in between fail immediately.
const RETRY: Duration = Duration::from_millis(250);

/// How often to check that an idle spool is writable. Each check costs a commit.
const PROBE: Duration = Duration::from_secs(5);

/// Minimum interval between databases that are set aside, so that a disk that corrupts everything is not filled with them.
const SET_ASIDE: Duration = Duration::from_secs(10);

/// The spool's files, monitored and repaired.
pub(super) struct Supervised {
    location: Location,
    /// `None` if it could not be reopened; all events are then in the file.
    store: Option<Store>,
    files: Files,
    /// Released after the store is closed.
    lock: Lock,
    health: Arc<Health>,
    /// When the store was last used, successfully or not.
    tried: Instant,
    /// When something was last committed.
    committed: Instant,
    /// When the last upkeep checked that the directory is writable.
    kept_up: Instant,
    /// When a database was last set aside.
    set_aside: Option<Instant>,
    /// The files may still contain data of events that are no longer in the spool.
    is_shrink_due: bool,
}

impl Supervised {
    /// Opens the spool, as [`Location::open`] does.
    pub(super) fn open(location: Location, health: Arc<Health>) -> Result<Self, SpoolOpenError> {
        let (lock, store, files) = location.open()?;
        let now = Instant::now();
        let mut supervised = Self {
            location,
            store: Some(store),
            files,
            lock,
            health,
            tried: now,
            committed: now,
            kept_up: now,
            set_aside: None,
            is_shrink_due: true,
        };
        supervised.upkeep();
        Ok(supervised)
    }

    /// Returns the store, or `None` if it could not be reopened.
    pub(super) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Commits `events` together if all of them fit, otherwise those that do. New parked events fit into half of the spool.
    pub(super) fn append(&mut self, events: &[PendingEvent]) -> Vec<Result<(), AppendError>> {
        let takes_parked = self.takes_parked();
        let is_taken = |event: &&PendingEvent| takes_parked || event.parked.is_none();
        let taken = events.iter().filter(is_taken);
        let appended = match taken.clone().count() {
            0 | 1 => Ok(false),
            _ => self.try_append(|store| store.append_all(taken.clone())),
        };
        let result = |event| match &appended {
            _ if !is_taken(&event) => Err(AppendError::ParkedFull),
            Ok(true) => Ok(()),
            Ok(false) => self.append_one(event),
            Err(why) => Err(AppendError::Broken(why.clone())),
        };
        events.iter().map(result).collect()
    }

    /// Returns whether new parked events fit: the other half of the spool is for the next outage.
    fn takes_parked(&self) -> bool {
        self.store
            .as_ref()
            .is_none_or(|store| store.contents.used_bytes <= store.max_bytes / 2)
    }

    fn append_one(&mut self, event: &PendingEvent) -> Result<(), AppendError> {
        match self.try_append(|store| store.append(event)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(AppendError::Full),
            Err(why) => Err(AppendError::Broken(why)),
        }
    }

    /// Does `append`, unless the disk has no room or the spool was just found broken.
    fn try_append(
        &mut self,
        append: impl Fn(&mut Store) -> rusqlite::Result<bool>,
    ) -> Result<bool, String> {
        if self.health.state() == SpoolState::Broken && self.tried.elapsed() < RETRY {
            return Err(self.health.status().last_error.unwrap_or_default());
        }
        let dir = self.location.dir.clone();
        let appended = self.work(|store| {
            directory::check_room(&dir, store)?;
            Ok(append(store)?)
        });
        if appended.is_ok() {
            self.committed = Instant::now();
        }
        appended
    }

    /// Deletes the events in `done`.
    pub(super) fn delete(&mut self, done: &[EventId]) -> Result<(), SpoolError> {
        self.drain(|store| Ok(store.delete(done)?))?;
        self.is_shrink_due = true;
        if let Err(fault) = self.shrink() {
            self.health.degraded(&fault);
        }
        Ok(())
    }

    /// Returns the first waiting events, see [`Store::next`].
    pub(super) fn next(
        &mut self,
        limit: u32,
        max_bytes: usize,
        sequence: u64,
    ) -> Result<Vec<PendingEvent>, SpoolError> {
        self.drain(|store| Ok(store.next(limit, max_bytes, sequence)?))
    }

    /// Marks events as parked, see [`Store::park`].
    pub(super) fn park(&mut self, events: &[Parking]) -> Result<(), SpoolError> {
        self.drain(|store| Ok(store.park(events)?))
    }

    /// Reads parked events, see [`Store::parked`].
    pub(super) fn parked(&mut self, query: &ParkedQuery) -> Result<ParkedBatch, SpoolError> {
        self.drain(|store| Ok(store.parked(query)?))
    }

    /// Does work for the drain, even if the files were deleted and cannot be recreated: NATS is then the only place where their events
    /// are safe.
    fn drain<T>(&mut self, work: impl Fn(&mut Store) -> Result<T, Fault>) -> Result<T, SpoolError> {
        match self.work(&work) {
            Ok(done) => {
                self.committed = Instant::now();
                Ok(done)
            }
            Err(why) => {
                let moved = self.check_files().is_err();
                let store = self.store.as_mut().filter(|_| moved);
                let done = store.and_then(|store| work(store).ok());
                done.ok_or(SpoolError::Broken(why))
            }
        }
    }

    /// Checks that the spool works, even if it has nothing to do.
    pub(super) fn examine(&mut self) {
        let is_idle = self.committed.elapsed() >= PROBE;
        let is_broken = self.health.state() == SpoolState::Broken;
        let dir = self.location.dir.clone();
        let probed = self.work(|store| {
            directory::check_room(&dir, store)?;
            if !is_broken && !is_idle {
                return Ok(store.probe_lock()?);
            }
            store.probe()?;
            if is_broken {
                // Without room for more than that, the next event would find the spool broken again.
                let probed = directory::probe(&dir).map_err(Fault::from);
                if let Err(fault @ Fault::DiskFull(_)) = probed {
                    return Err(fault);
                }
            }
            Ok(())
        });
        if probed.is_err() {
            return;
        }
        if is_idle {
            self.committed = Instant::now();
        }
        let is_degraded = self.health.state() == SpoolState::Degraded;
        if is_degraded || self.kept_up.elapsed() >= PROBE {
            self.upkeep();
        }
    }

    /// Tries to save the remaining events in files that the next start finds.
    pub(super) fn close(mut self) {
        self.examine();
        let left = self.store.as_ref().map_or(0, |store| store.contents.events);
        if let Err(fault) = self.check_files()
            && left > 0
        {
            tracing::error!(
                events = left,
                "{fault}: the events that were still in it are lost"
            );
        }
    }

    /// Does `work`. If it fails in a way that can be repaired, repairs the spool and does `work` again. Returns the reason if it fails.
    fn work<T>(&mut self, work: impl Fn(&mut Store) -> Result<T, Fault>) -> Result<T, String> {
        let was_broken = self.health.state() == SpoolState::Broken;
        let done = self
            .attempt(&work)
            .or_else(|fault| match fault {
                Fault::Corrupt(_) => self.attempt(&work).inspect(|_| {
                    tracing::warn!("{fault}, but not when it was read again: its disk may fail");
                }),
                fault => Err(fault),
            })
            .or_else(|fault| {
                self.repair(fault)?;
                self.attempt(&work)
            });
        self.tried = Instant::now();
        match done {
            Ok(done) => {
                if was_broken {
                    self.upkeep();
                } else if let Err(fault) = self.checkpoint() {
                    self.health.degraded(&fault);
                }
                Ok(done)
            }
            Err(fault) => {
                self.health.broken(&fault);
                Err(fault.to_string())
            }
        }
    }

    fn attempt<T>(&mut self, work: impl Fn(&mut Store) -> Result<T, Fault>) -> Result<T, Fault> {
        let store = self.store.as_mut().ok_or(Fault::NotOpen)?;
        // Check for changes by other programs first: SQLite's cache would hide them.
        if self.files.is_overwritten()? {
            directory::check_content(&self.location.dir)?;
            self.files.set_written()?;
        }
        if self.files.is_log_overwritten()? {
            if store.is_committed_by_others()? {
                store.count()?;
            } else if !self.files.is_log_intact(store.log_pages())? {
                return Err(directory::corrupt("another program has written to its log").into());
            }
        }
        let done = work(store);
        self.files.set_logged()?;
        self.check_files()?;
        done
    }

    fn check_files(&self) -> Result<(), Fault> {
        self.lock.check()?;
        self.files.check()
    }

    fn repair(&mut self, fault: Fault) -> Result<(), Fault> {
        let repaired = match &fault {
            Fault::Moved(_) | Fault::NotOpen => self.reopen(),
            Fault::Corrupt(_) => self.begin_anew(),
            _ => return Err(fault),
        };
        let repaired = match repaired {
            Err(Fault::Corrupt(_)) if !matches!(fault, Fault::Corrupt(_)) => self.begin_anew(),
            repaired => repaired,
        };
        match repaired {
            Ok(rescued) => {
                self.health.repaired(&fault, rescued);
                self.count_set_aside();
                Ok(())
            }
            // It only looked corrupt.
            Err(why @ Fault::Io(_)) if matches!(fault, Fault::Corrupt(_)) => Err(why),
            Err(why) => Err(Fault::Unrepaired {
                fault: Box::new(fault),
                why: why.to_string(),
            }),
        }
    }

    /// Sets the corrupt database aside and continues with a new one.
    fn begin_anew(&mut self) -> Result<Rescued, Fault> {
        if self.files.is_database_there()? {
            if self
                .set_aside
                .is_some_and(|last| last.elapsed() < SET_ASIDE)
            {
                return Err(Fault::Other(
                    "another one was set aside a moment ago".to_owned(),
                ));
            }
            directory::read_all(&self.location.dir)?;
            directory::set_aside(&self.location.dir)?;
            self.set_aside = Some(Instant::now());
        }
        self.reopen()
    }

    /// Reopens the spool at its path, with the events that can still be read from the old one.
    fn reopen(&mut self) -> Result<Rescued, Fault> {
        if self.lock.check().is_err() {
            self.lock = directory::lock(&self.location.dir)?;
        }
        if self.files.is_database_there()? {
            // The database must not be open twice with different logs or indexes, so move everything into it first.
            if let Some(store) = &mut self.store {
                store.empty_log()?;
            }
            self.store = None;
        } else {
            // They belong to the previous database.
            self.files.remove_companions()?;
        }
        let (mut store, files) = self.location.open_store()?;
        let rescued = match &self.store {
            Some(old) => rescue(old, &mut store)?,
            None => Rescued::all(store.contents.events),
        };
        let store = store.limit(self.location.max_bytes)?;
        self.files = files;
        self.files.set_written()?;
        if let Some(old) = self.store.replace(store) {
            old.abandon()?;
        }
        Ok(rescued)
    }

    /// Does the maintenance that callbacks neither wait for nor depend on.
    fn upkeep(&mut self) {
        self.kept_up = Instant::now();
        self.count_set_aside();
        // First, because it may make room.
        let kept = self.checkpoint().and_then(|()| self.shrink());
        let dir = &self.location.dir;
        let room = self
            .store
            .as_ref()
            .map_or(Ok(()), |store| directory::check_room(dir, store));
        let probed = room.and_then(|()| Ok(directory::probe(dir)?));
        match probed.and(kept) {
            Ok(()) => self.health.recovered(),
            // The drain works, but no event can be appended.
            Err(fault @ Fault::DiskFull(_)) if self.health.state() == SpoolState::Broken => {
                self.health.broken(&fault);
            }
            Err(fault) => self.health.degraded(&fault),
        }
    }

    /// Keeps the log from growing and, if the disk is nearly full, from taking space.
    fn checkpoint(&mut self) -> Result<(), Fault> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let written =
            if store.log_pages() > 0 && directory::check_room(&self.location.dir, store).is_err() {
                store.empty_log()
            } else if store.is_log_long() {
                store.checkpoint()
            } else {
                return Ok(());
            };
        self.written(written)
    }

    /// Erases the remains of events once the spool is empty.
    fn shrink(&mut self) -> Result<(), Fault> {
        if !self.is_shrink_due {
            return Ok(());
        }
        match self
            .store
            .as_mut()
            .filter(|store| store.contents.events == 0)
        {
            Some(store) => {
                let shrunk = store.shrink();
                self.is_shrink_due = shrunk.is_err();
                self.written(shrunk)
            }
            None => Ok(()),
        }
    }

    /// Records that this process has written to the database, with `result`. A locked database is not an error.
    fn written(&mut self, result: rusqlite::Result<()>) -> Result<(), Fault> {
        let result = result.map_err(Fault::from);
        match result.and(self.files.set_written().map_err(Fault::from)) {
            // It is retried later, when the other process has finished reading.
            Err(Fault::Locked(_)) => Ok(()),
            result => result,
        }
    }

    fn count_set_aside(&self) {
        if let Ok(files) = directory::set_aside_files(&self.location.dir) {
            self.health.set_set_aside(files.len());
        }
    }
}

#[cfg(test)]
impl Supervised {
    /// Returns the connection, to put it into a bad state.
    pub(super) fn connection(&mut self) -> &mut rusqlite::Connection {
        &mut self.store.as_mut().unwrap().connection
    }
}
