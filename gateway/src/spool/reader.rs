//! Reads a spool from outside, for the operator's commands, while a gateway uses it or afterwards.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use importguard_core::EventId;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use serde::Serialize;

use strum::IntoEnumIterator;

use super::{
    SpoolSync,
    directory::{self, LOCK, PRIVATE},
    files::{DATABASE, LOG, with_ending},
    health::is_corrupt,
    parked, rescue,
    store::{self, SCHEMA_VERSION, Store},
};

/// How long to wait for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of events in one read, and the payload bytes after which it ends. A reader that keeps its transaction open keeps the
/// gateway from reusing its log.
const BATCH_EVENTS: u32 = 256;
const BATCH_BYTES: usize = 8 << 20;

/// Suffix of the file name of a copy until it is complete.
const PART: &str = ".part";

/// Why a spool cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SpoolReadError {
    /// There is no spool.
    #[error("no spool in {}: it has no {DATABASE}", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// A file cannot be opened or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The spool has a schema that this version does not know.
    #[error(
        "the spool {} has schema {found}, but this version of importguard needs schema {SCHEMA_VERSION}: publish its events with the version that wrote it (`importguard spool drain DIR`)",
        path.display()
    )]
    OtherSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
    },
    /// The directory is read-only and the log holds events. The spool cannot be read without its log, for which SQLite needs to write
    /// files.
    #[error(
        "cannot read the spool in {}, which is read-only, as its log holds events: copy the whole directory to where it can be written to",
        dir.display()
    )]
    ReadOnlyLog {
        /// The directory.
        dir: PathBuf,
    },
    /// The database is corrupt.
    #[error("the spool {} is corrupt: {why}; `importguard spool copy {} --to DIR` saves what can be read", path.display(), path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        why: String,
    },
    /// The database is so corrupt that none of its events can be found.
    #[error(
        "the spool {} is corrupt: {why}; no event can be read from it", path.display()
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        why: String,
    },
    /// There is a spool where a copy is to be written.
    #[error("{} has a spool already; name another directory", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// SQLite cannot read the database for another reason.
    #[error("cannot read the spool {}: {why}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        why: String,
    },
}

/// Summary of a spool.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoolSummary {
    /// Its directory.
    pub directory: PathBuf,
    /// Whether a process uses it: a gateway, or another command that empties it.
    pub in_use: bool,
    /// ID of that process, as the process itself sees it. Outside its container, the ID differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_use_by: Option<u32>,
    /// Version of its schema; 0 if it was just created.
    pub schema: i64,
    /// Number of events, parked ones included.
    pub events: usize,
    /// Number of events that wait for publication.
    pub waiting: usize,
    /// Number of parked events, which NATS refused while it accepted others, by reason.
    pub parked: BTreeMap<&'static str, usize>,
    /// When the oldest event was created.
    #[serde(skip)]
    pub oldest: Option<SystemTime>,
    /// Size of the part of the database that is in use, in bytes.
    pub used_bytes: u64,
    /// Size of the database and its log, in bytes.
    pub file_bytes: u64,
    /// Corrupt databases that were set aside in its directory.
    pub set_aside: Vec<PathBuf>,
}

/// A spool, opened for reading.
#[derive(Debug)]
pub struct SpoolReader {
    dir: PathBuf,
    database: PathBuf,
    connection: Connection,
    schema: i64,
}

