//! Who may ask at all: callers with a password or a token from the operator's files. (A secret base path is the other way.)

use std::path::{Path, PathBuf};

use axum::response::{IntoResponse, Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, header};
use importguard_runtime::{FileWatcher, FileWatches, LastGood, SecretError, SecretFile, Snapshot};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::{openim::Rejection, settings::AuthenticationSettings};

/// Accepts requests with credentials from one of the files; every request if no file is set.
#[derive(Debug)]
pub(crate) struct Authentication(Vec<CredentialsFile>);

#[derive(Debug)]
struct CredentialsFile {
    scheme: &'static Scheme,
    credentials: LastGood<Credentials>,
}

/// A file of credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}={}: {source}", file.display())]
pub struct CredentialsFileError {
    setting: &'static str,
    file: PathBuf,
    source: CredentialsError,
}

impl Authentication {
    /// Reads the files, and has `watches` reload them.
    pub(crate) async fn new(
        settings: &AuthenticationSettings,
        watches: &mut FileWatches,
    ) -> Result<Self, CredentialsFileError> {
        let mut all = Vec::new();
        for (scheme, file) in [
            (&BASIC, &settings.basic_auth_file),
            (&BEARER, &settings.bearer_token_file),
        ] {
            let Some(file) = file.clone() else { continue };
            let setting = scheme.setting;
            let watched = file.clone();
            let read = move || {
                let files = std::slice::from_ref(&watched);
                Snapshot::take(files, || {
                    let credentials = Credentials::read(&watched, scheme)?;
                    for line in &credentials.spaced {
                        tracing::warn!(
                            "{setting}={}: in line {line}, the user or the password begins or ends with a space, which counts; delete it unless it is meant",
                            watched.display()
                        );
                    }
                    Ok(credentials)
                })
            };
            let watcher = FileWatcher::open(read).await;
            let watcher = watcher.map_err(|source| CredentialsFileError {
                setting,
                file,
                source,
            })?;
            let credentials = watches.add(setting, watcher);
            tracing::info!(keys = credentials.load().digests.len(), "{setting} active");
            all.push(CredentialsFile {
                scheme,
                credentials,
            });
        }
        Ok(Self(all))
    }

    /// Whether authentication is enabled.
    pub(crate) fn is_on(&self) -> bool {
        !self.0.is_empty()
    }

    /// The response to a request with these headers, unless it is authenticated.
    pub(crate) fn challenge(&self, headers: &HeaderMap) -> Option<Response> {
        if !self.is_on() || presented(headers).is_some_and(|presented| self.is_valid(presented)) {
            return None;
        }
        let mut rejected = Rejection::Unauthorised.into_response();
        for file in &self.0 {
            let challenge = HeaderValue::from_static(file.scheme.challenge);
            rejected
                .headers_mut()
                .append(header::WWW_AUTHENTICATE, challenge);
        }
        Some(rejected)
    }

    fn is_valid(&self, (scheme, presented): (&str, &str)) -> bool {
        self.0.iter().any(|file| {
            scheme.eq_ignore_ascii_case(file.scheme.name)
                && file.credentials.load().matches(presented)
        })
    }
}

/// The scheme and the credentials of the one `Authorization` that a request may have.
fn presented(headers: &HeaderMap) -> Option<(&str, &str)> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, credentials) = value.split_once(' ')?;
    Some((scheme, credentials.trim_ascii()))
}

/// How a caller sends its credentials.
#[derive(Debug)]
struct Scheme {
    /// Its name in `Authorization`, which any case of letters may have.
    name: &'static str,
    /// The response's `WWW-Authenticate`.
    challenge: &'static str,
    /// The setting of the file with its credentials.
    setting: &'static str,
    /// What a caller with the credentials in a line sends after the scheme's name, or what is wrong with the line.
    encode: fn(&str) -> Result<String, &'static str>,
}

/// RFC 7617
static BASIC: Scheme = Scheme {
    name: "Basic",
    challenge: "Basic realm=\"importguard\", charset=\"UTF-8\"",
    setting: "IMPORTGUARD_BASIC_AUTH_FILE",
    encode: basic,
};

/// RFC 6750
static BEARER: Scheme = Scheme {
    name: "Bearer",
    challenge: "Bearer realm=\"importguard\"",
    setting: "IMPORTGUARD_BEARER_TOKEN_FILE",
    encode: bearer,
};

/// The credentials of one file. Only their digests are kept, so that comparing takes the same time whatever is compared, and
/// printing them reveals nothing.
#[derive(Debug)]
struct Credentials {
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
    /// A line has no credentials.
    #[error("line {line} {problem}")]
    Line {
        /// From 1.
        line: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
}

fn basic(line: &str) -> Result<String, &'static str> {
    match line.split_once(':') {
        None => Err("has no colon: write user:password"),
        Some((user, password)) if is_blank(user) || is_blank(password) => {
            Err("has an empty user or password: write user:password")
        }
        Some((_, password)) if is_hash(password) => Err(
            "has the hash of a password, which nobody can log in with: importguard compares the password itself; write user:password",
        ),
        Some(_) => Ok(BASE64_STANDARD.encode(line)),
    }
}

