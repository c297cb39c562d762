//! Pseudonyms: replacements of user IDs in events, so that subscribers can distinguish users without identifying them.

use std::{borrow::Cow, fmt, path::PathBuf, str::FromStr};

use clap::Args;
use hmac::{Hmac, Mac};
use importguard_core::{ListRevision, UserId};
use importguard_runtime::{
    FileWatcher, FileWatches, LastGood, Secret, SecretError, SecretFile, Snapshot,
};
use sha2::Sha256;

/// Ids can be guessed, so the key must not be: 16 random letters and digits take longer than anybody has.
const KEY_LEAST_BYTES: usize = 16;

/// 128 bits of the HMAC: among 2^40 users no two share one, but for a chance of one in 2^49.
const DIGEST_BYTES: usize = 16;

/// Replaces what events with pseudonyms cannot contain, such as an ID whose pseudonym cannot be computed.
const REDACTED: &str = "redacted";

/// Whether events hold users' ids or pseudonyms.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Privacy")]
pub struct PseudonymSettings {
    /// Key for pseudonyms, at least 16 bytes: with one, events carry pseudonyms instead of user IDs. Prefer
    /// IMPORTGUARD_PSEUDONYM_KEY_FILE
    #[arg(
        long,
        env = "IMPORTGUARD_PSEUDONYM_KEY",
        value_name = "KEY",
        hide_env_values = true,
        conflicts_with = "pseudonym_key_file"
    )]
    pub pseudonym_key: Option<PseudonymKey>,

    /// File with the key for pseudonyms; surrounding white space is ignored
    #[arg(long, env = "IMPORTGUARD_PSEUDONYM_KEY_FILE", value_name = "FILE")]
    pub pseudonym_key_file: Option<PathBuf>,
}

impl PseudonymSettings {
    /// Whether events carry pseudonyms.
    pub(crate) fn is_on(&self) -> bool {
        self.pseudonym_key.is_some() || self.pseudonym_key_file.is_some()
    }

    /// Like [`pseudonyms`](Self::pseudonyms), and has `watches` reload the key's file.
    pub(crate) async fn watch(
        &self,
        watches: &mut FileWatches,
    ) -> Result<LastGood<Pseudonyms>, PseudonymFileError> {
        let Some(file) = self.pseudonym_key_file.clone() else {
            return Ok(LastGood::new(self.pseudonyms()?));
        };
        let settings = self.clone();
        let read = move || Snapshot::take(std::slice::from_ref(&file), || settings.pseudonyms());
        let watcher = FileWatcher::open(read).await?;
        Ok(watches.add("IMPORTGUARD_PSEUDONYM_KEY_FILE", watcher))
    }

    /// The pseudonyms that these settings ask for. Reads the key's file.
    ///
    /// # Errors
    /// If there is no usable key in it.
    pub fn pseudonyms(&self) -> Result<Pseudonyms, PseudonymFileError> {
        match (&self.pseudonym_key, &self.pseudonym_key_file) {
            (Some(key), _) => Ok(Pseudonyms::keyed(key)),
            (None, Some(file)) => {
                let key = SecretFile::read(file).map_err(PseudonymKeyError::from);
                let key = key.and_then(|content| PseudonymKey::new(&content));
                let key = key.map_err(|source| PseudonymFileError {
                    file: file.clone(),
                    source,
                })?;
                Ok(Pseudonyms::keyed(&key))
            }
            (None, None) => Ok(Pseudonyms::Off),
        }
    }
}

/// The key of the pseudonyms. Never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PseudonymKey(Secret);

impl PseudonymKey {
    fn new(content: &SecretFile) -> Result<Self, PseudonymKeyError> {
        let key = content.text()?.trim();
        if key.len() < KEY_LEAST_BYTES {
            Err(PseudonymKeyError::TooShort { bytes: key.len() })
        } else {
            Ok(Self(Secret::new(key)))
        }
    }
}

impl FromStr for PseudonymKey {
    type Err = PseudonymKeyError;