impl SpoolReader {
    /// Opens the spool in the directory `dir`, or the database file `dir` such as one that was set aside, without changing it. Must not
    /// be called while this process uses the spool otherwise.
    ///
    /// # Errors
    /// If there is no spool, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, SpoolReadError> {
        let (dir, path) = match dir.parent() {
            // A bare file name has an empty parent.
            Some(parent) if dir.is_file() => (Path::new(".").join(parent), dir.to_owned()),
            _ => (dir.to_owned(), dir.join(DATABASE)),
        };
        // SQLite would not report the cause.
        let opened = File::open(&path).and_then(|file| file.metadata());
        let opened = opened.and_then(|metadata| match metadata.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(()),
        });
        opened.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SpoolReadError::Missing { dir: dir.clone() },
            _ => SpoolReadError::Io {
                path: path.clone(),
                source,
            },
        })?;
        let (connection, schema) = match connect(&path) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
                let log = fs::metadata(with_ending(&path, LOG));
                if log.is_ok_and(|log| log.len() > 0) {
                    return Err(SpoolReadError::ReadOnlyLog {
                        dir: dir.to_owned(),
                    });
                }
                connect_immutable(&path)
            }
            connected => connected,
        }
        // The header is needed to read anything else.
        .map_err(|source| lost(because(&path, source)))?;
        if !store::is_known(schema) {
            return Err(SpoolReadError::OtherSchema {
                path,
                found: schema,
            });
        }
        Ok(Self {
            dir: dir.to_owned(),
            database: path,
            connection,
            schema,
        })
    }

    /// Reads the whole file to check that it is not corrupt.
    ///
    /// # Errors
    /// If it is corrupt or cannot be read.
    pub fn check(&self) -> Result<(), SpoolReadError> {
        directory::quick_check(&self.connection).map_err(|source| self.because(source))
    }

    /// Returns a summary of its current contents.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn summary(&self) -> Result<SpoolSummary, SpoolReadError> {
        let failed = |source| SpoolReadError::Io {
            path: self.dir.clone(),
            source,
        };
        let holder = match self.database.ends_with(DATABASE) {
            true => holder(&self.dir).map_err(failed)?,
            // No process uses a database that was set aside.
            false => None,
        };
        let set_aside = directory::set_aside_files(&self.dir).map_err(failed)?;
        let contents = self.contents().map_err(|source| self.because(source))?;
        let log = with_ending(&self.database, LOG);
        let sizes = [&self.database, &log].map(fs::metadata);
        Ok(SpoolSummary {
            directory: self.dir.clone(),
            in_use: holder.is_some(),
            in_use_by: holder.flatten(),
            schema: self.schema,
            events: contents.events,
            waiting: contents.events - contents.parked.values().sum::<usize>(),
            parked: contents.parked,
            oldest: contents.oldest.map(made),
            used_bytes: contents.used_bytes,
            file_bytes: sizes.iter().flatten().map(fs::Metadata::len).sum(),
            set_aside,
        })
    }

    /// Calls `handle` with each event that is in the spool now, a CloudEvent as JSON, in the order of their IDs, parked ones included. Events
    /// that a gateway publishes in the meantime may be left out. No transaction is open while `handle` runs.
    ///
    /// # Errors
    /// If the spool cannot be read, or if `handle` returns an error.
    pub fn for_each<E: From<SpoolReadError>>(
        &self,
        mut handle: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.schema == 0 {
            return Ok(());
        }
        let last: Option<String> = self
            .connection
            .query_row("SELECT MAX(id) FROM event", [], |row| row.get(0))
            .map_err(|source| self.because(source))?;
        let Some(last) = last else {
            return Ok(());
        };
        let mut after = String::new();
        loop {
            let batch = self.batch(&after, &last);
            let batch = batch.map_err(|source| self.because(source))?;
            let Some((id, _)) = batch.last() else {
                return Ok(());
            };
            after.clone_from(id);
            for (_, payload) in &batch {
                handle(payload)?;
            }
        }
    }

    /// Copies the spool in its current state into the directory `to`, which is created if necessary and must not contain a spool. From a
    /// corrupt spool, copies what can be read. All events count as possibly published: a process that publishes the copy looks them up in
    /// NATS first. Returns whether all events could be read.
    ///
    /// # Errors
    /// If `to` already contains a spool, or a file cannot be read or written.
    pub fn copy_to(&self, to: &Path) -> Result<bool, SpoolReadError> {
        let path = to.join(DATABASE);
        let part = with_ending(&path, PART);
        let failed = |source| SpoolReadError::Io {
            path: path.clone(),
            source,
        };
        directory::create_dir(to).map_err(failed)?;
        if path.exists() {
            return Err(SpoolReadError::Exists { dir: to.to_owned() });
        }
        // SQLite accepts an empty file, but would create one that other users can read.
        let create = || {
            File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(PRIVATE)
                .open(&part)
        };
        create().map_err(failed)?;
        let is_complete = match self.copy_into(&part) {
            Err(error) if is_corrupt(&error) && self.schema != 0 => {
                create().map_err(failed)?;
                self.rescue_into(&part)
            }
            copied => copied.map(|()| true),
        };
        let is_complete = is_complete.map_err(|source| match is_corrupt(&source) {
            true => lost(self.because(source)),
            false => because(&part, source),
        })?;
        File::open(&part)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&part, &path))
            .and_then(|()| directory::sync_dir(to))
            .map_err(failed)?;
        Ok(is_complete)
    }

    fn copy_into(&self, path: &Path) -> rusqlite::Result<()> {
        let name = path.as_os_str().to_string_lossy();
        self.connection.execute("VACUUM INTO ?1", [name])?;
        match self.schema {
            0 => Ok(()),
            _ => mark(&Connection::open(path)?),
        }
    }

    /// Copies what can be read into a new database. Returns whether all events could be read.
    fn rescue_into(&self, path: &Path) -> rusqlite::Result<bool> {
        let mut copy = Store::new(Connection::open(path)?, SpoolSync::Full)?;
        let is_complete = rescue::copy(&self.connection, &mut copy.connection)?;
        mark(&copy.connection)?;
        Ok(is_complete)
    }

    fn contents(&self) -> rusqlite::Result<Found> {
        // Use one transaction, so that the figures are consistent.
        let transaction = self.connection.unchecked_transaction()?;
        let mut found = Found {
            used_bytes: store::used_bytes(&transaction)?,
            ..Found::default()
        };
        if self.schema == 0 {
            return Ok(found);
        }
        found.events = transaction.query_row("SELECT COUNT(*) FROM event", [], |row| row.get(0))?;
        found.oldest = transaction
            .query_row("SELECT id FROM event ORDER BY id LIMIT 1", [], |row| {
                store::id(row, 0)
            })
            .optional()?;
        let counts = parked::count(&transaction)?;
        let counts =
            parked::ParkReason::iter().map(|reason| (reason.into_str(), counts.of(reason)));
        found.parked = counts
            .into_iter()
            .filter(|(_, events)| *events > 0)
            .collect();
        Ok(found)
    }

    /// Returns the IDs and payloads of the next events.
    fn batch(&self, after: &str, last: &str) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
        let mut select = self.connection.prepare_cached(
            "SELECT id, payload FROM event WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = select.query(params![after, last, BATCH_EVENTS])?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let payload: Vec<u8> = row.get(1)?;
            bytes += payload.len();
            batch.push((row.get(0)?, payload));
            if bytes > BATCH_BYTES {
                break;
            }
        }
        Ok(batch)
    }

    fn because(&self, source: rusqlite::Error) -> SpoolReadError {
        because(&self.database, source)
    }
}

