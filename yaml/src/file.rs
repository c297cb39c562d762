//! Reads files from disk, up to a maximum size.

use std::{io::ErrorKind, path::Path};

use importguard_runtime::{read_file, text};

use crate::diagnostic::{Diagnostic, Diagnostics, Span};

/// A kind of file: its maximum size, and the remedies in its errors.
pub struct FileKind {
    /// The maximum size.
    pub max_bytes: u64,
    /// The remedy if there is no such file.
    pub if_missing: &'static str,
    /// The remedy if the file is larger.
    pub if_larger: &'static str,
}

/// Why a file cannot be read.
#[derive(Clone, Debug)]
pub struct FileError {
    /// The reason, as a predicate such as "cannot be read".
    pub reason: String,
    /// How to correct it.
    pub remedy: &'static str,
}

impl FileKind {
    /// Reads a text file, with its byte order mark if it has one. `what` is the file in errors.
    ///
    /// # Errors
    /// If the file cannot be read or is not UTF-8 text.
    pub fn read_text(&self, path: &Path, what: &str) -> Result<String, Diagnostics> {
        let name = || path.display().to_string().into();
        let bytes = self.read(path).map_err(|FileError { reason, remedy }| {
            Diagnostics::one(Diagnostic::of_file(
                name(),
                format!("{what} {reason}"),
                remedy,
            ))
        })?;
        text::decode(&bytes).map_err(|error| {
            let span = Span {
                line: error.line,
                column: error.column,
                width: 1,
            };
            let (message, remedy) = (error.kind.message(), error.kind.remedy());
            Diagnostics::one(Diagnostic::at(name(), span, "", message, remedy))
        })?;
        // Nothing is lost: the bytes are valid UTF-8.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If the file cannot be read, is too large, or is not a regular file.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        read_file(path, self.max_bytes).map_err(|error| {
            let name = path.display();
            let unusable = || format!("cannot be read: {name} {error}");
            let unreadable = || format!("cannot be read from {name}: {error}");
            let (reason, remedy) = match error.kind() {
                ErrorKind::IsADirectory => (unusable(), "name a file in it"),
                ErrorKind::InvalidInput => (unusable(), "name a regular file"),
                ErrorKind::FileTooLarge => (format!("{error} ({name})"), self.if_larger),
                ErrorKind::NotFound => (unreadable(), self.if_missing),
                ErrorKind::PermissionDenied => (
                    unreadable(),
                    "grant read permission to the user that importguard runs as",
                ),
                _ => (unreadable(), "check the file and its disk"),
            };
            FileError { reason, remedy }
        })
    }
}
