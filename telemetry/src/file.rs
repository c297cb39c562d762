//! Reads files of a limited size.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::Path,
};

/// Reads a file of up to `max_bytes`.
///
/// # Errors
/// If it cannot be read, is a directory ([`ErrorKind::IsADirectory`]) or otherwise not a regular file ([`ErrorKind::InvalidInput`]), or
/// is larger ([`ErrorKind::FileTooLarge`]).
pub fn read_file(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let error = |kind, text: &str| Err(io::Error::new(kind, text));
    // A pipe would block without a writer; a device may be endless.
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return error(ErrorKind::IsADirectory, "is a directory");
    }
    if !metadata.is_file() {
        return error(ErrorKind::InvalidInput, "is not a regular file");
    }
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(max_bytes.saturating_add(1));
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        let text = format!("has more than {max_bytes} bytes");
        return error(ErrorKind::FileTooLarge, &text);
    }
    Ok(bytes)
}
