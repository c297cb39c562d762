use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use importguard_runtime::{SecretError, SecretFile, text::TextLine};
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
pub(super) struct Credentials {
    digests: Vec<[u8; 32]>,
    /// The lines in which a user or a password begins or ends with a space.
    spaced: Vec<u32>,
}

/// Why a file of credentials is invalid. Never contains the text of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SecretError),
    /// The file has no credentials.
    #[error("the file has no credentials")]
    Empty,
    /// A line of a Basic file.
    #[error("line {line} has no colon: write user:password")]
    NoColon {
        /// From 1.
        line: u32,
    },
    /// A line of a Basic file.
    #[error("line {line} has an empty user or password: write user:password")]
    Incomplete {
        /// From 1.
        line: u32,
    },
    /// A line of a Basic file, as `htpasswd` writes it.
    #[error(
        "line {line} has the hash of a password, which nobody can log in with: importguard compares the password itself; write user:password"
    )]
    Hash {
        /// From 1.
        line: u32,
    },
    /// A line of a bearer file.
    #[error("line {line} is not a token: use visible ASCII without white space")]
    NoToken {
        /// From 1.
        line: u32,
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
    fn credentials(self, line: &TextLine<'_>) -> Result<String, CredentialsError> {
        let TextLine { number: line, text } = *line;
        match self {
            Self::Bearer if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
            Self::Bearer => Err(CredentialsError::NoToken { line }),
            Self::Basic => match text.split_once(':') {
                None => Err(CredentialsError::NoColon { line }),
                Some((user, password)) if is_blank(user) || is_blank(password) => {
                    Err(CredentialsError::Incomplete { line })
                }
                Some((_, password)) if is_hash(password) => Err(CredentialsError::Hash { line }),
                Some(_) => Ok(BASE64_STANDARD.encode(text)),
            },
        }
    }
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Whether it is a hash as `htpasswd`, `mkpasswd` and LDAP write it: `{SHA}…`, `$apr1$salt$…`, `$2y$05$…`.
fn is_hash(password: &str) -> bool {
    const CRYPT: [&str; 12] = [
        "1", "2a", "2b", "2x", "2y", "5", "6", "7", "apr1", "argon2i", "argon2id", "y",
    ];
    const LDAP: [&str; 5] = ["{SHA}", "{SSHA}", "{SHA256}", "{SHA512}", "{CRYPT}"];
    let crypt = || {
        let (id, rest) = password.strip_prefix('$')?.split_once('$')?;
        (CRYPT.contains(&id) && rest.contains('$')).then_some(())
    };
    LDAP.iter().any(|prefix| password.starts_with(prefix)) || crypt().is_some()
}

/// Whether the user or the password begins or ends with a space, which is easily a slip.
fn is_spaced(line: &str) -> bool {
    let mut parts = line.splitn(2, ':');
    parts.any(|part| part.trim() != part)
}

impl Credentials {
    /// Reads a file with one entry a line. Empty lines and lines that start with # are skipped, as in lists: who comments a line out
    /// means that it lets nobody in.
    pub(super) fn read(file: &Path, scheme: Scheme) -> Result<Self, CredentialsError> {
        Self::parse(&SecretFile::read(file)?, scheme)
    }

    fn parse(file: &SecretFile, scheme: Scheme) -> Result<Self, CredentialsError> {
        let mut lines = file.lines()?;
        lines.retain(|line| !line.text.trim_start().starts_with('#'));
        if lines.is_empty() {
            return Err(CredentialsError::Empty);
        }
        let digests = lines
            .iter()
            .map(|line| Ok(digest(&scheme.credentials(line)?)));
        let spaced = lines.iter().filter(|line| is_spaced(line.text));
        Ok(Self {
            digests: digests.collect::<Result<_, CredentialsError>>()?,
            spaced: spaced.map(|line| line.number).collect(),
        })
    }

    /// The numbers of the lines in which a user or a password begins or ends with a space.
    pub(super) fn spaced_lines(&self) -> &[u32] {
        &self.spaced
    }

    /// Whether `credentials` are among these. Takes as long for any that are as long.
    pub(super) fn matches(&self, credentials: &str) -> bool {
        let presented = digest(credentials);
        let fits = self.digests.iter().fold(Choice::from(0), |fits, known| {
            fits | known.ct_eq(&presented)
        });
        fits.into()
    }

    pub(super) fn count(&self) -> usize {
        self.digests.len()
    }
}

fn digest(credentials: &str) -> [u8; 32] {
    Sha256::digest(credentials).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, scheme: Scheme) -> Result<Credentials, CredentialsError> {
        Credentials::parse(&SecretFile::from(text.as_bytes()), scheme)
    }

    #[test]
    fn basic_keys_fit_as_a_url_has_them() {
        let keys = parse("\u{feff}openim:s3:cret\r\n\nold:one\n", Scheme::Basic).unwrap();
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
    fn a_line_that_is_commented_out_lets_nobody_in() {
        let keys = parse("#old:one\n # no colon\nnew:t#wo\n", Scheme::Basic).unwrap();
        assert_eq!(keys.count(), 1);
        assert!(keys.spaced_lines().is_empty());
        for credentials in ["#old:one", "old:one"] {
            assert!(!keys.matches(&BASE64_STANDARD.encode(credentials)));
        }
        assert!(keys.matches(&BASE64_STANDARD.encode("new:t#wo")));
        let tokens = parse("#one\ntwo\n", Scheme::Bearer).unwrap();
        assert!(!tokens.matches("#one") && tokens.matches("two"));
    }

    #[test]
    fn tokens_fit_as_they_are() {
        let keys = parse("one\ntwo", Scheme::Bearer).unwrap();
        assert!(keys.matches("one") && keys.matches("two"));
        assert!(!keys.matches("on") && !keys.matches("onetwo") && !keys.matches(""));
    }

    #[test]
    fn a_file_that_lets_nobody_in_or_means_something_else_is_an_error() {
        use CredentialsError::{Empty, Hash, Incomplete, NoColon, NoToken};
        let (basic, bearer) = (Scheme::Basic, Scheme::Bearer);
        for (text, scheme, expected) in [
            ("", basic, Empty),
            ("\u{feff}\n \n", bearer, Empty),
            ("user:password\nnonsense", basic, NoColon { line: 2 }),
            ("# user:password\n#a:b\n", basic, Empty),
            ("#token\ntwo words\n", bearer, NoToken { line: 2 }),
            (":", basic, Incomplete { line: 1 }),
            ("user:", basic, Incomplete { line: 1 }),
            ("user: \n", basic, Incomplete { line: 1 }),
            (":nonsense\n", basic, Incomplete { line: 1 }),
            ("two words", bearer, NoToken { line: 1 }),
            ("words \n", bearer, NoToken { line: 1 }),
        ] {
            let error = parse(text, scheme).unwrap_err();
            assert_eq!(error, expected, "{text:?}");
            let error = error.to_string();
            assert!(
                !error.contains("nonsense") && !error.contains("words"),
                "{error}"
            );
        }
        for text in ["a:b\rc:d\r", "a:b\u{200b}", "a:b\0", "a:b\t", "a\t:b"] {
            let error = parse(text, basic).unwrap_err();
            assert!(
                matches!(error, CredentialsError::Unreadable(SecretError::Text(_))),
                "{text:?}: {error:?}"
            );
        }
        for hash in [
            "$apr1$Jk1ZSbbn$2V1MoDm8RwkcHZ9bkgmPh1",
            "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
            "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC",
            "$6$salt$hash",
            "$argon2id$v=19$m=65536,t=2,p=1$salt$hash",
        ] {
            let error = parse(&format!("user:{hash}"), basic).unwrap_err();
            assert_eq!(error, Hash { line: 1 }, "{hash}");
        }
        assert!(parse("user:$6 is cheap\nuser:$1$2", basic).is_ok());
    }

    #[test]
    fn a_space_at_an_end_counts_and_is_told_with_its_line() {
        let text = "openim:s3cret\nopenim:s3cret \nopenim: s3cret\nopenim:s3 cret\n";
        let keys = parse(text, Scheme::Basic).unwrap();
        assert_eq!(keys.spaced_lines(), [2, 3]);
        assert!(keys.matches(&BASE64_STANDARD.encode("openim:s3cret ")));
    }
}
