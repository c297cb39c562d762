//! The spool's directory: only one process at a time uses it, and only a valid database is opened.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, ffi};
use time::OffsetDateTime;

use super::{
    SpoolSync,
    files::{COMPANIONS, DATABASE, Files, InUse, LOG, with_ending},
    health::{Fault, is_corrupt},
    store::{self, SCHEMA_VERSION, Store},
};

pub(super) const LOCK: &str = "spool.lock";

/// Delay between attempts to lock the directory, and their number. The delay is longer than a check of who holds the lock takes (see
/// [`reader`](super::reader)); the number is how many such checks may follow each other.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: usize = 4;

/// File that is created and removed to check whether the directory is writable.
const PROBE: &str = "spool.probe";

/// Enough for a few events.
const PROBE_BYTES: usize = 64 << 10;

/// Free space on the disk below which no events are appended, because the drain needs it: SQLite writes to its log before it can delete
/// anything. A last group of 8 MiB is moved from the log into the database together with the log's 4 MiB, and deleting a batch of 8 MiB
/// writes as much to the log, each with its share of tree pages.
const RESERVE_BYTES: u64 = 32 << 20;

/// The largest share of a small disk that is reserved. What fits into one half can be deleted with the other.
const RESERVE_FRACTION: u64 = 2;

/// Prefix of the file name of a database that was set aside; [`ASIDE_ENDING`] is the suffix.
const ASIDE: &str = "spool.corrupt-";
const ASIDE_ENDING: &str = ".db";

/// File modes: only the process's user may read user IDs. SQLite gives its companion files the mode of the database.
pub(super) const PRIVATE: u32 = 0o600;
pub(super) const PRIVATE_DIR: u32 = 0o700;

/// Why the spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolOpenError {
    /// Another process uses it.
    #[error(
        "the spool in {} is held by another importguard{holder}: stop that one, or give each its own directory (IMPORTGUARD_SPOOL)",
        dir.display()
    )]
    Held {
        /// The directory.
        dir: PathBuf,
        /// ` (process 123)`, or empty if the process ID is unknown.
        holder: String,
    },
    /// The directory or a file in it cannot be used.
    #[error("can't use the spool directory {}: {source} (IMPORTGUARD_SPOOL names it)", dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file has a schema that this version does not know.
    #[error(
        "the spool {} has schema {found}, but this version of importguard needs schema {SCHEMA_VERSION}: publish its events with the version that wrote it (`importguard spool drain DIR`) and delete the file, or use another directory (IMPORTGUARD_SPOOL)",
        path.display()
    )]
    OtherSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
    },
    /// SQLite cannot open the file.
    #[error(
        "can't open the spool {}: {}; correct this, or use another directory (IMPORTGUARD_SPOOL)",
        path.display(), Fault::from(error)
    )]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's error. Not as the source: the message says what it means.
        error: rusqlite::Error,
    },
}

/// Exclusive use of a spool directory. Released when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    #[allow(dead_code, reason = "open as long as it is held")]
    file: File,
    in_use: InUse,
}

impl Lock {
    /// Returns an error if the lock file was deleted or replaced, so that another process could lock the directory.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.in_use.check()
    }
}

/// Location and limits of a spool.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub(super) dir: PathBuf,
    /// Maximum size of the database.
    pub(super) max_bytes: u64,
    pub(super) sync: SpoolSync,
}

impl Location {
    fn unusable(&self, source: io::Error) -> SpoolOpenError {
        SpoolOpenError::Unusable {
            dir: self.dir.clone(),
            source,
        }
    }

    /// Locks the directory, creating it if necessary, and opens the spool in it. Sets a corrupt database aside first.
    pub(super) fn open(&self) -> Result<(Lock, Store, Files), SpoolOpenError> {
        let lock = lock(&self.dir)?;
        let (store, files) = self.open_store()?;
        store
            .limit(self.max_bytes)
            .map(|store| (lock, store, files))
            .map_err(|error| SpoolOpenError::Sqlite {
                path: self.dir.join(DATABASE),
                error,
            })
    }

