//! Keeps the file small, erases deleted events, and checks whether the file can be written.

use std::{sync::atomic::Ordering, time::Duration};

use rusqlite::{TransactionBehavior, config::DbConfig};

use super::{BUSY_TIMEOUT, Contents, Store, pages};

/// Pages of the log after which it is checkpointed into the database: 4 MiB.
const CHECKPOINT_PAGES: usize = 1000;

/// An empty database with more pages than this, 16 MiB, is shrunk.
const KEPT_PAGES: u64 = 4096;

impl Store {
    /// Releases the disk space of a backlog. Call it when the spool is empty: afterwards, no file contains anything of an event.
    pub(in crate::spool) fn shrink(&mut self) -> rusqlite::Result<()> {
        if pages(&self.connection, "PRAGMA page_count")? > KEPT_PAGES {
            self.connection.execute_batch("VACUUM")?;
            self.contents = Contents::of(&self.connection)?;
        }
        self.empty_log()
    }

    /// Returns whether the log is so long that [`checkpoint`](Self::checkpoint) is due.
    pub(in crate::spool) fn is_log_long(&self) -> bool {
        self.log_pages() >= CHECKPOINT_PAGES
    }

    /// Returns how many pages of the log were in use after the last commit.
    pub(in crate::spool) fn log_pages(&self) -> usize {
        usize::try_from(self.log_pages.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Moves the pages of the log that no reader needs any more into the database, so that the log can be reused from its start.
    pub(in crate::spool) fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }

    /// Moves the whole log into the database and truncates it. Returns an error immediately if another connection is reading the log.
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

    /// Returns whether other connections have committed since the last call.
    pub(in crate::spool) fn is_committed_by_others(&mut self) -> rusqlite::Result<bool> {
        let version = self
            .connection
            .pragma_query_value(None, "data_version", |row| row.get(0))?;
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }

    /// Returns an error if an event could not be written now. Leaves the contents unchanged.
    pub(in crate::spool) fn probe(&mut self) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Change the row and change it back: SQLite writes nothing if a row keeps its values.
        for change in [1, -1] {
            transaction
                .prepare_cached("UPDATE drain SET after = after + ?1")?
                .execute([change])?;
        }
        transaction.commit()
    }

    /// Returns an error if another connection holds a lock that prevents writing events.
    pub(in crate::spool) fn probe_lock(&mut self) -> rusqlite::Result<()> {
        self.connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?
            .rollback()
    }

    /// Closes the store but leaves the file and its log unchanged, wherever they have been moved to.
    pub(in crate::spool) fn abandon(self) -> rusqlite::Result<()> {
        self.connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map(drop)
    }

    /// Updates `contents` after changes made through `connection`.
    pub(in crate::spool) fn count(&mut self) -> rusqlite::Result<()> {
        self.contents = Contents::of(&self.connection)?;
        Ok(())
    }
}
