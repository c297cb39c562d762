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

use super::{
    NewEvent, StoredEvent,
    clock::{self, SteadyClock},
    parked::{self, ParkedCounts},
};

/// In `PRAGMA user_version`. A file with a higher one was written by a newer importguard.
pub(super) const SCHEMA_VERSION: i64 = 3;

/// `id` sorts by time (UUID v7), so it is the order of publication too, even where an event whose ack failed arrives
/// after younger ones. `attempted_after` and `after` are sequences of the stream, which no clock can shift: what is stored of an
/// attempt comes after them. `drain` has one row: the events up to `up_to` may have been published by a drain after `after`.
/// It is one row that never grows much, so that a drain can mark what it does in a spool that is full. `spooled_ms` is of the
/// [`SteadyClock`]. `state` is `w` while the event waits for its turn, else why NATS does not take it, in as many bytes: it is changed in
/// place where the spool is full. It stands before the payload, which may fill many pages.
const SCHEMA: &str = "
    CREATE TABLE event (
        rowid           INTEGER PRIMARY KEY,
        id              TEXT NOT NULL UNIQUE,
        subject         TEXT NOT NULL,
        operation_id    TEXT NOT NULL,
        traceparent     TEXT,
        tracestate      TEXT,
        baggage         TEXT,
        state           TEXT NOT NULL DEFAULT 'w',
        payload         BLOB NOT NULL,
        attempted_after INTEGER,
        spooled_ms      INTEGER
    );
    CREATE TABLE drain (up_to TEXT NOT NULL, after INTEGER NOT NULL);
    INSERT INTO drain VALUES ('', 0);
";

/// Milliseconds become sequences that no stream has reached: then the whole stream is searched.
const FROM_VERSION_2: &str = "
    ALTER TABLE event RENAME COLUMN attempted_ms TO attempted_after;
    ALTER TABLE event ADD COLUMN spooled_ms INTEGER;
    ALTER TABLE event ADD COLUMN state TEXT NOT NULL DEFAULT 'w';
    ALTER TABLE drain RENAME COLUMN since_ms TO after;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) events: usize,
    /// Of these, the ones that NATS does not take.
    pub(super) parked: ParkedCounts,
    /// The first in order of those that wait.
    pub(super) oldest: Option<Oldest>,
    /// How much of [`Store::max_bytes`] is taken: the file without the pages that are free to be written again. What the
    /// events' payloads add up to may be half of it.
    pub(super) used_bytes: u64,
}

/// The event whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Oldest {
    pub(super) id: EventId,
    /// When it was spooled, by the [`SteadyClock`].
    pub(super) spooled_ms: i64,
}

