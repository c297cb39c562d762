//! The bucket on NATS: opens or creates its stream, and reads the values in it.

use std::time::Duration;

use async_nats::jetstream::{
    self, ErrorCode,
    context::{CreateStreamErrorKind, GetStreamErrorKind, RequestError, RequestErrorKind},
    stream::{Config, DiscardPolicy, LastRawMessageErrorKind, StorageType, Stream},
};
use bytes::Bytes;
use time::OffsetDateTime;

use crate::{Brief, Key, ListName};

/// The bucket's name.
pub const BUCKET: &str = "IMPORTGUARD_LISTS";

/// The name of the bucket's stream.
pub const STREAM: &str = "KV_IMPORTGUARD_LISTS";

/// The subjects of the bucket's stream.
pub const SUBJECTS: &str = "$KV.IMPORTGUARD_LISTS.>";

/// The prefix of the subjects, before the key.
const PREFIX: &str = "$KV.IMPORTGUARD_LISTS.";

/// The header with which key-value clients mark a key as deleted.
const OPERATION: &str = "KV-Operation";

/// The header with which nats-server 2.11 and later reports why it removed a message.
const MARKER_REASON: &str = "Nats-Marker-Reason";

/// How long NATS recognises a repeated change by the ID of its event.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(10 * 60);

/// Why the bucket cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// The bucket does not exist.
    #[error(
        "there is no bucket {BUCKET}: restore it if it was lost; `importguard list create` is for the first installation, as nobody is in a new one"
    )]
    Missing,
    /// JetStream is disabled.
    #[error("JetStream is off on this NATS server or for this account (nats-server needs -js)")]
    JetStreamOff,
    /// NATS did not answer.
    #[error(
        "NATS did not answer for the stream {STREAM}: it is stuck or unreachable, or its permissions deny {0}"
    )]
    NoAnswer(&'static str),
    /// NATS refused the request.
    #[error("NATS refused: {0}")]
    Refused(String),
    /// The change was made, but its event could not be published. A later writer publishes it.
    #[error(
        "the change is made, but its event is not published yet ({cause}); the next command that changes a list publishes it, a minute after this change at the earliest{}",
        if *lost { "; the event about the entry's previous change is lost" } else { "" }
    )]
    Unpublished {
        /// The revision of the change.
        revision: u64,
        /// Whether there was an active entry before; `false` if the writer did not check.
        existed: bool,
        /// Whether the change replaced another one whose event was not published either, and now never will be.
        lost: bool,
        /// Why the event could not be published.
        cause: Box<Self>,
    },
}

/// The state of the bucket's stream at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// When the stream was created.
    pub created: OffsetDateTime,
    /// The revision of the last change, or of the last one before the stream was emptied.
    pub last: u64,
    /// The number of keys, including importguard's own keys and those marked as removed.
    pub keys: u64,
}

/// The bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub(crate) jetstream: jetstream::Context,
    pub(crate) stream: Stream,
}

impl Bucket {
    /// Opens the bucket.
    ///
    /// # Errors
    /// If the bucket is missing or cannot be used.
    pub async fn open(jetstream: &jetstream::Context) -> Result<Self, BucketError> {
        let stream = jetstream
            .get_stream(STREAM)
            .await
            .map_err(|error| match error.kind() {
                GetStreamErrorKind::JetStream(error) => match error.error_code() {
                    ErrorCode::STREAM_NOT_FOUND => BucketError::Missing,
                    ErrorCode::JETSTREAM_NOT_ENABLED
                    | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => BucketError::JetStreamOff,
                    _ => BucketError::Refused(error.to_string()),
                },
                _ => request_error(&error, "$JS.API.STREAM.INFO.KV_IMPORTGUARD_LISTS"),
            })?;
        Ok(Self {
            jetstream: jetstream.clone(),
            stream,
        })
    }

    /// When the bucket was created, as of when it was opened.
    pub fn created(&self) -> OffsetDateTime {
        self.stream.cached_info().created
    }

    /// Opens the bucket, creating it with this number of replicas if it is missing.
    ///
    /// # Errors
    /// If the bucket cannot be created or used.
    pub async fn open_or_create(
        jetstream: &jetstream::Context,
        replicas: u8,
    ) -> Result<Self, BucketError> {
        match Self::open(jetstream).await {
            Err(BucketError::Missing) => {}
            opened => return opened,
        }
        // Creates the stream directly: nats-server before 2.10 does not support every request that the client sends to create a bucket.
        let config = Config {
            name: STREAM.to_owned(),
            description: Some("Live lists of importguard".to_owned()),
            subjects: vec![SUBJECTS.to_owned()],
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            num_replicas: usize::from(replicas),
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        };
        match jetstream.create_stream(config).await {
            Ok(stream) => Ok(Self {
                jetstream: jetstream.clone(),
                stream,
            }),
            Err(error) => Err(match error.kind() {
                CreateStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NAME_EXIST =>
                {
                    // Another process created the bucket meanwhile.
                    return Self::open(jetstream).await;
                }
                CreateStreamErrorKind::JetStream(error) => BucketError::Refused(error.to_string()),
                _ => request_error(&error, "$JS.API.STREAM.CREATE.KV_IMPORTGUARD_LISTS"),
            }),
        }
    }

