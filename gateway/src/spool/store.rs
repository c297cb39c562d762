//! The spool's SQLite file: its schema, and the few statements that use it. Owned by one thread.

mod upkeep;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use importguard_core::EventId;
use importguard_telemetry::propagation::MessageHeaders;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::{
    PendingEvent, SpoolSync,
    clock::{self, SteadyClock},
    parked::{self, ParkedCounts},
};

/// Version of the schema, in `PRAGMA user_version`. A file with another version was written by another version of importguard.
pub(super) const SCHEMA_VERSION: i64 = 3;

/// Schema of the file. `id` sorts by time (UUID v7) as long as the clock is right, so it is also the order of publication, even if an event
/// whose ack failed arrives after younger ones. `attempted_after` and `after` are sequences of the stream, which do not depend on any
/// clock: if an attempt was stored, it comes after them. `drain` has one row: a drain may have published the events up to `up_to` after
/// `after`; it is empty once no event waits. This one row never grows much, so a drain can mark its progress even in a full spool.
/// `spooled_ms` is a time of the [`SteadyClock`]. `state` is `w` while the event waits, otherwise the reason why NATS refuses it, always
/// one byte, so that it can be changed in place when the spool is full. It precedes the payload, which may fill many pages.
const SCHEMA: &str = "
    CREATE TABLE event (
        rowid           INTEGER PRIMARY KEY,
        id              TEXT NOT NULL UNIQUE,
        subject         TEXT NOT NULL,
        operation_id    TEXT NOT NULL,
        traceparent     TEXT,
        tracestate      TEXT,
        baggage         TEXT,
        state           TEXT NOT NULL,
        payload         BLOB NOT NULL,
        attempted_after INTEGER,
        spooled_ms      INTEGER NOT NULL
    );
    CREATE TABLE drain (up_to TEXT NOT NULL, after INTEGER NOT NULL);
    INSERT INTO drain VALUES ('', 0);
";

/// SQLite's default page size, which is also the block size of common file systems.
const PAGE_BYTES: u64 = 4096;

/// Size to which SQLite truncates the log. One large group may make it longer for a moment.
const WAL_BYTES: i64 = 16 << 20;

/// Pages that an event may need besides its payload: for its other columns, and for its places in the trees of the table and the index.
const TREE_PAGES: u64 = 4;

/// How long to wait for a lock that another process holds: long enough for a brief read of the spool, and short enough for the waiting
/// callbacks.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

/// Contents of the spool. Kept in memory, because querying SQLite after each commit made a single callback 10% slower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) events: usize,
    /// Number of these that are parked, by reason.
    pub(super) parked: ParkedCounts,
    /// The first waiting event.
    pub(super) oldest: Option<Oldest>,
    /// How much of [`Store::max_bytes`] is in use: the file without its free pages. The sum of the payloads may be only half of this.
    pub(super) used_bytes: u64,
}

/// The event that is published next.
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

    /// Returns the number of events that wait for publication.
    pub(super) fn waiting(&self) -> usize {
        self.events.saturating_sub(self.parked.total())
    }

    /// Updates `oldest` and `used_bytes` after events were deleted or parked.
    pub(super) fn refresh(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.oldest = match (self.waiting(), self.oldest) {
            (0, _) => None,
            // Skip the events before it: they are parked, and may be many.
            (_, first) => oldest(connection, first)?,
        };
        self.used_bytes = used_bytes(connection)?;
        Ok(())
    }

    /// Resets the drain's mark if no event waits. Otherwise, later events would count as attempted for as long as their IDs are below it, if
    /// the clock was ahead.
    pub(super) fn forget_drain(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.waiting() == 0 {
            connection
                .prepare_cached("UPDATE drain SET up_to = '' WHERE up_to <> ''")?
                .execute([])?;
        }
        Ok(())
    }
}

/// The open file of the spool.
pub(super) struct Store {
    pub(super) connection: Connection,
    pub(super) contents: Contents,
    /// The size of the file at which the spool is full.
    pub(super) max_bytes: u64,
    clock: SteadyClock,
    /// Pages of the log in use after the last commit.
    log_pages: Arc<AtomicI32>,
    /// SQLite's `data_version`, which changes when other connections commit.
    data_version: i64,
}

