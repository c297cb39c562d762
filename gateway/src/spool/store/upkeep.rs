//! What keeps the file small and erased, and tells whether it can be written.

use std::{sync::atomic::Ordering, time::Duration};

use rusqlite::{Connection, TransactionBehavior, config::DbConfig};

use super::{BUSY_TIMEOUT, Contents, Store, pages};

/// The log is moved over into the database when it has this many pages: every 4 MiB.
const CHECKPOINT_PAGES: usize = 1000;

/// An empty file larger than this is made small again.
const KEPT_PAGES: u64 = 4096;

impl Store {
    /// Gives the disk back what a backlog took, once the spool is empty: nothing of an event is in any file then.
    pub(in crate::spool) fn shrink(&mut self) -> rusqlite::Result<()> {
        if pages(&self.connection, "PRAGMA page_count")? > KEPT_PAGES {
            self.connection.execute_batch("VACUUM")?;
            self.contents = Contents::of(&self.connection)?;
        }
        self.empty_log()
    }

    /// Whether the log is so long that [`checkpoint`](Self::checkpoint) is due.
    pub(in crate::spool) fn is_log_long(&self) -> bool {
        self.log_pages() >= CHECKPOINT_PAGES
    }

    /// How many pages of the log were in use after the last commit.
    pub(in crate::spool) fn log_pages(&self) -> usize {
        usize::try_from(self.log_pages.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Moves over into the database what nobody reads in the log any more, so that the log can be written from its start again.
    pub(in crate::spool) fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }

    /// Moves the whole log over into the database. An error if somebody is reading it: that is not waited for.
    pub(in crate::spool) fn empty_log(&mut self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(Duration::ZERO)?;
        let is_busy = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        if is_busy? {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                None,
            ));
        }
        self.log_pages.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Whether others have committed something since this was last asked.
    pub(in crate::spool) fn is_committed_by_others(&mut self) -> rusqlite::Result<bool> {
        let version = self
            .connection
            .pragma_query_value(None, "data_version", |row| row.get(0))?;
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }

    /// An error if an event could not be written now. Leaves the contents as they are.
    pub(in crate::spool) fn probe(&mut self) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        // There and back: SQLite writes nothing where a row gets the values that it has.
        for change in [1, -1] {
            transaction
                .prepare_cached("UPDATE drain SET after = after + ?1")?
                .execute([change])?;
        }
        transaction.commit()
    }

    /// An error if somebody else holds a lock that keeps events from being written.
    pub(in crate::spool) fn probe_lock(&mut self) -> rusqlite::Result<()> {
        self.connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?
            .rollback()
    }

    /// Lets the file be as it is when this is dropped, with its log, wherever it has been moved to.
    pub(in crate::spool) fn abandon(self) -> rusqlite::Result<()> {
        self.connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map(drop)
    }

    pub(in crate::spool) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Has [`contents`](Self::contents) follow what was done with [`connection`](Self::connection).
    pub(in crate::spool) fn count(&mut self) -> rusqlite::Result<()> {
        self.contents = Contents::of(&self.connection)?;
        Ok(())
    }
}