    /// Returns the number of replicas of its stream.
    pub fn replicas(&self) -> usize {
        self.stream.cached_info().config.num_replicas
    }

    /// Requests the bucket's current state from the leader of its stream.
    ///
    /// # Errors
    /// If the bucket no longer exists, or NATS does not answer, or refuses the request.
    pub async fn state(&self) -> Result<State, BucketError> {
        Self::open(&self.jetstream)
            .await
            .map(|bucket| bucket.state_when_opened())
    }

    /// The bucket's state at the time it was opened.
    pub fn state_when_opened(&self) -> State {
        let info = self.stream.cached_info();
        State {
            created: info.created,
            last: info.state.last_sequence,
            keys: info.state.subjects_count,
        }
    }

    /// Returns the revision and the value at a key, from the leader. `None` if the key has no message. A delete marker of another client
    /// reads as a removed entry.
    ///
    /// # Errors
    /// If NATS does not answer, or refuses the request.
    pub(crate) async fn value(&self, key: &str) -> Result<Option<(u64, Bytes)>, BucketError> {
        let found = self
            .stream
            .get_last_raw_message_by_subject(&subject(key))
            .await;
        match found {
            Ok(message) if is_marker(&message.headers) => Ok(Some((
                message.sequence,
                Bytes::from_static(b"{\"removed\":true}"),
            ))),
            Ok(message) => Ok(Some((message.sequence, message.payload))),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(error) => {
                    Err(BucketError::Refused(error.to_string()))
                }
                _ => Err(request_error(
                    &error,
                    "$JS.API.STREAM.MSG.GET.KV_IMPORTGUARD_LISTS",
                )),
            },
        }
    }

    /// Whether the bucket has a key of `list`: an entry, or what is left of one until it is cleared away.
    ///
    /// # Errors
    /// If NATS does not answer, or refuses the request.
    pub async fn has_list(&self, list: &ListName) -> Result<bool, BucketError> {
        Ok(self.value(&format!("{list}.*")).await?.is_some())
    }

    /// Calls `read` with the value at `key`, whether or not it is an active entry, and returns the result. `None` if there is no value.
    ///
    /// # Errors
    /// If NATS does not answer, or refuses the request.
    pub async fn look_up<T>(
        &self,
        key: &Key,
        read: impl FnOnce(&Brief<'_>) -> T,
    ) -> Result<Option<T>, BucketError> {
        let value = self.value(&key.to_string()).await?;
        Ok(value.map(|(_, value)| read(&Brief::read(&value))))
    }

    /// Calls `read` with the entry at `key`, and returns the result. `None` if there is no entry, or it is removed, or it has expired at
    /// `now`, in Unix seconds.
    ///
    /// # Errors
    /// If NATS does not answer, or refuses the request.
    pub async fn entry<T>(
        &self,
        key: &Key,
        now: u64,
        read: impl FnOnce(&Brief<'_>) -> T,
    ) -> Result<Option<T>, BucketError> {
        let active = |brief: &Brief<'_>| (!brief.is_dead(now)).then(|| read(brief));
        Ok(self.look_up(key, active).await?.flatten())
    }
}

/// The subject of a key.
pub(crate) fn subject(key: &str) -> String {
    format!("{PREFIX}{key}")
}

/// The key of a subject.
pub(crate) fn key_of(subject: &str) -> Option<&str> {
    subject.strip_prefix(PREFIX)
}

/// Whether a message with these headers marks its key as deleted.
pub(crate) fn is_marker(headers: &async_nats::HeaderMap) -> bool {
    let operation = headers.get(OPERATION).map(|operation| operation.as_str());
    matches!(operation, Some("DEL" | "PURGE")) || headers.get(MARKER_REASON).is_some()
}

/// Converts the error of a request that JetStream did not answer. `subject` is the subject of that request.
pub(crate) fn request_error(
    error: &(dyn std::error::Error + 'static),
    subject: &'static str,
) -> BucketError {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(request) = error.downcast_ref::<RequestError>() {
            return match request.kind() {
                RequestErrorKind::NoResponders => BucketError::JetStreamOff,
                _ => BucketError::NoAnswer(subject),
            };
        }
        source = error.source();
    }
    BucketError::Refused(error.to_string())
}