    /// Opens the spool in the directory, which must be locked, without a limit on its size. Sets a corrupt database aside first.
    pub(super) fn open_store(&self) -> Result<(Store, Files), SpoolOpenError> {
        let path = self.dir.join(DATABASE);
        let open = || {
            create(&self.dir, &path)?;
            open_sound(&path, self.sync)
        };
        let store = open()
            .or_else(|error| {
                let error = corruption(error)?;
                tracing::warn!(%error, "the spool looks corrupt: it is read again");
                read_all(&self.dir).map_err(|source| self.unusable(source))?;
                open()
            })
            .or_else(|error| {
                let error = corruption(error)?;
                tracing::error!(file = %path.display(), %error, "the spool is corrupt");
                set_aside(&self.dir)?;
                open()
            })?;
        let files = Files::in_use(&self.dir).map_err(|source| self.unusable(source))?;
        Ok((store, files))
    }
}

/// Returns an error if files in `dir` cannot be created or written.
pub(super) fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(PROBE);
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE)
        .open(&path)?
        .write_all(&[0; PROBE_BYTES])
        // `and` runs this even if the write failed: the file must not remain on a full disk.
        .and(fs::remove_file(path))
}

/// Returns an error if the disk of `dir` has less free space than the drain may need. The free pages of `store` count: they can take events
/// without new space.
pub(super) fn check_room(dir: &Path, store: &Store) -> Result<(), Fault> {
    // Where the file system does not know, SQLite finds out.
    let Ok(disk) = rustix::fs::statvfs(dir) else {
        return Ok(());
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let size = disk.f_blocks.saturating_mul(disk.f_frsize);
    let reserve = RESERVE_BYTES.min(size / RESERVE_FRACTION);
    if free >= reserve || free + store.free_bytes()? >= reserve {
        return Ok(());
    }
    Err(Fault::DiskFull(format!(
        "{free} bytes are free, and publishing the spool may need {reserve}"
    )))
}

/// Returns the corrupt databases that were set aside in the directory `dir` and still exist.
///
/// # Errors
/// If the directory cannot be read.
pub fn set_aside_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(ASIDE) && name.ends_with(ASIDE_ENDING) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Locks `dir`, creating it if necessary.
pub(super) fn lock(dir: &Path) -> Result<Lock, SpoolOpenError> {
    let unusable = |source| SpoolOpenError::Unusable {
        dir: dir.to_owned(),
        source,
    };
    private_dir(dir).map_err(unusable)?;
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(dir.join(LOCK))
        .map_err(|error| unusable(named(LOCK, &error)))?;
    let mut locked = file.try_lock();
    for _ in 0..LOOKS {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(LOOK);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {
            // For the error message of a second process; the lock itself does not need it.
            let named = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| write!(file, "{}", std::process::id()));
            if let Err(error) = named {
                tracing::debug!(%error, "can't write the process id into the spool's lock file");
            }
            let metadata = file.metadata().map_err(unusable)?;
            let in_use = InUse::new(dir.join(LOCK), &metadata);
            Ok(Lock { file, in_use })
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

/// Makes an existing directory private if it contains only spool files, or creates it.
fn private_dir(dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return create_dir(dir);
    }
    let mut entries = fs::read_dir(dir)?;
    let is_shared = entries.any(|entry| {
        entry.is_ok_and(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"spool."))
    });
    if !is_shared {
        make_private(dir, PRIVATE_DIR);
    }
    Ok(())
}

/// Creates the directory if it is missing, with its parents, and syncs their entries to disk.
pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
    let missing = dir.ancestors().take_while(|dir| !dir.exists());
    let missing: Vec<_> = missing.filter(|dir| !dir.as_os_str().is_empty()).collect();
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(dir)?;
    for created in missing {
        if let Some(parent) = created.canonicalize()?.parent() {
            sync_dir(parent)?;
        }
    }
    Ok(())
}

/// The error with the name of the file in the directory.
fn named(file: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{file}: {error}"))
}