impl Contents {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let mut contents = Self {
            events: connection.query_row("SELECT COUNT(*) FROM event", [], |row| row.get(0))?,
            parked: parked::count(connection)?,
            oldest: None,
            used_bytes: 0,
        };
        contents.refresh(connection)?;
        Ok(contents)
    }

    /// Events whose turn will come.
    pub(super) fn waiting(&self) -> usize {
        self.events.saturating_sub(self.parked.total())
    }

    /// Brings `oldest` and `used_bytes` up to date when events have left or are parked.
    pub(super) fn refresh(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.oldest = match (self.waiting(), self.oldest) {
            (0, _) => None,
            // Those before it are parked, and may be many.
            (_, first) => oldest(connection, first)?,
        };
        self.used_bytes = used_bytes(connection)?;
        Ok(())
    }
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
    pub(super) connection: Connection,
    pub(super) contents: Contents,
    max_bytes: u64,
    clock: SteadyClock,
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
        let schema: &[&str] = match version(&connection)? {
            0 => &[SCHEMA],
            1 => &[
                "ALTER TABLE event ADD COLUMN tracestate TEXT;",
                FROM_VERSION_2,
            ],
            2 => &[FROM_VERSION_2],
            _ => &[],
        };
        if !schema.is_empty() {
            let change = connection.transaction()?;
            for step in schema {
                change.execute_batch(step)?;
            }
            change.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            change.commit()?;
        }
        let clock = SteadyClock::start();
        clock::date_back(&connection, clock)?;
        let contents = Contents::of(&connection)?;
        let data_version = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        Ok(Self {
            data_version,
            connection,
            contents,
            max_bytes: u64::MAX,
            clock,
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

    pub(super) fn max_pages(&self) -> u64 {
        self.max_bytes / PAGE_BYTES
    }

    pub(super) fn limit_pages(&self, pages: u64) -> rusqlite::Result<()> {
        let pages = i64::try_from(pages).unwrap_or(i64::MAX);
        self.connection.pragma_update(None, "max_page_count", pages)
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
        let spooled_ms = self.clock.now_ms();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO event (id, subject, operation_id, traceparent, tracestate, baggage, payload, attempted_after, spooled_ms, state)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?;
            for event in events {
                let added = insert.execute(params![
                    event.id.to_string(),
                    event.subject,
                    event.operation_id.as_str(),
                    event.trace.traceparent,
                    event.trace.tracestate,
                    event.trace.baggage,
                    event.payload.as_ref(),
                    event.attempted_after.map(sequence),
                    spooled_ms,
                    parked::state(event.parked),
                ])?;
                contents.events += added;
                match event.parked {
                    Some(reason) if added > 0 => contents.parked.add(reason),
                    Some(_) => {}
                    None => {
                        let added = Oldest {
                            id: event.id,
                            spooled_ms,
                        };
                        contents.oldest = contents.oldest.into_iter().chain([added]).min();
                    }
                }
            }
        }
        contents.used_bytes = used_bytes(&transaction)?;
        transaction.commit()?;
        self.contents = contents;
        Ok(())
    }

    /// Deletes the events in `done` and returns the first of the rest in order: at most `limit` of them, and no more after
    /// `max_bytes` of payload. They count as attempted after `sequence` from the next call on.
    pub(super) fn advance(
        &mut self,
        done: &[EventId],
        limit: u32,
        max_bytes: usize,
        sequence: u64,
    ) -> rusqlite::Result<Vec<StoredEvent>> {
        let mut contents = self.contents;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut delete =
                transaction.prepare_cached("DELETE FROM event WHERE id = ?1 RETURNING state")?;
            for id in done {
                let deleted = delete.query_row([id.to_string()], |row| parked::reason(row, 0));
                let Some(was_parked) = deleted.optional()? else {
                    continue;
                };
                contents.events -= 1;
                if let Some(reason) = was_parked {
                    contents.parked.remove(reason);
                }
            }
        }
        if !done.is_empty() {
            contents.refresh(&transaction)?;
        }
        let batch = match contents.oldest {
            Some(oldest) => read(&transaction, oldest.id, limit, max_bytes)?,
            None => Vec::new(),
        };
        if let Some(last) = batch.last() {
            // Events that an earlier drain left behind keep that drain's mark: the oldest attempt is what counts.
            let after = batch
                .first()
                .and_then(|first| first.attempted_by_drain_after)
                .unwrap_or(sequence);
            transaction
                .prepare_cached("UPDATE drain SET up_to = MAX(up_to, ?1), after = ?2")?
                .execute(params![last.id.to_string(), self::sequence(after)])?;
        }
        transaction.commit()?;
        self.contents = contents;
        Ok(batch)
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// The schema version of a file; 0 for one without tables.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// The first that waits, not before `from`.
fn oldest(connection: &Connection, from: Option<Oldest>) -> rusqlite::Result<Option<Oldest>> {
    let from = from.map_or_else(String::new, |oldest| oldest.id.to_string());
    connection
        .prepare_cached(
            "SELECT id, spooled_ms FROM event WHERE id >= ?1 AND state = 'w' ORDER BY id LIMIT 1",
        )?
        .query_row([from], |row| {
            let id = id(row, 0)?;
            let spooled_ms = row.get::<_, Option<i64>>(1)?;
            Ok(Oldest {
                id,
                spooled_ms: spooled_ms.unwrap_or_else(|| id.unix_ms()),
            })
        })
        .optional()
}

pub(super) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
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
    from: EventId,
    limit: u32,
    max_bytes: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut batch = Vec::with_capacity(limit as usize);
    let mut bytes = 0;
    let mut select = connection.prepare_cached(
        "SELECT id, subject, operation_id, traceparent, tracestate, baggage, payload, attempted_after,
                CASE WHEN id <= up_to THEN after END
         FROM event, drain WHERE id >= ?1 AND state = 'w' ORDER BY id LIMIT ?2",
    )?;
    let mut rows = select.query(params![from.to_string(), limit])?;
    while let Some(row) = rows.next()? {
        let event = event(row)?;
        bytes += event.payload.len();
        if bytes > max_bytes && !batch.is_empty() {
            break;
        }
        batch.push(event);
    }
    Ok(batch)
}

/// A row of nine columns: those of an event, and after which sequence a drain attempted it.
pub(super) fn event(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredEvent> {
    let sequence = |column| -> rusqlite::Result<Option<u64>> {
        let sequence = row.get::<_, Option<i64>>(column)?;
        Ok(sequence.map(|sequence| u64::try_from(sequence).unwrap_or(0)))
    };
    Ok(StoredEvent {
        id: id(row, 0)?,
        subject: row.get(1)?,
        operation_id: row.get(2)?,
        trace: MessageHeaders {
            traceparent: row.get(3)?,
            tracestate: row.get(4)?,
            baggage: row.get(5)?,
        },
        payload: Bytes::from(row.get::<_, Vec<u8>>(6)?),
        attempted_after: sequence(7)?,
        attempted_by_drain_after: sequence(8)?,
    })
}

/// A sequence as SQLite holds it.
pub(super) fn sequence(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

pub(super) fn id(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<EventId> {
    let text = row.get_ref(column)?.as_str()?;
    EventId::parse(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}
