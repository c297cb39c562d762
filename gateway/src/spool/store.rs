//! The spool's SQLite file: schema, and the few statements that work on it. Owned by one thread.

mod upkeep;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::ValueEnum;
use importguard_core::EventId;
use importguard_telemetry::propagation::MessageHeaders;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::{NewEvent, StoredEvent};

/// In `PRAGMA user_version`. A file with a higher one was written by a newer importguard.
pub(super) const SCHEMA_VERSION: i64 = 2;

/// `id` sorts by time (UUID v7), so it is the order of publication too, even where an event whose ack failed arrives
/// after younger ones. `drain` has one row: the events up to `up_to` may have been published by a drain since `since_ms`.
/// It is one row that never grows much, so that a drain can mark what it does in a spool that is full.
const SCHEMA: &str = "
    CREATE TABLE event (
        rowid        INTEGER PRIMARY KEY,
        id           TEXT NOT NULL UNIQUE,
        subject      TEXT NOT NULL,
        operation_id TEXT NOT NULL,
        traceparent  TEXT,
        tracestate   TEXT,
        baggage      TEXT,
        payload      BLOB NOT NULL,
        attempted_ms INTEGER
    );
    CREATE TABLE drain (up_to TEXT NOT NULL, since_ms INTEGER NOT NULL);
    INSERT INTO drain VALUES ('', 0);
";

/// SQLite's own default, which is a file system's block.
const PAGE_BYTES: u64 = 4096;

/// One large group may make the log longer for a moment.
const WAL_BYTES: i64 = 16 << 20;

/// What an event may need beside its payload: its other columns, and its places in the trees of the table and its index.
const TREE_PAGES: u64 = 4;

/// How long somebody else's lock is waited for: long enough for a glance into the spool, and short enough for the callbacks that wait.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

/// What the spool holds. Kept along: asking SQLite for it after each commit took a lone callback a tenth longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) events: usize,
    /// The id of the event that is first in order.
    pub(super) oldest: Option<EventId>,
    /// How much of [`Store::max_bytes`] is taken: the file without the pages that are free to be written again. What the
    /// events' payloads add up to may be half of it.
    pub(super) used_bytes: u64,
}

/// What the disk confirms before an event counts as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SpoolSync {
    /// Survives a power cut and a crash of the operating system
    Full,
    /// Survives the end of the process only; faster
    Normal,
}

/// The spool's file, opened.
pub(super) struct Store {
    connection: Connection,
    contents: Contents,
    max_bytes: u64,
    /// As of the last commit.
    log_pages: Arc<AtomicI32>,
    /// SQLite's own count of what others have committed.
    data_version: i64,
}

impl Store {
    /// Takes a connection to a new or sound file into use.
    pub(super) fn new(mut connection: Connection, sync: SpoolSync) -> rusqlite::Result<Self> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let sync = match sync {
            SpoolSync::Full => "FULL",
            SpoolSync::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", sync)?;
        // What is drained is overwritten: it may be wanted gone for good.
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
        let log_pages = Arc::new(AtomicI32::new(0));
        // In place of SQLite's own checkpoints: who knows when the database is written to can tell when somebody else did.
        connection.wal_hook(Some({
            let log_pages = log_pages.clone();
            move |_: &mut _, pages| {
                log_pages.store(pages, Ordering::Relaxed);
                Ok(())
            }
        }))?;
        let schema = match version(&connection)? {
            0 => Some(SCHEMA),
            1 => Some("ALTER TABLE event ADD COLUMN tracestate TEXT;"),
            _ => None,
        };
        if let Some(schema) = schema {
            let change = connection.transaction()?;
            change.execute_batch(schema)?;
            change.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            change.commit()?;
        }
        let contents = Contents::of(&connection)?;
        let data_version = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        Ok(Self {
            data_version,
            connection,
            contents,
            max_bytes: u64::MAX,
            log_pages,
        })
    }

    /// The same with at most `max_bytes` of file from now on. One that is larger already stays as large.
    pub(super) fn limit(mut self, max_bytes: u64) -> rusqlite::Result<Self> {
        let max_pages = i64::try_from(max_bytes / PAGE_BYTES).unwrap_or(i64::MAX);
        self.connection
            .pragma_update(None, "max_page_count", max_pages)?;
        // SQLite's own word for it.
        self.max_bytes = pages(&self.connection, "PRAGMA max_page_count")? * PAGE_BYTES;
        Ok(self)
    }

    pub(super) fn contents(&self) -> Contents {
        self.contents
    }