fn bearer(line: &str) -> Result<String, &'static str> {
    match line.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(line.to_owned()),
        false => Err("is not a token: use visible ASCII without white space"),
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
    fn read(file: &Path, scheme: &Scheme) -> Result<Self, CredentialsError> {
        Self::parse(&SecretFile::read(file)?, scheme)
    }

    fn parse(file: &SecretFile, scheme: &Scheme) -> Result<Self, CredentialsError> {
        let mut lines = file.lines()?;
        lines.retain(|line| !line.text.trim_start().starts_with('#'));
        if lines.is_empty() {
            return Err(CredentialsError::Empty);
        }
        let digests = lines.iter().map(|line| {
            let encoded = (scheme.encode)(line.text);
            let encoded = encoded.map_err(|problem| CredentialsError::Line {
                line: line.number,
                problem,
            });
            Ok(digest(&encoded?))
        });
        let spaced = lines.iter().filter(|line| is_spaced(line.text));
        Ok(Self {
            digests: digests.collect::<Result<_, CredentialsError>>()?,
            spaced: spaced.map(|line| line.number).collect(),
        })
    }

    /// Whether `credentials` are among these. Takes as long for any that are as long.
    fn matches(&self, credentials: &str) -> bool {
        let presented = digest(credentials);
        let fits = self.digests.iter().fold(Choice::from(0), |fits, known| {
            fits | known.ct_eq(&presented)
        });
        fits.into()
    }
}

fn digest(credentials: &str) -> [u8; 32] {
    Sha256::digest(credentials).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, scheme: &Scheme) -> Result<Credentials, CredentialsError> {
        Credentials::parse(&SecretFile::from(text.as_bytes()), scheme)
    }

    #[test]
    fn basic_keys_fit_as_a_url_has_them() {
        let keys = parse("\u{feff}openim:s3:cret\r\n\nold:one\n", &BASIC).unwrap();
        assert_eq!(keys.digests.len(), 2);
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
        let keys = parse("#old:one\n # no colon\nnew:t#wo\n", &BASIC).unwrap();
        assert_eq!(keys.digests.len(), 1);
        assert!(keys.spaced.is_empty());
        for credentials in ["#old:one", "old:one"] {
            assert!(!keys.matches(&BASE64_STANDARD.encode(credentials)));
        }
        assert!(keys.matches(&BASE64_STANDARD.encode("new:t#wo")));
        let tokens = parse("#one\ntwo\n", &BEARER).unwrap();
        assert!(!tokens.matches("#one") && tokens.matches("two"));
    }

    #[test]
    fn tokens_fit_as_they_are() {
        let keys = parse("one\ntwo", &BEARER).unwrap();
        assert!(keys.matches("one") && keys.matches("two"));
        assert!(!keys.matches("on") && !keys.matches("onetwo") && !keys.matches(""));
    }

    #[test]
    fn a_file_that_lets_nobody_in_or_means_something_else_is_an_error() {
        let empty = "the file has no credentials";
        let (no_colon, incomplete) = (
            "line 1 has no colon",
            "line 1 has an empty user or password",
        );
        let no_token = "line 1 is not a token";
        let (basic, bearer) = (&BASIC, &BEARER);
        for (text, scheme, expected) in [
            ("", basic, empty),
            ("\u{feff}\n \n", bearer, empty),
            ("nonsense", basic, no_colon),
            ("user:password\nnonsense", basic, "line 2 has no colon"),
            ("# user:password\n#a:b\n", basic, empty),
            ("#token\ntwo words\n", bearer, "line 2 is not a token"),
            (":", basic, incomplete),
            ("user:", basic, incomplete),
            ("user: \n", basic, incomplete),
            (":nonsense\n", basic, incomplete),
            ("two words", bearer, no_token),
            ("words \n", bearer, no_token),
        ] {
            let error = parse(text, scheme).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
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
            let error = error.to_string();
            assert!(error.starts_with("line 1 has the hash"), "{error}");
        }
        assert!(parse("user:$6 is cheap\nuser:$1$2", basic).is_ok());
    }

    #[test]
    fn a_space_at_an_end_counts_and_is_told_with_its_line() {
        let text = "openim:s3cret\nopenim:s3cret \nopenim: s3cret\nopenim:s3 cret\n";
        let keys = parse(text, &BASIC).unwrap();
        assert_eq!(keys.spaced, [2, 3]);
        assert!(keys.matches(&BASE64_STANDARD.encode("openim:s3cret ")));
    }
}
