//! Who may ask at all: callers with a password or a token from the operator's files. (A secret base path is the other way.)

use std::{path::PathBuf, sync::Arc};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use importguard_runtime::{FileWatcher, FileWatches, LastGood, Snapshot};

use super::credentials::{BASIC, BEARER, Credentials, CredentialsError, Scheme};
use crate::{openim::Rejection, settings::AuthenticationSettings};

/// Accepts requests with credentials from one of the files; every request if no file is set.
#[derive(Clone, Debug)]
pub(crate) struct Authentication(Arc<[CredentialsFile]>);

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
                    for line in credentials.spaced_lines() {
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
            tracing::info!(keys = credentials.load().count(), "{setting} active");
            all.push(CredentialsFile {
                scheme,
                credentials,
            });
        }
        Ok(Self(all.into()))
    }

    /// Whether authentication is enabled.
    pub(crate) fn is_on(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether a request with these headers is authenticated.
    pub(crate) fn accepts(&self, headers: &HeaderMap) -> bool {
        !self.is_on() || presented(headers).is_some_and(|presented| self.is_valid(presented))
    }

    fn is_valid(&self, (scheme, presented): (&str, &str)) -> bool {
        self.0.iter().any(|file| {
            scheme.eq_ignore_ascii_case(file.scheme.name)
                && file.credentials.load().matches(presented)
        })
    }

    /// The response to a request that is not authenticated.
    pub(crate) fn challenge(&self) -> Response {
        let mut response = Rejection::Unauthorised.into_response();
        for file in self.0.iter() {
            let challenge = HeaderValue::from_static(file.scheme.challenge);
            response
                .headers_mut()
                .append(header::WWW_AUTHENTICATE, challenge);
        }
        response
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