    /// How large the file may become: then the spool is full.
    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Commits `events`, all in one transaction if they fit; else those that do. Returns which are committed: the others find no room
    /// within [`max_bytes`](Self::max_bytes). An id that is there already is left as it is.
    pub(super) fn append<'a>(
        &mut self,
        events: impl ExactSizeIterator<Item = &'a NewEvent> + Clone,
    ) -> rusqlite::Result<Vec<bool>> {
        let count = events.len();
        if count > 1 {
            match self.append_all(events.clone()) {
                Ok(()) => return Ok(vec![true; count]),
                Err(error) if !is_full(&error) => return Err(error),
                // SQLite may have rolled back everything or only the last statement: one by one there is no doubt.
                Err(_) => {}
            }
        }
        events.map(|event| self.append_one(event)).collect()
    }

    /// Returns false if the event finds no room within the bound; a disk that has none is an error.
    fn append_one(&mut self, event: &NewEvent) -> rusqlite::Result<bool> {
        match self.append_all(std::iter::once(event)) {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error) && !self.has_room_for(event) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn has_room_for(&self, event: &NewEvent) -> bool {
        let bytes = event.payload.len() as u64 + TREE_PAGES * PAGE_BYTES;
        self.contents.used_bytes + bytes <= self.max_bytes
    }

    fn append_all<'a>(
        &mut self,
        events: impl Iterator<Item = &'a NewEvent>,
    ) -> rusqlite::Result<()> {
        let mut contents = self.contents;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO event (id, subject, operation_id, traceparent, tracestate, baggage, payload, attempted_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            for event in events {
                contents.events += insert.execute(params![
                    event.id.to_string(),
                    event.subject,
                    event.operation_id.as_str(),
                    event.trace.traceparent,
                    event.trace.tracestate,
                    event.trace.baggage,
                    event.payload.as_ref(),
                    event.attempted_ms,
                ])?;
                contents.oldest = contents.oldest.into_iter().chain([event.id]).min();
            }
        }
        contents.used_bytes = used_bytes(&transaction)?;
        transaction.commit()?;
        self.contents = contents;
        Ok(())
    }

    /// Deletes the events in `done` and returns the first of the rest in order: at most `limit` of them, and no more after
    /// `max_bytes` of payload. They count as attempted at `now_ms` from the next call on.
    pub(super) fn advance(
        &mut self,
        done: &[EventId],
        limit: u32,
        max_bytes: usize,
        now_ms: i64,
    ) -> rusqlite::Result<Vec<StoredEvent>> {
        let mut contents = self.contents;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut delete = transaction.prepare_cached("DELETE FROM event WHERE id = ?1")?;
            for id in done {
                contents.events -= delete.execute([id.to_string()])?;
            }
        }
        if !done.is_empty() {
            contents.oldest = oldest(&transaction)?;
            contents.used_bytes = used_bytes(&transaction)?;
        }
        let batch = read(&transaction, limit, max_bytes)?;
        if let Some(last) = batch.last() {
            // Events that an earlier drain left behind keep that drain's time: the oldest attempt is what counts.
            let since_ms = batch
                .first()
                .and_then(|first| first.attempted_by_drain_ms)
                .unwrap_or(now_ms);
            transaction
                .prepare_cached("UPDATE drain SET up_to = MAX(up_to, ?1), since_ms = ?2")?
                .execute(params![last.id.to_string(), since_ms])?;
        }
        transaction.commit()?;
        self.contents = contents;
        Ok(batch)
    }
}

impl Contents {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            events: connection.query_row("SELECT COUNT(*) FROM event", [], |row| row.get(0))?,
            oldest: oldest(connection)?,
            used_bytes: used_bytes(connection)?,
        })
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// The schema version of a file; 0 for one without tables.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn oldest(connection: &Connection) -> rusqlite::Result<Option<EventId>> {
    connection
        .prepare_cached("SELECT id FROM event ORDER BY id LIMIT 1")?
        .query_row([], |row| id(row, 0))
        .optional()
}

fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let all = pages(connection, "PRAGMA page_count")?;
    let free = pages(connection, "PRAGMA freelist_count")?;
    Ok(all.saturating_sub(free) * PAGE_BYTES)
}

/// What a pragma says, in pages.
fn pages(connection: &Connection, pragma: &str) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(pragma)?
        .query_row([], |row| row.get(0))
}

fn read(
    connection: &Connection,
    limit: u32,
    max_bytes: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut batch = Vec::with_capacity(limit as usize);
    let mut bytes = 0;
    let mut select = connection.prepare_cached(
        "SELECT id, subject, operation_id, traceparent, tracestate, baggage, payload, attempted_ms,
                CASE WHEN id <= up_to THEN since_ms END
         FROM event, drain ORDER BY id LIMIT ?1",
    )?;
    let mut rows = select.query([limit])?;
    while let Some(row) = rows.next()? {
        let payload = Bytes::from(row.get::<_, Vec<u8>>(6)?);
        bytes += payload.len();
        if bytes > max_bytes && !batch.is_empty() {
            break;
        }
        batch.push(StoredEvent {
            id: id(row, 0)?,
            subject: row.get(1)?,
            operation_id: row.get(2)?,
            trace: MessageHeaders {
                traceparent: row.get(3)?,
                tracestate: row.get(4)?,
                baggage: row.get(5)?,
            },
            payload,
            attempted_ms: row.get(7)?,
            attempted_by_drain_ms: row.get(8)?,
        });
    }
    Ok(batch)
}

fn id(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<EventId> {
    let text = row.get_ref(column)?.as_str()?;
    EventId::parse(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}
