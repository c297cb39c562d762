//! Health of the spool, as its thread last found it.

use std::{
    io,
    path::PathBuf,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use rusqlite::{ErrorCode, ffi};
use serde::Serialize;
use strum::{EnumCount, EnumIter, IntoEnumIterator, IntoStaticStr};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{SpoolOpenError, rescue::Rescued};

/// Whether events can be recorded in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, IntoStaticStr, EnumIter)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum SpoolState {
    /// Events are recorded.
    #[default]
    Healthy,
    /// Events are recorded, but the spool could not repair itself or could not release disk space.
    Degraded,
    /// Events cannot be recorded: while NATS does not accept events, they are unrecordable.
    Broken,
}

impl SpoolState {
    /// The state's name in metrics.
    pub fn into_str(self) -> &'static str {
        self.into()
    }
}

/// The spool's status, for `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoolStatus {
    /// Whether events can be recorded in it.
    pub state: SpoolState,
    /// The last error, even if the spool has recovered since; absent if there was none since the process started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that error was detected, in RFC 3339 format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_time: Option<String>,
}

/// A fault of the spool while it is in use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{} was deleted or replaced while in use", .0.display())]
    Moved(PathBuf),
    #[error("the spool is corrupt: {0}")]
    Corrupt(String),
    #[error("the disk is full (or a quota is reached): {0}")]
    DiskFull(String),
    #[error("the spool is read-only: {0}")]
    ReadOnly(String),
    /// SQLite does not say whether the disk or a limit is the cause.
    #[error("I/O error on the spool's disk, or a limit on file sizes (ulimit -f) is reached: {0}")]
    Io(String),
    #[error("another program has locked the spool's database: {0}")]
    Locked(String),
    /// Another gateway uses the directory now, or it cannot be opened.
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
        Self::from(&error)
    }
}

impl From<&rusqlite::Error> for Fault {
    fn from(error: &rusqlite::Error) -> Self {
        if has_invalid_value(error) {
            return Self::Corrupt(error.to_string());
        }
        let Some(sqlite) = error.sqlite_error() else {
            return Self::Other(error.to_string());
        };
        match sqlite.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Self::Corrupt(error.to_string())
            }
            ErrorCode::DiskFull => Self::DiskFull(error.to_string()),
            ErrorCode::ReadOnly => Self::ReadOnly(error.to_string()),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Locked(error.to_string()),
            ErrorCode::SystemIoFailure => {
                let code = sqlite.extended_code;
                let why = format!("{error} (SQLite's code {code})");
                match code {
                    // The index of the log cannot grow; it is only some KiB.
                    ffi::SQLITE_IOERR_SHMSIZE => Self::DiskFull(why),
                    // The file is shorter than it was.
                    ffi::SQLITE_IOERR_SHORT_READ => Self::Corrupt(why),
                    _ => Self::Io(why),
                }
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Returns whether the cause is the content of the file. SQLite reports a failed read as corruption too: see
/// [`read_all`](super::directory::read_all).
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(Fault::from(error), Fault::Corrupt(_))
}

/// Returns whether a row has a value that no spool writes.
pub(super) fn has_invalid_value(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    )
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
            SpoolOpenError::Sqlite { error, .. } => error.into(),
            error => Self::Open(error),
        }
    }
}

/// Kind of a fault, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, EnumCount, EnumIter)]
#[strum(serialize_all = "camelCase", const_into_str)]
enum Kind {
    Moved,
    Corrupt,
    DiskFull,
    ReadOnly,
    Io,
    Locked,
    Other,
}

/// Health of the spool. The spool's thread updates it; any thread may read it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    status: Mutex<SpoolStatus>,
    /// Number of faults, indexed by [`Kind`].
    faults: [AtomicU64; Kind::COUNT],
    set_aside: AtomicUsize,
}

impl Health {
    pub(crate) fn status(&self) -> SpoolStatus {
        self.status.lock().clone()
    }

    pub(crate) fn state(&self) -> SpoolState {
        self.status.lock().state
    }

    /// Returns the number of faults since the process started, by kind.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.faults.iter();
        Kind::iter()
            .zip(counts)
            .map(|(kind, count)| (kind.into_str(), count.load(Ordering::Relaxed)))
    }

    /// Returns the number of corrupt files that were set aside and are still in the directory.
    pub(crate) fn set_aside(&self) -> usize {
        self.set_aside.load(Ordering::Relaxed)
    }

    pub(super) fn set_set_aside(&self, files: usize) {
        self.set_aside.store(files, Ordering::Relaxed);
    }

    /// Records that events can be recorded and nothing is left to repair.
    pub(super) fn recovered(&self) {
        let mut status = self.status.lock();
        if status.state != SpoolState::Healthy {
            status.state = SpoolState::Healthy;
            tracing::info!("the spool works again");
        }
    }

    /// Records that `fault` occurred and was repaired.
    pub(super) fn repaired(
        &self,
        fault: &Fault,
        Rescued {
            events,
            is_complete,
        }: Rescued,
    ) {
        let mut status = self.status.lock();
        // A spool that was degraded or broken has been counted, for this fault or another one.
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

    /// Records a fault despite which events can be recorded.
    pub(super) fn degraded(&self, fault: &Fault) {
        if self.enter(SpoolState::Degraded, fault) {
            tracing::warn!("{fault}: events are still recorded in the spool");
        }
    }

    /// Records a fault because of which no event can be recorded.
    pub(super) fn broken(&self, fault: &Fault) {
        if self.enter(SpoolState::Broken, fault) {
            tracing::error!(
                "{fault}: until that is over, events are recorded only while NATS accepts them \
                 (IMPORTGUARD_ON_UNRECORDABLE)"
            );
        }
    }

    /// Enters `state`. Returns whether this changes the state.
    fn enter(&self, state: SpoolState, fault: &Fault) -> bool {
        let mut status = self.status.lock();
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
    // The reason why it is not open is already recorded.
    if matches!(fault, Fault::NotOpen) && status.last_error.is_some() {
        return;
    }
    status.last_error = Some(fault.to_string());
    status.last_error_time = OffsetDateTime::now_utc().format(&Rfc3339).ok();
}
