//! Who may ask at all: callers with a password or a token from the operator's files. (A secret base path is the other way.)

mod keys;
mod settings;

use std::path::PathBuf;

use http::{HeaderMap, HeaderValue, header};
use importguard_files::{LastGood, Reloads, Watch};

use self::keys::{Keys, Scheme};
pub use self::{keys::InvalidKeys, settings::LockSettings};

/// The lock on the public listener. It is open where there are no keys at all.
#[derive(Debug)]
pub(crate) struct Lock(Vec<Bolt>);

#[derive(Debug)]
struct Bolt {
    scheme: Scheme,
    keys: LastGood<Keys>,
}

/// A file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}={}: {source}", file.display())]
pub struct InvalidKeyFile {
    setting: &'static str,
    file: PathBuf,
    source: InvalidKeys,
}

impl Lock {
    /// Reads the keys, and has `reloads` read them again when they change.
    pub(crate) fn new(
        settings: &LockSettings,
        reloads: &mut Reloads,
    ) -> Result<Self, InvalidKeyFile> {
        let files = [
            (
                Scheme::Basic,
                "IMPORTGUARD_BASIC_AUTH_FILE",
                &settings.basic_auth_file,
            ),
            (
                Scheme::Bearer,
                "IMPORTGUARD_BEARER_TOKEN_FILE",
                &settings.bearer_token_file,
            ),
        ];
        let mut bolts = Vec::new();
        for (scheme, setting, file) in files {
            let Some(file) = file.clone() else { continue };
            let read = {
                let file = file.clone();
                move || Keys::read(&file, scheme)
            };
            let watch = Watch::start(std::slice::from_ref(&file), read).map_err(|source| {
                InvalidKeyFile {
                    setting,
                    file,
                    source,
                }
            })?;
            let keys = watch.last_good();
            tracing::info!(keys = keys.load().count(), "{setting} is in force");
            reloads.add(setting, watch);
            bolts.push(Bolt { scheme, keys });
        }
        Ok(Self(bolts))
    }

    /// Whether a request with these headers may come in.
    pub(crate) fn opens(&self, headers: &HeaderMap) -> bool {
        self.0.is_empty() || credentials(headers).is_some_and(|shown| self.knows(shown))
    }

    /// What a caller who may not is told to show: the values of `WWW-Authenticate`.
    pub(crate) fn challenges(&self) -> impl Iterator<Item = HeaderValue> {
        self.0.iter().map(|bolt| match bolt.scheme {
            Scheme::Basic => {
                HeaderValue::from_static("Basic realm=\"importguard\", charset=\"UTF-8\"")
            }
            Scheme::Bearer => HeaderValue::from_static("Bearer realm=\"importguard\""),
        })
    }

    fn knows(&self, (scheme, shown): (&str, &str)) -> bool {
        let mut bolts = self.0.iter();
        bolts.any(|bolt| {
            scheme.eq_ignore_ascii_case(bolt.scheme.name()) && bolt.keys.load().fit(shown)
        })
    }
}

/// The scheme and the credentials of the one `Authorization` that a request may have.
fn credentials(headers: &HeaderMap) -> Option<(&str, &str)> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, credentials) = value.split_once(' ')?;
    Some((scheme, credentials.trim_ascii()))
}