/// Marks all events as possibly published, by the process that has the original.
fn mark(copy: &Connection) -> rusqlite::Result<()> {
    copy.execute("UPDATE event SET attempted_after = 0", [])
        .map(drop)
}

/// The figures of a summary that come from the database.
#[derive(Default)]
struct Found {
    events: usize,
    parked: BTreeMap<&'static str, usize>,
    oldest: Option<EventId>,
    used_bytes: u64,
}

fn connect(path: &Path) -> rusqlite::Result<(Connection, i64)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let schema = store::version(&connection)?;
    Ok((connection, schema))
}

/// Opens a database in a read-only directory, beside which there is no log.
fn connect_immutable(path: &Path) -> rusqlite::Result<(Connection, i64)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let escaped = path
        .to_string_lossy()
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let connection = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)?;
    let schema = store::version(&connection)?;
    Ok((connection, schema))
}

fn because(path: &Path, source: rusqlite::Error) -> SpoolReadError {
    let (path, why) = (path.to_owned(), source.to_string());
    match is_corrupt(&source) {
        true => SpoolReadError::Corrupt { path, why },
        false => SpoolReadError::Sqlite { path, why },
    }
}

/// The error where what can be read of a corrupt database is nothing.
fn lost(error: SpoolReadError) -> SpoolReadError {
    match error {
        SpoolReadError::Corrupt { path, why } => SpoolReadError::Lost { path, why },
        error => error,
    }
}

/// Returns the process that uses the spool in `dir`, if any, with its ID if that is known.
fn holder(dir: &Path) -> io::Result<Option<Option<u32>>> {
    let mut file = match File::open(dir.join(LOCK)) {
        // A copy has no lock file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    // Use a shared lock, so that readers do not see each other; a gateway that starts at this moment tries again.
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            Ok(Some(pid.trim().parse().ok()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn made(id: EventId) -> SystemTime {
    let since = u64::try_from(id.unix_ms()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(since)
}
