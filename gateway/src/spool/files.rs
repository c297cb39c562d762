//! Checks whether the files that the spool has open are those that the next start will find.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{health::Fault, wal};

pub(super) const DATABASE: &str = "spool.db";

/// Suffixes of the files that SQLite keeps beside a database: its log, and an index of the log.
pub(super) const COMPANIONS: [&str; 2] = [LOG, "-shm"];
pub(super) const LOG: &str = "-wal";

/// Identity of a file, independent of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// An open file and the path at which it was opened.
#[derive(Debug)]
pub(super) struct InUse {
    path: PathBuf,
    identity: Identity,
}

impl InUse {
    /// Tracks the file `opened`, which is at `path`.
    pub(super) fn new(path: PathBuf, opened: &Metadata) -> Self {
        Self {
            path,
            identity: opened.into(),
        }
    }

    fn at(path: PathBuf) -> io::Result<Self> {
        let metadata = fs::metadata(&path)?;
        Ok(Self::new(path, &metadata))
    }

    /// Returns an error if its path has no file or another one: data written to the open file would be lost.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match self.is_there()? {
            true => Ok(()),
            false => Err(Fault::Moved(self.path.clone())),
        }
    }

    fn is_there(&self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok(Identity::from(&metadata) == self.identity),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The spool's open files.
#[derive(Debug)]
pub(super) struct Files {
    database: InUse,
    companions: Vec<InUse>,
    /// State of the database and its log after this process's last write.
    written: Stamp,
    logged: Stamp,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    len: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self {
            modified: metadata.modified()?,
            len: metadata.len(),
        })
    }
}

impl Files {
    /// Records the files in `dir`, which were just opened.
    pub(super) fn in_use(dir: &Path) -> io::Result<Self> {
        let database = dir.join(DATABASE);
        let companions = COMPANIONS.map(|ending| InUse::at(with_ending(&database, ending)));
        Ok(Self {
            written: Stamp::of(&fs::metadata(&database)?)?,
            logged: Stamp::of(&fs::metadata(with_ending(&database, LOG))?)?,
            database: InUse::at(database)?,
            companions: companions.into_iter().collect::<io::Result<_>>()?,
        })
    }

    /// Returns an error if a file was deleted, moved or replaced.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.database.check()?;
        self.companions.iter().try_for_each(InUse::check)
    }

    /// Removes the companion files of the database, which is gone. Processes that have them open can still use them.
    pub(super) fn remove_companions(&self) -> io::Result<()> {
        for companion in &self.companions {
            if companion.is_there()? {
                fs::remove_file(&companion.path)?;
            }
        }
        Ok(())
    }

    /// Returns whether the database at its path is still the open one, regardless of its companion files.
    pub(super) fn is_database_there(&self) -> io::Result<bool> {
        self.database.is_there()
    }

    /// Returns whether another program has written to the database since [`set_written`](Self::set_written).
    pub(super) fn is_overwritten(&self) -> io::Result<bool> {
        Ok(written(&self.database)?.is_some_and(|stamp| stamp != self.written))
    }

    /// Returns whether another program has written to the log since [`set_logged`](Self::set_logged), other than emptying it.
    pub(super) fn is_log_overwritten(&self) -> io::Result<bool> {
        let stamp = written(&self.companions[0])?;
        Ok(stamp.is_some_and(|stamp| stamp != self.logged && stamp.len > 0))
    }

    /// Returns whether the first `pages` of the log are as they were written.
    pub(super) fn is_log_intact(&self, pages: usize) -> io::Result<bool> {
        wal::is_intact(&self.companions[0].path, pages)
    }

    /// Records the current state of the database and its log as written by this process.
    pub(super) fn set_written(&mut self) -> io::Result<()> {
        if let Some(stamp) = written(&self.database)? {
            self.written = stamp;
        }
        self.set_logged()
    }

    /// Records the current state of the log as written by this process.
    pub(super) fn set_logged(&mut self) -> io::Result<()> {
        if let Some(stamp) = written(&self.companions[0])? {
            self.logged = stamp;
        }
        Ok(())
    }
}

/// Returns the state of `file`, or `None` if it is no longer at its path.
fn written(file: &InUse) -> io::Result<Option<Stamp>> {
    match fs::metadata(&file.path) {
        Ok(metadata) if Identity::from(&metadata) == file.identity => {
            Stamp::of(&metadata).map(Some)
        }
        Ok(_) => Ok(None),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", path.display()))
}
