//! Copies the events of a spool whose files were deleted, moved or set aside into the spool that replaces it.

use importguard_core::EventId;
use rusqlite::{Connection, Rows, Statement, params_from_iter, types::Value};

use super::{
    health::{has_invalid_value, is_corrupt},
    store::Store,
};

/// Rows per transaction, as many as in a batch of the drain.
const ROWS: usize = 256;

/// Result of a rescue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rescued {
    /// Number of events in the new spool, whether copied or already present.
    pub(super) events: usize,
    /// `false` if an event or the drain's mark could not be read, because its page is corrupt or one of its values is invalid.
    pub(super) is_complete: bool,
}

impl Rescued {
    pub(super) fn all(events: usize) -> Self {
        Self {
            events,
            is_complete: true,
        }
    }
}

/// Copies the events of `old` into `new`, except those already there: it can be repeated after an error.
///
/// # Errors
/// If `new` cannot be written, or `old` cannot be read for a reason other than corruption.
pub(super) fn rescue(old: &Store, new: &mut Store) -> rusqlite::Result<Rescued> {
    let is_complete = copy(&old.connection, &mut new.connection)?;
    new.count()?;
    Ok(Rescued {
        events: new.contents.events,
        is_complete,
    })
}

/// Like [`rescue`], between connections. Returns whether all events could be read.
pub(super) fn copy(old: &Connection, new: &mut Connection) -> rusqlite::Result<bool> {
    let mut is_complete = copy_drain(old, new)?;
    // Read from both ends, each up to the first corrupt page.
    for order in ["ASC", "DESC"] {
        if copy_events(old, new, order)? {
            break;
        }
        is_complete = false;
    }
    Ok(is_complete)
}

/// Copies the mark of an earlier drain, so that events that it may have published are looked up in NATS first. Returns whether the mark
/// could be read.
fn copy_drain(old: &Connection, new: &Connection) -> rusqlite::Result<bool> {
    let drain = old.query_row("SELECT up_to, after FROM drain", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    });
    let (up_to, after) = match drain {
        Ok(drain) => drain,
        Err(error) if is_corrupt(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    new.execute(
        "UPDATE drain SET after = CASE WHEN up_to = '' THEN ?2 WHEN ?1 = '' THEN after ELSE MIN(after, ?2) END,
                          up_to = MAX(up_to, ?1)",
        (up_to, after),
    )?;
    Ok(true)
}

/// Copies the events in this order of their row IDs. Returns whether all could be read.
fn copy_events(old: &Connection, new: &mut Connection, order: &str) -> rusqlite::Result<bool> {
    let mut select = match old.prepare(&format!("SELECT * FROM event ORDER BY rowid {order}")) {
        Err(error) if is_corrupt(&error) => return Ok(false),
        select => select?,
    };
    // The new table assigns its own row IDs.
    let names = select.column_names().filter(|name| *name != "rowid");
    let names: Vec<_> = names.map(str::to_owned).collect();
    let insert = format!(
        "INSERT OR IGNORE INTO event ({}) VALUES ({})",
        names.join(", "),
        vec!["?"; names.len()].join(", ")
    );
    let mut rows = select.query([])?;
    let mut is_complete = true;
    loop {
        let transaction = new.transaction()?;
        let read = {
            let mut insert = transaction.prepare_cached(&insert)?;
            copy_some(&mut rows, &names, &mut insert)
        };
        // Keep the rows that were read before an error.
        transaction.commit()?;
        match read {
            Ok(Some(all_valid)) => is_complete &= all_valid,
            Ok(None) => return Ok(is_complete),
            Err(error) if is_corrupt(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Copies up to [`ROWS`] rows, except those that the drain could not read because of an invalid value. Returns whether there were none of
/// these, or `None` at the end.
fn copy_some(
    rows: &mut Rows<'_>,
    names: &[String],
    insert: &mut Statement<'_>,
) -> rusqlite::Result<Option<bool>> {
    let mut all_valid = true;
    for number in 0..ROWS {
        let Some(row) = rows.next()? else {
            return Ok((number > 0).then_some(all_valid));
        };
        let values = names.iter().map(|name| row.get::<_, Value>(name.as_str()));
        let values = match values.collect::<rusqlite::Result<Vec<_>>>() {
            Err(error) if has_invalid_value(&error) => {
                all_valid = false;
                continue;
            }
            values => values?,
        };
        if names
            .iter()
            .zip(&values)
            .all(|(name, value)| is_valid(name, value))
        {
            insert.execute(params_from_iter(values))?;
        } else {
            all_valid = false;
        }
    }
    Ok(Some(all_valid))
}

/// Returns whether the drain can read `value` in the column `name`.
fn is_valid(name: &str, value: &Value) -> bool {
    match (name, value) {
        ("id", Value::Text(id)) => EventId::parse(id).is_ok(),
        ("id", _) => false,
        ("subject" | "operation_id" | "state", value) => matches!(value, Value::Text(_)),
        ("payload", value) => matches!(value, Value::Blob(_)),
        ("traceparent" | "tracestate" | "baggage", value) => {
            matches!(value, Value::Text(_) | Value::Null)
        }
        ("spooled_ms", value) => matches!(value, Value::Integer(_)),
        (_, value) => matches!(value, Value::Integer(_) | Value::Null),
    }
}
