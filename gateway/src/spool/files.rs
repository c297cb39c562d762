//! Whether the files that the spool has open are still those that the next start would find.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    directory::{COMPANIONS, DATABASE, LOG, with_ending},
    health::Fault,
    wal,
};

/// A file wherever it is moved to.
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

/// A file that is open, and where it was when it was opened.
#[derive(Debug)]
pub(super) struct InUse {
    path: PathBuf,
    identity: Identity,
}

impl InUse {
    /// `opened` is at `path`.
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

    /// An error if there is none or another one at its path: what is written to it would be found by nobody.
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

/// The files in use.
#[derive(Debug)]
pub(super) struct Files {
    database: InUse,
    companions: Vec<InUse>,
    /// As this process left the database and its log.
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
    /// Those in `dir`, just opened.
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

    /// An error if one of them was deleted, moved or replaced.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.database.check()?;
        self.companions.iter().try_for_each(InUse::check)
    }

    /// Removes those that came with the database, which is gone. They stay usable for who has them open.
    pub(super) fn remove_companions(&self) -> io::Result<()> {
        for companion in &self.companions {
            if companion.is_there()? {
                fs::remove_file(&companion.path)?;
            }
        }
        Ok(())
    }

    /// Whether the database is still the one that is open, whatever became of its companions.
    pub(super) fn is_database_there(&self) -> io::Result<bool> {
        self.database.is_there()
    }

    /// Whether another program has written to the database since [`set_written`](Self::set_written).
    pub(super) fn is_overwritten(&self) -> io::Result<bool> {
        Ok(written(&self.database)?.is_some_and(|stamp| stamp != self.written))
    }

    /// Whether another program has written to the log since [`set_logged`](Self::set_logged), and not only emptied it.
    pub(super) fn is_log_overwritten(&self) -> io::Result<bool> {
        let stamp = written(&self.companions[0])?;
        Ok(stamp.is_some_and(|stamp| stamp != self.logged && stamp.len > 0))
    }

    /// Whether the first `pages` of the log are as they were written.
    pub(super) fn is_log_intact(&self, pages: usize) -> io::Result<bool> {
        wal::is_intact(&self.companions[0].path, pages)
    }

    /// Takes the database as it is now for what this process has written.
    pub(super) fn set_written(&mut self) -> io::Result<()> {
        if let Some(stamp) = written(&self.database)? {
            self.written = stamp;
        }
        self.set_logged()
    }

    /// Takes the log as it is now for what this process has written.
    pub(super) fn set_logged(&mut self) -> io::Result<()> {
        if let Some(stamp) = written(&self.companions[0])? {
            self.logged = stamp;
        }
        Ok(())
    }
}

/// Nothing if `file` is not there any more.
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