/// Creates the database file with a private mode, because SQLite would leave the mode to the process's umask. Syncs its directory entry;
/// SQLite syncs that of its log.
fn create(dir: &Path, path: &Path) -> Result<(), SpoolOpenError> {
    let create = || {
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(path)
            .map_err(|error| named(DATABASE, &error))?;
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

/// Removes access by other users. If that is refused, as on a volume with another owner, the mode stays unchanged.
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

/// Syncs a directory: until then, a power cut can undo the creation or renaming of a file in it. Some file systems cannot sync a
/// directory, and a parent may not be readable; these are left to the operating system.
///
/// # Errors
/// If the disk fails.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
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

/// Returns SQLite's error if it means that the database is corrupt; returns any other error as `Err`.
fn corruption(error: SpoolOpenError) -> Result<rusqlite::Error, SpoolOpenError> {
    match error {
        SpoolOpenError::Sqlite { error, .. } if is_corrupt(&error) => Ok(error),
        error => Err(error),
    }
}

/// Reads the database and its log in `dir` to the end. SQLite takes a read error for corruption, so a database counts as corrupt only if
/// it is found so again after this succeeded.
pub(super) fn read_all(dir: &Path) -> io::Result<()> {
    ["", LOG].into_iter().try_for_each(|ending| {
        let name = format!("{DATABASE}{ending}");
        read_to_end(&dir.join(&name)).map_err(|error| named(&name, &error))
    })
}

/// Reads an existing file page by page, as SQLite does.
fn read_to_end(path: &Path) -> io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let (mut page, mut offset) = ([0; 4096], 0);
    loop {
        match file.read_at(&mut page, offset)? {
            0 => return Ok(()),
            read => offset += read as u64,
        }
    }
}

/// Opens the database and checks it.
fn open_sound(path: &Path, sync: SpoolSync) -> Result<Store, SpoolOpenError> {
    let opened = Connection::open(path).and_then(|connection| {
        let version = store::version(&connection)?;
        if !store::is_known(version) {
            return Ok(Err(version));
        }
        quick_check(&connection)?;
        Store::new(connection, sync).map(Ok)
    });
    let path = path.to_owned();
    match opened {
        Ok(Ok(store)) => Ok(store),
        Ok(Err(found)) => Err(SpoolOpenError::OtherSchema { path, found }),
        Err(error) => Err(SpoolOpenError::Sqlite { path, error }),
    }
}

/// Checks the whole database in `dir` as it is on disk, even while it is in use.
pub(super) fn check_content(dir: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(dir.join(DATABASE), flags)?;
    if store::version(&connection)? == 0 {
        return Err(corrupt("nothing is left of it"));
    }
    quick_check(&connection)
}

pub(super) fn quick_check(connection: &Connection) -> rusqlite::Result<()> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    match verdict.as_str() {
        "ok" => Ok(()),
        verdict => {
            // A page that could not be read: the code says why.
            let code = verdict.split_once("error code=");
            let code = code.and_then(|(_, code)| code.trim().parse().ok());
            Err(failure(code.unwrap_or(ffi::SQLITE_CORRUPT), verdict))
        }
    }
}

pub(super) fn corrupt(why: &str) -> rusqlite::Error {
    failure(ffi::SQLITE_CORRUPT, why)
}

fn failure(code: i32, why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(why.to_owned()))
}

/// Renames the database and its companion files, so that nothing is lost that SQLite's `.recover` could read.
pub(super) fn set_aside(dir: &Path) -> Result<(), SpoolOpenError> {
    let path = dir.join(DATABASE);
    let now = OffsetDateTime::now_utc();
    let time = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second(),
    );
    // Do not overwrite one that was set aside in the same second.
    let mut aside = dir.join(format!("{ASIDE}{time}Z{ASIDE_ENDING}"));
    for number in 2.. {
        if !aside.exists() {
            break;
        }
        aside = dir.join(format!("{ASIDE}{time}Z-{number}{ASIDE_ENDING}"));
    }
    let rename =
        |ending: &str| match fs::rename(with_ending(&path, ending), with_ending(&aside, ending)) {
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
        "the corrupt spool was set aside and a new one started: events in it were answered, and may not be published; \
         `importguard spool copy FILE --to DIR` saves what can be read, and `importguard spool drain DIR` publishes it"
    );
    Ok(())
}
