//! How a client authenticates to NATS: with a credentials file, user and password, or a token. Files may change while it runs.

use std::{path::PathBuf, str::FromStr};

use async_nats::{Auth, AuthError};
use importguard_runtime::{FileWatcher, LastGood, Secret, SecretError, SecretFile, Snapshot};
use nkeys::KeyPair;

use crate::NatsSettingsError;

/// A user and password, or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Password { user: String, password: Secret },
    Token(Secret),
}

/// The credentials of a client, if any. For files, the last valid content.
#[derive(Clone, Debug, Default)]
pub(super) struct NatsAuth {
    pub(super) credentials: Option<LastGood<NatsCredentials>>,
    pub(super) login: Option<LastGood<Login>>,
}

impl NatsAuth {
    pub(super) fn is_some(&self) -> bool {
        self.credentials.is_some() || self.login.is_some()
    }

    /// Returns the authentication for CONNECT. Credentials sign the server's `nonce`. Credentials and a login may both be set, because an
    /// auth callout may require both.
    pub(super) fn answer(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        if let Some(credentials) = &self.credentials {
            let credentials = credentials.load();
            auth.jwt = Some(credentials.jwt.expose().to_owned());
            auth.signature = Some(credentials.key.sign(nonce).map_err(AuthError::new)?);
        }
        match self.login.as_ref().map(|login| login.load()).as_deref() {
            Some(Login::Password { user, password }) => {
                auth.username = Some(user.clone());
                auth.password = Some(password.expose().to_owned());
            }
            Some(Login::Token(token)) => auth.token = Some(token.expose().to_owned()),
            None => {}
        }
        Ok(auth)
    }
}

/// The content of a credentials file: a user JWT, and the key pair that it certifies.
pub(super) struct NatsCredentials {
    jwt: Secret,
    key: KeyPair,
}

impl std::fmt::Debug for NatsCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// Why a credentials file cannot be used. Never contains any of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatsCredentialsError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SecretError),
    /// The file has no JWT.
    #[error("it holds no user JWT; write it with `nsc generate creds`")]
    NoJwt,
    /// The file has no seed.
    #[error("it holds no nkey seed; write it with `nsc generate creds`")]
    NoSeed,
    /// The seed is invalid.
    #[error("its nkey seed is invalid")]
    InvalidSeed,
}

impl FromStr for NatsCredentials {
    type Err = NatsCredentialsError;

    /// Reads the JWT and the seed from the first two blocks that start with a BEGIN line.
    fn from_str(text: &str) -> Result<Self, NatsCredentialsError> {
        let mut lines = text.lines().map(str::trim);
        let mut block = || {
            lines.find(|line| line.starts_with("---") && line.contains("BEGIN"));
            lines.next().filter(|line| !line.starts_with("---"))
        };
        let jwt = Secret::new(block().ok_or(NatsCredentialsError::NoJwt)?);
        let seed = block().ok_or(NatsCredentialsError::NoSeed)?;
        let key = KeyPair::from_seed(seed).map_err(|_| NatsCredentialsError::InvalidSeed)?;
        Ok(Self { jwt, key })
    }
}

/// Opens a watched credentials file.
pub(super) async fn credentials(
    file: PathBuf,
) -> Result<FileWatcher<NatsCredentials, NatsSettingsError>, NatsSettingsError> {
    watcher(file, |file| {
        let read = || SecretFile::read(file)?.text()?.parse();
        read().map_err(|source| NatsSettingsError::Creds {
            file: file.clone(),
            source,
        })
    })
    .await
}

/// Opens a watched file with a password or a token, from which `login` creates the login.
pub(super) async fn secret(
    setting: &'static str,
    file: PathBuf,
    login: impl Fn(Secret) -> Login + Send + Sync + 'static,
) -> Result<FileWatcher<Login, NatsSettingsError>, NatsSettingsError> {
    watcher(file, move |file| {
        let secret = SecretFile::read(file).and_then(|content| content.secret());
        let secret = secret.map_err(|source| NatsSettingsError::Secret {
            setting,
            file: file.clone(),
            source,
        })?;
        if secret.has_outer_space() {
            tracing::warn!(
                "{setting}={}: the line begins or ends with a space, which counts as part of the secret; delete it unless it is",
                file.display()
            );
        }
        Ok(login(secret))
    })
    .await
}

async fn watcher<T: Send + Sync + 'static>(
    file: PathBuf,
    read: impl Fn(&PathBuf) -> Result<T, NatsSettingsError> + Send + Sync + 'static,
) -> Result<FileWatcher<T, NatsSettingsError>, NatsSettingsError> {
    let take = move || Snapshot::take(std::slice::from_ref(&file), || read(&file));
    FileWatcher::open(take).await
}
