//! Whether the spool can be relied on, as its thread last found it.

use std::{
    io,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use rusqlite::ErrorCode;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{SpoolOpenError, lock, rescue::Rescued};

/// Whether events can be recorded in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SpoolState {
    /// Yes.
    #[default]
    Healthy,
    /// Yes, but it could not repair itself, or could not give disk space back.
    Degraded,
    /// No: while NATS does not accept events, they are unrecordable.
    Broken,
}

impl SpoolState {
    /// Every state, for metrics.
    pub(crate) const ALL: [Self; 3] = [Self::Healthy, Self::Degraded, Self::Broken];

    /// The state's name in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Broken => "broken",
        }
    }
}

/// The spool's status, for readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoolStatus {
    /// Whether events can be recorded in it.
    pub state: SpoolState,
    /// What was wrong with it last, even if it has recovered since; absent if nothing was since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was noticed, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_time: Option<String>,
}

/// What is wrong with the spool while it is in use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{} was deleted or replaced while in use", .0.display())]
    Moved(PathBuf),
    #[error("the spool is corrupt: {0}")]
    Corrupt(rusqlite::Error),
    #[error("the disk is full (or a quota is reached): {0}")]
    DiskFull(String),
    #[error("the spool is read-only: {0}")]
    ReadOnly(String),
    /// SQLite does not say whether it was the disk or a limit.
    #[error("I/O error on the spool's disk, or a limit on file sizes (ulimit -f) is reached: {0}")]
    Io(String),
    #[error("another program has locked the spool's database: {0}")]
    Locked(rusqlite::Error),
    /// The directory is another gateway's by now, or can't be opened.
    #[error(transparent)]
    Open(SpoolOpenError),
    #[error("the spool is not open")]
    NotOpen,
    #[error("{fault}, and that could not be repaired: {why}")]
    Unrepaired { fault: Box<Fault>, why: String },
    #[error("{0}")]
    Other(String),
}

impl Fault {
    fn kind(&self) -> Kind {
        match self {
            Self::Moved(_) => Kind::Moved,
            Self::Corrupt(_) => Kind::Corrupt,
            Self::DiskFull(_) => Kind::DiskFull,
            Self::ReadOnly(_) => Kind::ReadOnly,
            Self::Io(_) => Kind::Io,
            Self::Locked(_) => Kind::Locked,
            Self::Unrepaired { fault, .. } => fault.kind(),
            Self::Open(_) | Self::NotOpen | Self::Other(_) => Kind::Other,
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let Some(sqlite) = error.sqlite_error() else {
            return Self::Other(error.to_string());
        };
        match sqlite.code {
            _ if is_corrupt(&error) => Self::Corrupt(error),
            ErrorCode::DiskFull => Self::DiskFull(error.to_string()),
            ErrorCode::ReadOnly => Self::ReadOnly(error.to_string()),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Locked(error),
            ErrorCode::SystemIoFailure => {
                let code = sqlite.extended_code;
                Self::Io(format!("{error} (SQLite's code {code})"))
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Whether what is in the file, and not the disk, is the reason.
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        matches!(
            error.code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
        ) || matches!(
            error.extended_code,
            // The file is shorter than it was.
            rusqlite::ffi::SQLITE_IOERR_SHORT_READ | rusqlite::ffi::SQLITE_IOERR_CORRUPTFS
        )
    })
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull(error.to_string())
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly(error.to_string())
            }
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<SpoolOpenError> for Fault {
    fn from(error: SpoolOpenError) -> Self {
        match error {
            SpoolOpenError::Sqlite { source, .. } => source.into(),
            error => Self::Open(error),
        }
    }
}

/// What a fault counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Moved,
    Corrupt,
    DiskFull,
    ReadOnly,
    Io,
    Locked,
    Other,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Moved,
        Self::Corrupt,
        Self::DiskFull,
        Self::ReadOnly,
        Self::Io,
        Self::Locked,
        Self::Other,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Corrupt => "corrupt",
            Self::DiskFull => "diskFull",
            Self::ReadOnly => "readOnly",
            Self::Io => "io",
            Self::Locked => "locked",
            Self::Other => "other",
        }
    }
}

/// Kept current by the spool's thread and read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Health {
    status: Mutex<SpoolStatus>,
    /// By [`Kind`].
    faults: [AtomicU64; Kind::ALL.len()],
    set_aside: AtomicUsize,
}

impl Health {
    pub(crate) fn status(&self) -> SpoolStatus {
        lock(&self.status).clone()
    }

    pub(crate) fn state(&self) -> SpoolState {
        lock(&self.status).state
    }

    /// How many faults there were since the start, by their kind.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.faults.iter();
        Kind::ALL
            .iter()
            .zip(counts)
            .map(|(kind, count)| (kind.as_str(), count.load(Ordering::Relaxed)))
    }

    /// How many corrupt files were set aside and are still in the directory.
    pub(crate) fn set_aside(&self) -> usize {
        self.set_aside.load(Ordering::Relaxed)
    }

    pub(super) fn set_set_aside(&self, files: usize) {
        self.set_aside.store(files, Ordering::Relaxed);
    }

    /// Events are recorded, and nothing is left to repair.
    pub(super) fn recovered(&self) {
        let mut status = lock(&self.status);
        if status.state != SpoolState::Healthy {
            status.state = SpoolState::Healthy;
            tracing::info!("the spool works again");
        }
    }

    /// `fault` was there, and is repaired.
    pub(super) fn repaired(
        &self,
        fault: &Fault,
        Rescued {
            events,
            is_complete,
        }: Rescued,
    ) {
        let mut status = lock(&self.status);
        // Else it is counted already.
        if status.state == SpoolState::Healthy {
            self.count(fault);
        }
        note(&mut status, fault);
        status.state = SpoolState::Healthy;
        if is_complete {
            tracing::warn!(events, "{fault}: the spool was made anew, with all events");
        } else {
            tracing::error!(
                events,
                "{fault}: the spool was made anew, with those events that could be read"
            );
        }
    }

    /// Events can be recorded all the same.
    pub(super) fn degraded(&self, fault: &Fault) {
        if self.enter(SpoolState::Degraded, fault) {
            tracing::warn!("{fault}: events are still recorded in the spool");
        }
    }

    /// No event can be recorded.
    pub(super) fn broken(&self, fault: &Fault) {
        if self.enter(SpoolState::Broken, fault) {
            tracing::error!(
                "{fault}: until that is over, events are recorded only while NATS accepts them \
                 (IMPORTGUARD_ON_UNRECORDABLE)"
            );
        }
    }

    /// Returns whether the state is a new one.
    fn enter(&self, state: SpoolState, fault: &Fault) -> bool {
        let mut status = lock(&self.status);
        let entered = status.state != state;
        if entered {
            self.count(fault);
            status.state = state;
        }
        note(&mut status, fault);
        entered
    }

    fn count(&self, fault: &Fault) {
        self.faults[fault.kind() as usize].fetch_add(1, Ordering::Relaxed);
    }
}

fn note(status: &mut SpoolStatus, fault: &Fault) {
    // Why it is not open is known already.
    if matches!(fault, Fault::NotOpen) && status.last_error.is_some() {
        return;
    }
    status.last_error = Some(fault.to_string());
    status.last_error_time = OffsetDateTime::now_utc().format(&Rfc3339).ok();
}