    fn from_str(text: &str) -> Result<Self, PseudonymKeyError> {
        Self::new(&SecretFile::from(text.as_bytes()))
    }
}

/// Why a key is unusable. Never contains a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PseudonymKeyError {
    /// It could be guessed.
    #[error(
        "the pseudonym key has {bytes} bytes and must have at least {KEY_LEAST_BYTES}; create one with `openssl rand -hex 32`"
    )]
    TooShort {
        /// How many it has.
        bytes: usize,
    },
    /// Its file cannot be read, or is not what it looks like.
    #[error(transparent)]
    Invalid(#[from] SecretError),
}

/// The file with the key is unusable.
#[derive(Debug, thiserror::Error)]
#[error("IMPORTGUARD_PSEUDONYM_KEY_FILE: cannot use {}: {source}", file.display())]
pub struct PseudonymFileError {
    file: PathBuf,
    source: PseudonymKeyError,
}

/// What stands in events for users' ids.
#[derive(Clone)]
pub enum Pseudonyms {
    /// The ids themselves.
    Off,
    /// `pn_` and 32 hex digits: HMAC-SHA-256 under the key, cut to 128 bits. HMAC because every language and `openssl`
    /// has it, so that whoever holds the key can find a user's events with any tool.
    Keyed(Box<Hmac<Sha256>>),
    /// `pn_redacted` for every user: pseudonyms are enabled, but the key is unusable.
    Redacted,
}

impl Pseudonyms {
    /// Pseudonyms under `key`.
    pub fn keyed(key: &PseudonymKey) -> Self {
        match Hmac::new_from_slice(key.0.expose().as_bytes()) {
            Ok(hmac) => Self::Keyed(Box::new(hmac)),
            Err(_) => Self::Redacted,
        }
    }

    /// Whether events have pseudonyms.
    pub(super) const fn are_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// The replacement of `id` in an event.
    pub fn of<'a>(&self, id: &'a UserId) -> Cow<'a, UserId> {
        match self.pseudonym(id.as_str()) {
            Some(pseudonym) => Cow::Owned(pseudonym),
            None => Cow::Borrowed(id),
        }
    }

    /// The replacements of `ids`, in their order.
    pub fn of_all<'a>(&self, ids: &'a [UserId]) -> Cow<'a, [UserId]> {
        if !self.are_on() {
            return Cow::Borrowed(ids);
        }
        ids.iter().map(|id| self.of(id).into_owned()).collect()
    }

    /// `lists` with the HMACs of their digests: from a digest alone, the ID on a short list is found by trying all IDs.
    pub(super) fn of_lists<'a>(&self, lists: &'a [ListRevision]) -> Cow<'a, [ListRevision]> {
        let digest = |list: &ListRevision| match self {
            Self::Keyed(hmac) => format!("hmac-sha256:{}", hex(hmac, &list.digest)),
            Self::Off | Self::Redacted => REDACTED.to_owned(),
        };
        if !self.are_on() {
            return Cow::Borrowed(lists);
        }
        let keyed = lists.iter().map(|list| ListRevision {
            digest: digest(list),
            ..list.clone()
        });
        keyed.collect()
    }

    /// The replacement of an ID that need not be valid.
    pub(super) fn of_text<'a>(&self, id: &'a str) -> Cow<'a, str> {
        match self.pseudonym(id) {
            Some(pseudonym) => Cow::Owned(pseudonym.as_str().to_owned()),
            None => Cow::Borrowed(id),
        }
    }

    /// A text that may contain user IDs, or what stands for it in events with pseudonyms.
    pub(super) fn of_free_text<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        match self.are_on() {
            true => Cow::Borrowed(REDACTED),
            false => text.into(),
        }
    }

    /// The pseudonym of `id`, if users have any.
    fn pseudonym(&self, id: &str) -> Option<UserId> {
        match self {
            Self::Off => None,
            Self::Keyed(hmac) => {
                let mut hex = hex(hmac, id);
                hex.truncate(2 * DIGEST_BYTES);
                Some(UserId::pseudonym(&hex))
            }
            Self::Redacted => Some(UserId::pseudonym(REDACTED)),
        }
    }
}

