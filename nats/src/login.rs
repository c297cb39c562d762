//! How a client authenticates to NATS: with a credentials file, user and password, or a token. Files may change while it runs.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use async_nats::{Auth, AuthError};
use data_encoding::BASE64URL_NOPAD;
use importguard_runtime::{
    FileWatcher, LastGood, Secret, SecretError, SecretFile, Snapshot, rfc3339,
};
use nkeys::{KeyPair, KeyPairType};
use serde::Deserialize;

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
    file: PathBuf,
    jwt: Secret,
    key: KeyPair,
    /// When the JWT expires, in seconds since 1970.
    end: Option<u64>,
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
    /// The seed is that of an account, an operator or a server.
    #[error("its nkey seed is not that of a user; write it with `nsc generate creds`")]
    NotUser,
    /// The JWT is none, or lacks a subject.
    #[error(
        "its user JWT is invalid: it must be three base64url parts separated by dots, with claims in JSON; write it with `nsc generate creds`"
    )]
    InvalidJwt,
    /// The JWT certifies another key pair.
    #[error("its nkey seed does not belong to its user JWT; write both with `nsc generate creds`")]
    OtherKey,
    /// The JWT has expired, at that second since 1970.
    #[error("its user JWT expired on {}; write a new one with `nsc generate creds`", rfc3339(*.0))]
    Expired(u64),
}

/// The claims of a JWT that can be checked without the server.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// In seconds since 1970.
    exp: Option<u64>,
}

impl NatsCredentials {
    /// Reads the JWT and the seed from the first two blocks that start with a BEGIN line.
    fn parse(file: &Path, text: &str) -> Result<Self, NatsCredentialsError> {
        let mut lines = text.lines().map(str::trim);
        let mut block = || {
            lines.find(|line| line.starts_with("---") && line.contains("BEGIN"));
            lines.next().filter(|line| !line.starts_with("---"))
        };
        let jwt = block().ok_or(NatsCredentialsError::NoJwt)?;
        let seed = block().ok_or(NatsCredentialsError::NoSeed)?;
        let key = KeyPair::from_seed(seed).map_err(|_| NatsCredentialsError::InvalidSeed)?;
        if key.key_pair_type() != KeyPairType::User {
            return Err(NatsCredentialsError::NotUser);
        }
        let claims = claims(jwt).ok_or(NatsCredentialsError::InvalidJwt)?;
        if claims.sub != key.public_key() {
            return Err(NatsCredentialsError::OtherKey);
        }
        Ok(Self {
            file: file.to_owned(),
            jwt: Secret::new(jwt),
            key,
            // The JWTs of nsc have a 0 where they do not expire.
            end: claims.exp.filter(|&end| end != 0),
        })
    }

    /// The error, if the JWT has expired.
    fn expired(&self) -> Option<NatsSettingsError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let end = self
            .end
            .filter(|&end| end <= now.unwrap_or_default().as_secs())?;
        Some(NatsSettingsError::Creds {
            file: self.file.clone(),
            source: NatsCredentialsError::Expired(end),
        })
    }
}

/// The claims of `jwt`, if it is one. Only the server can verify its signature.
fn claims(jwt: &str) -> Option<Claims> {
    let mut parts = jwt.split('.').map(|part| {
        let decoded = BASE64URL_NOPAD.decode(part.as_bytes()).ok();
        decoded.filter(|decoded| !decoded.is_empty())
    });
    let (_header, claims, _signature) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&claims).ok()
}

/// Opens a watched credentials file. An expired one is used at the start, as events can wait in the spool; later it does not replace
/// one that has not expired.
pub(super) async fn credentials(
    file: PathBuf,
) -> Result<FileWatcher<NatsCredentials, NatsSettingsError>, NatsSettingsError> {
    let watcher = watcher(file, |file| {
        let read = || NatsCredentials::parse(file, SecretFile::read(file)?.text()?);
        read().map_err(|source| NatsSettingsError::Creds {
            file: file.clone(),
            source,
        })
    });
    let watcher = watcher.await?;
    if let Some(expired) = watcher.last_good().load().expired() {
        tracing::warn!("{expired}");
    }
    Ok(watcher.hold_back_if(|active, new| new.expired().filter(|_| active.expired().is_none())))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn jwt(claims: &Value) -> String {
        let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let claims = encode(&claims.to_string());
        format!("{}.{claims}.{}", encode("{}"), encode("signature"))
    }

    fn read(jwt: &str, key: &KeyPair) -> Result<NatsCredentials, NatsCredentialsError> {
        let seed = key.seed().unwrap();
        let file = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        NatsCredentials::parse(Path::new("creds"), &file)
    }

    #[test]
    fn a_jwt_is_that_of_the_seed_and_has_not_expired() {
        let user = KeyPair::new_user();
        let key = user.public_key();
        for end in [json!(null), json!(0), json!(4_000_000_000_u64)] {
            let jwt = jwt(&json!({ "sub": key, "exp": end, "nats": {} }));
            assert!(read(&jwt, &user).unwrap().expired().is_none(), "{end}");
        }
        let expired = jwt(&json!({ "sub": key, "exp": 1_614_816_000 }));
        let expired = read(&expired, &user).unwrap().expired().unwrap();
        let error = importguard_runtime::whole_text(&expired);
        assert!(error.contains("expired on 2021-03-04"), "{error}");
        let other = jwt(&json!({ "sub": KeyPair::new_user().public_key() }));
        assert_eq!(
            read(&other, &user).unwrap_err(),
            NatsCredentialsError::OtherKey
        );
        let account = KeyPair::new_account();
        let of_account = jwt(&json!({ "sub": account.public_key() }));
        assert_eq!(
            read(&of_account, &account).unwrap_err(),
            NatsCredentialsError::NotUser
        );
    }

    #[test]
    fn what_is_no_jwt_is_an_error_without_its_content() {
        let user = KeyPair::new_user();
        let good = jwt(&json!({ "sub": user.public_key() }));
        for text in [
            "s3cret",
            "s3cret.s3cret",
            "s3cret.s3cret.s3cret",
            "..",
            &good[..good.len() / 2],
            &format!("{good}."),
            &format!("{good}="),
            &jwt(&json!({})),
            &jwt(&json!(["s3cret"])),
        ] {
            let error = read(text, &user).unwrap_err();
            assert_eq!(error, NatsCredentialsError::InvalidJwt, "{text}");
        }
    }
}
