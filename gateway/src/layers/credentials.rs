use std::{fs, io, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// How a caller sends its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// RFC 7617
    Basic,
    /// RFC 6750
    Bearer,
}

/// The credentials of one file. Only their digests are kept, so that comparing takes the same time whatever is compared, and
/// printing them reveals nothing.
#[derive(Debug)]
pub(super) struct Credentials(Vec<[u8; 32]>);

/// Why a file of credentials is invalid. Never contains the text of a line.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// The file has no credentials.
    #[error("the file has no credentials")]
    Empty,
    /// A line of a Basic file.
    #[error("line {line} has no colon: write user:password")]
    NoColon {
        /// From 1.
        line: usize,
    },
    /// A line of a bearer file.
    #[error("line {line} is not a token: use visible ASCII without white space")]
    NoToken {
        /// From 1.
        line: usize,
    },
}

impl Scheme {
    /// Its name in `Authorization`, which any case of letters may have.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            Self::Bearer => "Bearer",
        }
    }

    /// What a caller with the credentials in `line` sends after the scheme's name.
    fn credentials(self, line: &str, number: usize) -> Result<String, CredentialsError> {
        match self {
            Self::Basic if line.contains(':') => Ok(BASE64_STANDARD.encode(line)),
            Self::Basic => Err(CredentialsError::NoColon { line: number }),
            Self::Bearer if line.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(line.to_owned()),
            Self::Bearer => Err(CredentialsError::NoToken { line: number }),
        }
    }
}

impl Credentials {
    /// Reads a file with one entry a line. Empty lines are skipped; there are no comments, because a password may begin with
    /// anything.
    pub(super) fn read(file: &Path, scheme: Scheme) -> Result<Self, CredentialsError> {
        Self::parse(&fs::read_to_string(file)?, scheme)
    }

    fn parse(text: &str, scheme: Scheme) -> Result<Self, CredentialsError> {
        let lines = (1..).zip(text.lines());
        let all: Vec<_> = lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, line)| Ok(digest(&scheme.credentials(line, number)?)))
            .collect::<Result<_, CredentialsError>>()?;
        if all.is_empty() {
            return Err(CredentialsError::Empty);
        }
        Ok(Self(all))
    }

    /// Whether `credentials` are among these. Takes as long for any that are as long.
    pub(super) fn matches(&self, credentials: &str) -> bool {
        let presented = digest(credentials);
        let fits = self.0.iter().fold(Choice::from(0), |fits, known| {
            fits | known.ct_eq(&presented)
        });
        fits.into()
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

fn digest(credentials: &str) -> [u8; 32] {
    Sha256::digest(credentials).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_keys_fit_as_a_url_has_them() {
        let keys = Credentials::parse("openim:s3:cret\r\n\nold:one\n", Scheme::Basic).unwrap();
        assert_eq!(keys.count(), 2);
        for (credentials, fit) in [
            ("openim:s3:cret", true),
            ("old:one", true),
            ("openim:s3", false),
            ("openim:s3:cret ", false),
            ("", false),
        ] {
            assert_eq!(keys.matches(&BASE64_STANDARD.encode(credentials)), fit);
        }
        assert!(!keys.matches("openim:s3:cret"));
    }

    #[test]
    fn tokens_fit_as_they_are() {
        let keys = Credentials::parse("one\ntwo", Scheme::Bearer).unwrap();
        assert!(keys.matches("one") && keys.matches("two"));
        assert!(!keys.matches("on") && !keys.matches("onetwo") && !keys.matches(""));
    }

    #[test]
    fn a_file_that_lets_nobody_in_or_means_something_else_is_an_error() {
        for (text, scheme) in [
            ("", Scheme::Basic),
            ("\n \n", Scheme::Bearer),
            ("user:password\nnonsense", Scheme::Basic),
            ("two words", Scheme::Bearer),
        ] {
            let error = Credentials::parse(text, scheme).unwrap_err().to_string();
            assert!(
                !error.contains("nonsense") && !error.contains("words"),
                "{error}"
            );
        }
    }
}