/// The HMAC of `text` in hexadecimal digits.
fn hex(hmac: &Hmac<Sha256>, text: &str) -> String {
    let mut hmac = hmac.clone();
    hmac.update(text.as_bytes());
    let bytes = hmac.finalize().into_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::Keyed(_) => "Keyed",
            Self::Redacted => "Redacted",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn id(text: &str) -> UserId {
        UserId::parse(text).unwrap()
    }

    fn key(text: &str) -> PseudonymKey {
        text.parse().unwrap()
    }

    #[test]
    fn a_pseudonym_is_what_openssl_says() {
        // printf %s user123 | openssl dgst -sha256 -hmac 0123456789abcdef, its first 32 digits
        let pseudonyms = Pseudonyms::keyed(&key("0123456789abcdef"));
        assert_eq!(
            pseudonyms.of(&id("user123")).as_str(),
            "pn_15765ed1c7aef2755d0076c69c2cd411"
        );
    }

    #[test]
    fn so_is_the_digest_of_a_list() {
        // printf %s sha256:00 | openssl dgst -sha256 -hmac 0123456789abcdef
        let lists = [ListRevision {
            name: "blocked".to_owned(),
            digest: "sha256:00".to_owned(),
            size: 1,
            revision: None,
        }];
        let pseudonyms = Pseudonyms::keyed(&key("0123456789abcdef"));
        assert_eq!(
            pseudonyms.of_lists(&lists)[0].digest,
            "hmac-sha256:9cf5f6cf727eb3b28ff8e1f8652736d54b25ee80d477f63844c00a41dc27f7f1"
        );
        assert_eq!(*Pseudonyms::Off.of_lists(&lists), lists);
    }

    #[test]
    fn a_pseudonym_depends_on_the_id_and_the_key_only() {
        let one = Pseudonyms::keyed(&key("the first of two keys"));
        let other = Pseudonyms::keyed(&key("the other of two keys"));
        assert_eq!(one.of(&id("a")), one.clone().of(&id("a")));
        assert_ne!(one.of(&id("a")), one.of(&id("b")));
        assert_ne!(one.of(&id("a")), other.of(&id("a")));
        let both = [id("a"), id("b")];
        let each = both.each_ref().map(|id| one.of(id).into_owned());
        assert_eq!(*one.of_all(&both), each);
    }

    #[test]
    fn without_a_key_ids_are_kept_and_with_an_unusable_one_they_are_redacted() {
        let one = [id("a")];
        assert_eq!(*Pseudonyms::Off.of_all(&one), one);
        let two = [id("a"), id("b")];
        let redacted = Pseudonyms::Redacted.of_all(&two).into_owned();
        assert_eq!(redacted, [id("pn_redacted"), id("pn_redacted")]);
    }

    #[test]
    fn a_key_is_long_enough_and_never_shown() {
        let error = "123456789012345\n".parse::<PseudonymKey>().unwrap_err();
        assert!(error.to_string().contains("15 bytes"), "{error}");
        let settings = PseudonymSettings {
            pseudonym_key: Some(key("0123456789abcdef")),
            pseudonym_key_file: None,
        };
        assert!(!format!("{settings:?}").contains("0123456789abcdef"));
        let pseudonyms = settings.pseudonyms().unwrap();
        assert_eq!(format!("{pseudonyms:?}"), "Keyed");
    }

    #[test]
    fn a_key_in_a_file_is_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        fs::write(&file, "0123456789abcdef\n").unwrap();
        let settings = |pseudonym_key_file| PseudonymSettings {
            pseudonym_key: None,
            pseudonym_key_file,
        };
        let from_file = settings(Some(file)).pseudonyms().unwrap();
        let direct = Pseudonyms::keyed(&key("0123456789abcdef"));
        assert_eq!(from_file.of(&id("a")), direct.of(&id("a")));
        let missing = settings(Some(dir.path().join("nowhere")));
        assert!(
            missing
                .pseudonyms()
                .unwrap_err()
                .to_string()
                .contains("nowhere")
        );
    }
}
