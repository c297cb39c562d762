//! Reads files from disk, up to a maximum size.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::Path,
};

use importguard_runtime::text;

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
        let failed = |error: io::Error| FileError {
            remedy: match error.kind() {
                ErrorKind::NotFound => self.if_missing,
                ErrorKind::PermissionDenied => {
                    "grant read permission to the user that importguard runs as"
                }
                _ => "check the file and its disk",
            },
            reason: format!("cannot be read from {}: {error}", path.display()),
        };
        // A pipe would block without a writer; a device may be endless.
        let metadata = fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            let (what, remedy) = match metadata.is_dir() {
                true => ("is a directory", "name a file in it"),
                false => ("is not a regular file", "name a regular file"),
            };
            return Err(FileError {
                reason: format!("cannot be read: {} {what}", path.display()),
                remedy,
            });
        }
        let max_bytes = self.max_bytes;
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        if bytes.len() as u64 > max_bytes {
            return Err(FileError {
                reason: format!("has more than {max_bytes} bytes ({})", path.display()),
                remedy: self.if_larger,
            });
        }
        Ok(bytes)
    }
}
