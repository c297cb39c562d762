//! Secrets: passwords, tokens and keys, from settings and from files.
//!
//! Neither `Debug` nor an error of this module prints any of them: [`SecretError`] has no field that could hold a byte of the content.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

use crate::text::{self, TextError, TextErrorKind, TextLine};

/// The largest file of secrets that is read: far more than the certificates of all public authorities.
const MAX_BYTES: u64 = 4 << 20;

/// A password, a token or a key of one line.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret with any content.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for whom it is meant.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it begins or ends with white space, which is easily a slip.
    pub fn has_outer_space(&self) -> bool {
        self.0.trim() != self.0
    }

    fn parse(content: &[u8]) -> Result<Self, SecretError> {
        let mut lines = text::lines(content)?;
        let line = lines
            .next()
            .filter(|line| !line.text.trim().is_empty())
            .ok_or(SecretError::Empty)?;
        if lines.any(|line| !line.text.is_empty()) {
            return Err(SecretError::SeveralLines);
        }
        check(&line)?;
        Ok(Self::new(line.text))
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    /// Reads a secret as a file has it: see [`SecretFile::secret`].
    fn from_str(text: &str) -> Result<Self, SecretError> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The content of a file that holds secrets.
pub struct SecretFile(Vec<u8>);

impl SecretFile {
    /// Reads `file`.
    ///
    /// # Errors
    /// If it cannot be read or is too large.
    pub fn read(file: &Path) -> Result<Self, SecretError> {
        let mut content = Vec::new();
        File::open(file)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content))
            .map_err(|error| SecretError::unreadable(&error))?;
        if content.len() as u64 > MAX_BYTES {
            return Err(SecretError::TooLarge);
        }
        Ok(Self(content))
    }

    /// The content itself.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The whole content as text, without a byte order mark at its beginning.
    ///
    /// # Errors
    /// If it is not what it looks like: see [`text`].
    pub fn text(&self) -> Result<&str, SecretError> {
        for line in text::lines(&self.0)? {
            line.check()?;
        }
        Ok(text::decode(&self.0)?)
    }

    /// The only line of the file, without a byte order mark at its beginning and without its line end. Empty lines may follow.
    ///
    /// # Errors
    /// If there is none, or more than one, or if it is not what it looks like: see [`text`].
    pub fn secret(&self) -> Result<Secret, SecretError> {
        Secret::parse(&self.0)
    }

    /// The lines of the file that are not empty.
    ///
    /// # Errors
    /// If one of them is not what it looks like.
    pub fn lines(&self) -> Result<Vec<TextLine<'_>>, SecretError> {
        let lines = text::lines(&self.0)?.filter(|line| !line.text.trim().is_empty());
        let checked = lines.map(|line| check(&line).map(|()| line));
        Ok(checked.collect::<Result<_, TextError>>()?)
    }
}

impl From<&[u8]> for SecretFile {
    fn from(content: &[u8]) -> Self {
        Self(content.to_owned())
    }
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Checks a line whose outer white space counts, so that a tab there is an error, too.
fn check(line: &TextLine<'_>) -> Result<(), TextError> {
    line.check()?;
    match line.text.find(char::is_control) {
        Some(at) => Err(line.error_at(at, TextErrorKind::Control)),
        None => Ok(()),
    }
}

/// Why a secret cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read, with the error number of the operating system.
    #[error("cannot read the file: {}", io::Error::from_raw_os_error(*.0))]
    Unreadable(i32),
    /// The file is larger than what is read.
    #[error("the file is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// The file is not text, or a line is not what it looks like.
    #[error(transparent)]
    Text(#[from] TextError),
    /// There is nothing but white space.
    #[error("it is empty")]
    Empty,
    /// There is more than one line.
    #[error("it has more than one line: write the secret alone, on the first line")]
    SeveralLines,
}

impl SecretError {
    fn unreadable(error: &io::Error) -> Self {
        // Reading a file fails with an error of the operating system; anything else counts as one of the device.
        Self::Unreadable(
            error
                .raw_os_error()
                .unwrap_or(rustix::io::Errno::IO.raw_os_error()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_only_line_without_its_end_and_with_every_blank() {
        for (text, expected) in [
            ("s3cret", "s3cret"),
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n\n", "s3cret"),
            ("\u{feff}s3cret\n", "s3cret"),
            (" s3 cret ", " s3 cret "),
            ("pässwört#:@,/?%", "pässwört#:@,/?%"),
        ] {
            let secret: Secret = text.parse().unwrap();
            assert_eq!(secret.expose(), expected, "{text:?}");
            assert_eq!(secret.has_outer_space(), expected.starts_with(' '));
        }
    }

    #[test]
    fn what_is_no_secret_of_one_line_is_an_error_without_its_content() {
        for text in [
            &b""[..],
            b" \n",
            b"s3cret\nother\n",
            b"s3cret\rother",
            b"s3cret\0",
            b"s3cret\t",
            b"\ts3cret",
            b"s3\xffcret",
            b"\xff\xfes\x003\x00",
            "s3cret\u{200b}".as_bytes(),
        ] {
            let error = SecretFile::from(text).secret().unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(!told.contains("s3"), "{told}");
        }
        let secret = Secret::new("s3cret");
        assert_eq!(format!("{secret:?}"), "…");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_with_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let missing = SecretFile::read(&dir.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("No such file"), "{missing}");
        let directory = SecretFile::read(dir.path()).unwrap_err();
        assert!(directory.to_string().contains("directory"), "{directory}");
        let endless = SecretFile::read(Path::new("/dev/zero"));
        assert_eq!(endless.unwrap_err(), SecretError::TooLarge);
    }
}
