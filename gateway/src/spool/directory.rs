//! The spool's directory: one process at a time, and only a sound file is taken into use.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode};
use time::OffsetDateTime;

use super::store::{self, SCHEMA_VERSION, SpoolSync, Store};

const DATABASE: &str = "spool.db";
const LOCK: &str = "spool.lock";

/// Only the owner of the process may read user IDs. SQLite's companions take after the database.
const PRIVATE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;

/// What SQLite keeps beside a database, under the same name with these endings.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// Why the spool can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolOpenError {
    /// Another process has it.
    #[error(
        "the spool in {} is held by another importguard{holder}: stop that one, or give each its own directory (IMPORTGUARD_SPOOL)",
        dir.display()
    )]
    Held {
        /// The directory.
        dir: PathBuf,
        /// ` (process 123)`, or nothing where that isn't known.
        holder: String,
    },
    /// The directory or a file in it can't be used.
    #[error("can't use the spool directory {}: {source} (IMPORTGUARD_SPOOL names it)", dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file has a schema that this version doesn't know.
    #[error(
        "the spool {} was written by a newer importguard (schema {found}, this one knows {SCHEMA_VERSION}): run that version until it is drained, or use another directory (IMPORTGUARD_SPOOL)",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
    },
    /// SQLite refuses the file, though it isn't corrupt.
    #[error("can't open the spool {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
}

/// The right to use a spool directory; given back when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "open as long as it is held")] File);

/// Locks `dir`, creating it if need be, and opens the spool in it. A corrupt file is set aside first.
pub(super) fn open(
    dir: &Path,
    max_bytes: u64,
    sync: SpoolSync,
) -> Result<(Lock, Store), SpoolOpenError> {
    let lock = lock(dir)?;
    let path = dir.join(DATABASE);
    create(dir, &path)?;
    match open_sound(&path, max_bytes, sync)? {
        Some(store) => Ok((lock, store)),
        None => {
            set_aside(dir, &path)?;
            create(dir, &path)?;
            match open_sound(&path, max_bytes, sync)? {
                Some(store) => Ok((lock, store)),
                None => Err(SpoolOpenError::Unusable {
                    dir: dir.to_owned(),
                    source: std::io::Error::other("a new database in it is corrupt at once"),
                }),
            }
        }
    }
}

fn lock(dir: &Path) -> Result<Lock, SpoolOpenError> {
    let unusable = |source| SpoolOpenError::Unusable {
        dir: dir.to_owned(),
        source,
    };
    create_dir(dir).map_err(unusable)?;
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(dir.join(LOCK))
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {
            // For the message of the process that comes second; the lock itself doesn't need it.
            let named = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| write!(file, "{}", std::process::id()));
            if let Err(error) = named {
                tracing::debug!(%error, "can't write the process id into the spool's lock file");
            }
            Ok(Lock(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let holder = match file.read_to_string(&mut pid) {
                Ok(1..) => format!(" (process {pid})"),
                _ => String::new(),
            };
            Err(SpoolOpenError::Held {
                dir: dir.to_owned(),
                holder,
            })
        }
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// Creates the directory, whose entry is then on disk. One that was there is closed to others if nothing but a spool is in it.
fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.exists() {
        let mut entries = fs::read_dir(dir)?;
        let is_shared = entries.any(|entry| {
            entry.is_ok_and(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"spool."))
        });
        if !is_shared {
            make_private(dir, PRIVATE_DIR);
        }
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(dir)?;
    match dir.canonicalize()?.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Creates the database: SQLite would let the process's umask say who may read it. Its entry is on disk when this returns; SQLite
/// sees to that of its log.
fn create(dir: &Path, path: &Path) -> Result<(), SpoolOpenError> {
    let create = || {
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(path)?;
        let mut files = vec![dir.join(LOCK), path.to_owned()];
        files.extend(COMPANIONS.map(|ending| with_ending(path, ending)));
        for file in files.iter().filter(|file| file.exists()) {
            make_private(file, PRIVATE);
        }
        sync_dir(dir)
    };
    create().map_err(|source| SpoolOpenError::Unusable {
        dir: dir.to_owned(),
        source,
    })
}

/// Takes away what others may do. Where that is refused, as on a volume of another owner, it stays.
fn make_private(path: &Path, mode: u32) {
    let change = || {
        let is_private = fs::metadata(path)?.permissions().mode() & 0o077 == 0;
        if is_private {
            return Ok(());
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    if let Err(error) = change() {
        tracing::info!(%error, "others may be able to read {}", path.display());
    }
}

/// A created or renamed file can be gone after a power cut until its directory is on disk. Some file systems cannot sync one, and
/// a parent may not be readable: they are left to the operating system.
fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported
            ) =>
        {
            tracing::info!(%error, "{} cannot be synced to disk", dir.display());
            Ok(())
        }
        synced => synced,
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", path.display()))
}

/// Nothing if the file is corrupt.
fn open_sound(
    path: &Path,
    max_bytes: u64,
    sync: SpoolSync,
) -> Result<Option<Store>, SpoolOpenError> {
    let opened = Connection::open(path).and_then(|connection| {
        let version = store::version(&connection)?;
        if version > SCHEMA_VERSION {
            return Ok(Err(version));
        }
        let verdict: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(corrupt(&verdict));
        }
        Store::new(connection, max_bytes, sync).map(Ok)
    });
    match opened {
        Ok(Ok(store)) => Ok(Some(store)),
        Ok(Err(found)) => Err(SpoolOpenError::Newer {
            path: path.to_owned(),
            found,
        }),
        Err(source) => match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                tracing::error!(file = %path.display(), error = %source, "the spool is corrupt");
                Ok(None)
            }
            _ => Err(SpoolOpenError::Sqlite {
                path: path.to_owned(),
                source,
            }),
        },
    }
}

fn corrupt(verdict: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(verdict.to_owned()),
    )
}

/// Renames the database and its companions, so that nothing in them is lost for somebody with SQLite's `.recover`.
fn set_aside(dir: &Path, path: &Path) -> Result<(), SpoolOpenError> {
    let now = OffsetDateTime::now_utc();
    let aside = dir.join(format!(
        "spool.corrupt-{:04}{:02}{:02}T{:02}{:02}{:02}Z.db",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second(),
    ));
    let rename =
        |ending: &str| match fs::rename(with_ending(path, ending), with_ending(&aside, ending)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    COMPANIONS
        .into_iter()
        .chain([""])
        .try_for_each(rename)
        .and_then(|()| sync_dir(dir))
        .map_err(|source| SpoolOpenError::Unusable {
            dir: dir.to_owned(),
            source,
        })?;
    tracing::error!(
        kept_as = %aside.display(),
        "the corrupt spool was set aside and a new one started: events in it were answered but not published; \
         `sqlite3 FILE .recover` gets them out"
    );
    Ok(())
}