impl Store {
    /// Prepares a connection to a new or valid file for use.
    pub(super) fn new(mut connection: Connection, sync: SpoolSync) -> rusqlite::Result<Self> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let sync = match sync {
            SpoolSync::Full => "FULL",
            SpoolSync::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", sync)?;
        // Overwrite deleted events with zeros: operators may need drained events to be unrecoverable.
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
        let log_pages = Arc::new(AtomicI32::new(0));
        // This replaces SQLite's automatic checkpoints: a process that knows when it writes to the database can detect writes by others.
        connection.wal_hook(Some({
            let log_pages = log_pages.clone();
            move |_: &mut _, pages| {
                log_pages.store(pages, Ordering::Relaxed);
                Ok(())
            }
        }))?;
        if version(&connection)? == 0 {
            let creation = connection.transaction()?;
            creation.execute_batch(SCHEMA)?;
            creation.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            creation.commit()?;
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

    /// Limits the file to `max_bytes` from now on. A file that is already larger keeps its size as the limit.
    pub(super) fn limit(mut self, max_bytes: u64) -> rusqlite::Result<Self> {
        self.limit_pages(max_bytes / PAGE_BYTES)?;
        // Read the limit that SQLite has actually set.
        self.max_bytes = pages(&self.connection, "PRAGMA max_page_count")? * PAGE_BYTES;
        Ok(self)
    }

    /// Returns how much of the file is not in use.
    pub(super) fn free_bytes(&self) -> rusqlite::Result<u64> {
        Ok(pages(&self.connection, "PRAGMA freelist_count")? * PAGE_BYTES)
    }

    pub(super) fn max_pages(&self) -> u64 {
        self.max_bytes / PAGE_BYTES
    }

    pub(super) fn limit_pages(&self, pages: u64) -> rusqlite::Result<()> {
        let pages = i64::try_from(pages).unwrap_or(i64::MAX);
        self.connection.pragma_update(None, "max_page_count", pages)
    }

    /// Commits `events` in one transaction. Returns `false` if there is no room for all of them, within the limit or on the disk: then none
    /// is committed. An event whose ID already exists is left unchanged and counts as committed.
    pub(super) fn append_all<'a>(
        &mut self,
        events: impl Iterator<Item = &'a PendingEvent>,
    ) -> rusqlite::Result<bool> {
        match self.insert(events) {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Commits `event`. Returns `false` if there is no room for it within [`max_bytes`](Self::max_bytes); a full disk is an error.
    pub(super) fn append(&mut self, event: &PendingEvent) -> rusqlite::Result<bool> {
        match self.insert(std::iter::once(event)) {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error) && !self.has_room_for(event) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn has_room_for(&self, event: &PendingEvent) -> bool {
        let bytes = event.payload.len() as u64 + TREE_PAGES * PAGE_BYTES;
        self.contents.used_bytes + bytes <= self.max_bytes
    }

    fn insert<'a>(
        &mut self,
        events: impl Iterator<Item = &'a PendingEvent>,
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
                    event.operation_id,
                    event.trace.traceparent,
                    event.trace.tracestate,
                    event.trace.baggage,
                    event.payload.as_ref(),
                    event.attempted_after.map(to_integer),
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

    /// Deletes the events in `done`.
    pub(super) fn delete(&mut self, done: &[EventId]) -> rusqlite::Result<()> {
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
                contents.events = contents.events.saturating_sub(1);
                if let Some(reason) = was_parked {
                    contents.parked.remove(reason);
                }
            }
        }
        contents.refresh(&transaction)?;
        contents.forget_drain(&transaction)?;
        transaction.commit()?;
        self.contents = contents;
        Ok(())
    }

    /// Returns the first waiting events in order: at most `limit`, and at most `max_bytes` of payload unless the first event alone is
    /// larger. From the next call on, they count as attempted after `sequence`.
    pub(super) fn next(
        &mut self,
        limit: u32,
        max_bytes: usize,
        sequence: u64,
    ) -> rusqlite::Result<Vec<PendingEvent>> {
        let mut contents = self.contents;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (batch, drained_after) = match contents.oldest {
            Some(oldest) => read(&transaction, oldest.id, limit, max_bytes)?,
            None => (Vec::new(), None),
        };
        if batch.is_empty() && contents.waiting() > 0 {
            // Another program has changed the events unnoticed.
            contents = Contents::of(&transaction)?;
        }
        if let Some(last) = batch.last() {
            // Events left by an earlier drain keep that drain's mark: the oldest attempt counts.
            let after = drained_after.unwrap_or(sequence);
            transaction
                .prepare_cached("UPDATE drain SET up_to = MAX(up_to, ?1), after = ?2")?
                .execute(params![last.id.to_string(), to_integer(after)])?;
        }
        transaction.commit()?;
        self.contents = contents;
        Ok(batch)
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Returns the schema version of a file; 0 if it has no tables.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Returns whether this version of importguard can use a file with this schema version.
pub(super) fn is_known(version: i64) -> bool {
    version == 0 || version == SCHEMA_VERSION
}

/// Returns the first waiting event whose ID is not before `from`.
fn oldest(connection: &Connection, from: Option<Oldest>) -> rusqlite::Result<Option<Oldest>> {
    let from = from.map_or_else(String::new, |oldest| oldest.id.to_string());
    connection
        .prepare_cached(
            "SELECT id, spooled_ms FROM event WHERE id >= ?1 AND state = 'w' ORDER BY id LIMIT 1",
        )?
        .query_row([from], |row| {
            Ok(Oldest {
                id: id(row, 0)?,
                spooled_ms: row.get(1)?,
            })
        })
        .optional()
}

/// Returns how much of the file is in use.
pub(super) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let all = pages(connection, "PRAGMA page_count")?;
    let free = pages(connection, "PRAGMA freelist_count")?;
    Ok(all.saturating_sub(free) * PAGE_BYTES)
}

/// Reads a pragma whose value is a number of pages.
fn pages(connection: &Connection, pragma: &str) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(pragma)?
        .query_row([], |row| row.get(0))
}

/// Returns the first waiting events, and the sequence after which an earlier drain attempted the first of them, if one did.
fn read(
    connection: &Connection,
    from: EventId,
    limit: u32,
    max_bytes: usize,
) -> rusqlite::Result<(Vec<PendingEvent>, Option<u64>)> {
    let mut batch = Vec::with_capacity(limit as usize);
    let mut drained_after = None;
    let mut bytes = 0;
    let mut select = connection.prepare_cached(
        "SELECT id, subject, operation_id, traceparent, tracestate, baggage, payload, attempted_after, state,
                CASE WHEN id <= up_to THEN after END
         FROM event, drain WHERE id >= ?1 AND state = 'w' ORDER BY id LIMIT ?2",
    )?;
    let mut rows = select.query(params![from.to_string(), limit])?;
    while let Some(row) = rows.next()? {
        let mut event = event(row)?;
        bytes += event.payload.len();
        if bytes > max_bytes && !batch.is_empty() {
            break;
        }
        let by_drain = sequence(row, 9)?;
        if batch.is_empty() {
            drained_after = by_drain;
        }
        event.attempted_after = event.attempted_after.into_iter().chain(by_drain).min();
        batch.push(event);
    }
    Ok((batch, drained_after))
}

/// Reads a row whose first nine columns are those of an event.
pub(super) fn event(row: &rusqlite::Row<'_>) -> rusqlite::Result<PendingEvent> {
    Ok(PendingEvent {
        id: id(row, 0)?,
        subject: Cow::Owned(row.get(1)?),
        operation_id: row.get(2)?,
        trace: MessageHeaders {
            traceparent: row.get(3)?,
            tracestate: row.get(4)?,
            baggage: row.get(5)?,
        },
        payload: Bytes::from(row.get::<_, Vec<u8>>(6)?),
        attempted_after: sequence(row, 7)?,
        parked: parked::reason(row, 8)?,
    })
}

fn sequence(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let sequence = row.get::<_, Option<i64>>(column)?;
    Ok(sequence.map(|sequence| u64::try_from(sequence).unwrap_or(0)))
}

/// Converts a sequence to SQLite's integer type.
pub(super) fn to_integer(sequence: u64) -> i64 {
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
