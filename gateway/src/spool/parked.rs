//! Parked events, which NATS refuses while it accepts others. They stay in the file with their reason, and do not hold up the rest.

use std::fmt;

use importguard_core::EventId;
use rusqlite::{OptionalExtension, Row, Transaction, TransactionBehavior, params};

use strum::{EnumCount, EnumIter, IntoEnumIterator, IntoStaticStr};

use super::{
    PendingEvent,
    store::{Store, event, id, to_integer},
};

/// Number of events that one search for parked events examines. This takes the spool's thread a few milliseconds.
const SCAN_LIMIT: u32 = 2048;

/// The `state` of an event that is not parked.
const WAITING: &str = "w";

/// Pages beyond the spool's limit for marking events, so that a full spool does not block the drain.
const RESERVE_PAGES: u64 = 64;

/// Why NATS refuses an event while it accepts others.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, EnumCount, EnumIter,
)]
#[strum(serialize_all = "camelCase", const_into_str)]
pub(crate) enum ParkReason {
    /// The stream does not have its subject.
    SubjectMissing,
    /// The gateway's NATS user may not publish to its subject.
    PermissionDenied,
    /// Its subject belongs to another stream.
    OtherStream,
    /// It exceeds the limit of the server or the stream, even without its lists.
    TooLarge,
    /// Another reason that concerns single events.
    Refused,
}

impl ParkReason {
    /// Returns whether the reason applies to every event on the subject.
    pub(crate) const fn is_about_the_subject(self) -> bool {
        match self {
            Self::SubjectMissing | Self::PermissionDenied | Self::OtherStream => true,
            Self::TooLarge | Self::Refused => false,
        }
    }

    /// The reason's name in the spool's file.
    const fn letter(self) -> &'static str {
        match self {
            Self::SubjectMissing => "s",
            Self::PermissionDenied => "p",
            Self::OtherStream => "o",
            Self::TooLarge => "l",
            Self::Refused => "r",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ParkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.into_str())
    }
}

/// Number of parked events, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ParkedCounts([usize; ParkReason::COUNT]);

impl ParkedCounts {
    pub(crate) fn of(&self, reason: ParkReason) -> usize {
        self.0[reason.index()]
    }

    pub(crate) fn total(&self) -> usize {
        self.0.iter().sum()
    }

    pub(super) fn add(&mut self, reason: ParkReason) {
        self.0[reason.index()] += 1;
    }

    pub(super) fn remove(&mut self, reason: ParkReason) {
        let count = &mut self.0[reason.index()];
        *count = count.saturating_sub(1);
    }
}

/// An event to be parked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parking {
    pub(crate) id: EventId,
    pub(crate) reason: ParkReason,
    /// As [`PendingEvent::attempted_after`].
    pub(crate) attempted_after: Option<u64>,
}

/// Parked events, in the order of their IDs.
#[derive(Debug)]
pub(crate) struct ParkedBatch {
    pub(crate) events: Vec<PendingEvent>,
    /// The event after which to continue; `None` at the end.
    pub(crate) next: Option<EventId>,
}

/// Which parked events to look for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParkedQuery {
    /// Only events after this one.
    pub(crate) after: Option<EventId>,
    /// Only events on other subjects.
    pub(crate) except: Vec<String>,
    pub(crate) limit: usize,
    /// Payload bytes after which no more events are read.
    pub(crate) max_bytes: usize,
    /// The stream's last known sequence. The events found count as attempted after it.
    pub(crate) sequence: u64,
}

impl Store {
    /// Marks events as parked, or changes their reason.
    pub(super) fn park(&mut self, events: &[Parking]) -> rusqlite::Result<()> {
        let mut contents = self.contents;
        self.with_reserve(|transaction| {
            let mut before = transaction.prepare_cached("SELECT state FROM event WHERE id = ?1")?;
            let mut park = transaction.prepare_cached(
                "UPDATE event SET state = ?2, attempted_after = ?3 WHERE id = ?1",
            )?;
            for event in events {
                let before = before.query_row([event.id.to_string()], |row| reason(row, 0));
                let Some(before) = before.optional()? else {
                    continue;
                };
                if let Some(before) = before {
                    contents.parked.remove(before);
                }
                contents.parked.add(event.reason);
                let attempted_after = event.attempted_after.map(to_integer);
                park.execute(params![
                    event.id.to_string(),
                    state(Some(event.reason)),
                    attempted_after
                ])?;
            }
            contents.refresh(transaction)?;
            contents.forget_drain(transaction)
        })?;
        self.contents = contents;
        Ok(())
    }

    /// Reads parked events. Searches at most [`SCAN_LIMIT`] events of the file.
    pub(super) fn parked(&mut self, query: &ParkedQuery) -> rusqlite::Result<ParkedBatch> {
        let after = query.after.map_or_else(String::new, |id| id.to_string());
        let except = serde_json::to_string(&query.except).unwrap_or_else(|_| "[]".to_owned());
        let sequence = to_integer(query.sequence);
        self.with_reserve(|transaction| {
            let stretch_end = transaction
                .prepare_cached("SELECT id FROM event WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2")?
                .query_row(params![after, SCAN_LIMIT - 1], |row| id(row, 0))
                .optional()?;
            let to = stretch_end.map_or_else(|| "~".to_owned(), |id| id.to_string());
            let mut select = transaction.prepare_cached(
                "SELECT id, subject, operation_id, traceparent, tracestate, baggage, payload, attempted_after, state
                 FROM event
                 WHERE id > ?1 AND id <= ?2 AND state <> 'w'
                     AND subject NOT IN (SELECT value FROM json_each(?3))
                 ORDER BY id LIMIT ?4",
            )?;
            let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
            let mut rows = select.query(params![after, to, except, limit])?;
            let mut batch = ParkedBatch {
                events: Vec::new(),
                next: stretch_end,
            };
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                let event = event(row)?;
                bytes += event.payload.len();
                batch.events.push(event);
                if batch.events.len() >= query.limit || bytes > query.max_bytes {
                    batch.next = batch.events.last().map(|event| event.id);
                    break;
                }
            }
            let mut mark = transaction.prepare_cached(
                "UPDATE event SET attempted_after = ?2 WHERE id = ?1 AND attempted_after IS NULL",
            )?;
            for event in &batch.events {
                mark.execute(params![event.id.to_string(), sequence])?;
            }
            Ok(batch)
        })
    }

    /// Runs a transaction that may exceed the spool's limit by [`RESERVE_PAGES`].
    fn with_reserve<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let bound = self.max_pages();
        self.limit_pages(bound + RESERVE_PAGES)?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let changed = transaction.and_then(|transaction| {
            let changed = change(&transaction)?;
            transaction.commit()?;
            Ok(changed)
        });
        self.limit_pages(bound)?;
        changed
    }
}

/// Counts the parked events in the whole file, by reason.
pub(super) fn count(connection: &rusqlite::Connection) -> rusqlite::Result<ParkedCounts> {
    let mut counts = ParkedCounts::default();
    let mut select = connection
        .prepare("SELECT state, COUNT(*) FROM event WHERE state <> 'w' GROUP BY state")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(reason) = reason(row, 0)? {
            counts.0[reason.index()] += row.get::<_, usize>(1)?;
        }
    }
    Ok(counts)
}

/// Reads a row's `state`: the reason why the event is parked, or `None` if it waits.
pub(super) fn reason(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<ParkReason>> {
    let state = row.get_ref(column)?.as_str()?;
    let mut all = ParkReason::iter();
    Ok(match state {
        WAITING => None,
        // A reason of a later version also means that the event is parked.
        _ => Some(
            all.find(|reason| reason.letter() == state)
                .unwrap_or(ParkReason::Refused),
        ),
    })
}

/// Returns the `state` of an event that is parked for this reason or, if `None`, waits.
pub(super) fn state(parked: Option<ParkReason>) -> &'static str {
    parked.map_or(WAITING, ParkReason::letter)
}
