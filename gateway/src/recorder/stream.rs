//! Ensures that the stream exists, and looks up which events it already holds.

use std::collections::HashSet;

use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{DeliverPolicy, OrderedPushConsumer, push},
    context::{
        CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind, RequestError,
        RequestErrorKind,
    },
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream},
};
use futures_util::StreamExt;
use importguard_core::EventId;

use super::{
    requirements::{self, Unfit},
    settings::{BACKGROUND_TIMEOUT, STREAM, StreamSettings},
};

/// Covers all current subjects and those that later versions add.
pub(super) const SUBJECTS: &str = "importguard.v1.>";

/// Maximum sizes to try, in order. NATS reserves a stream's maximum size when it is created, so the size must fit into the storage that
/// operators usually have: 8 GiB fit into the 10 GiB that NATS's Helm chart gives a server, and hold seven million typical events, twenty
/// hours at 100 callbacks a second. If there is no room for one size, the next is tried.
const MAX_BYTES: [i64; 4] = [8 << 30, 4 << 30, 2 << 30, 1 << 30];

/// Why no stream is available to publish to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unavailable {
    #[error("JetStream is off on this NATS server or for this account (nats-server needs -js)")]
    JetStreamOff,
    #[error(
        "NATS did not answer for the stream {STREAM} within {}: the server that has or leads it is away, NATS is stuck, or its permissions deny $JS.API.STREAM.INFO.{STREAM} or …CREATE.{STREAM}",
        humantime::format_duration(BACKGROUND_TIMEOUT)
    )]
    NoAnswer,
    #[error(
        "the stream {STREAM} has no leader: too few of its servers are reachable (not current: {0}): start them, or repair the network between them"
    )]
    NoLeader(String),
    #[error("the stream {STREAM} is missing and NATS refused to create it: {0}")]
    NotCreated(String),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("NATS answered for the stream {STREAM}: {0}")]
    Other(String),
}

/// Returns the stream. If it is missing, creates it: with the limits and replicas of `last`, which is how it was last seen, or else with
/// `settings`. From then on its settings belong to the operator.
pub(super) async fn ensure(
    jetstream: &jetstream::Context,
    settings: &StreamSettings,
    last: Option<&Config>,
) -> Result<Stream, Unavailable> {
    let error = match jetstream.get_stream(STREAM).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND => create(jetstream, settings, last).await,
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                Err(Unavailable::JetStreamOff)
            }
            _ => Err(Unavailable::Other(error.to_string())),
        },
        _ => match std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<RequestError>())
            .map(|error| error.kind())
        {
            Some(RequestErrorKind::NoResponders) => Err(Unavailable::JetStreamOff),
            Some(RequestErrorKind::TimedOut) => Err(Unavailable::NoAnswer),
            _ => Err(Unavailable::Other(error.to_string())),
        },
    }
}

/// Returns an error if no event can be recorded in a stream, whatever is published.
pub(super) fn usable(info: &Info) -> Result<(), Unavailable> {
    if let Some(unfit) = requirements::unfit(&info.config) {
        return Err(unfit.into());
    }
    match &info.cluster {
        Some(cluster) if cluster.leader.is_none() => {
            let away = cluster.replicas.iter().filter(|replica| !replica.current);
            let names: Vec<_> = away.map(|replica| replica.name.as_str()).collect();
            Err(Unavailable::NoLeader(names.join(", ")))
        }
        _ => Ok(()),
    }
}

async fn create(
    jetstream: &jetstream::Context,
    settings: &StreamSettings,
    last: Option<&Config>,
) -> Result<Stream, Unavailable> {
    let duplicate_window = settings.duplicate_window;
    let replicas = usize::from(settings.replicas);
    let (max_age, max_bytes, replicas) = match last {
        Some(last) => (
            last.max_age,
            Some(last.max_bytes),
            replicas.max(last.num_replicas),
        ),
        None => (settings.max_age, settings.max_bytes, replicas),
    };
    let config = Config {
        name: STREAM.to_owned(),
        description: Some("Decisions on OpenIM's friend imports".to_owned()),
        subjects: vec![SUBJECTS.to_owned()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        max_age,
        max_messages: last.map_or(-1, |last| last.max_messages),
        num_replicas: replicas,
        placement: last.and_then(|last| last.placement.clone()),
        // NATS refuses a duplicate window longer than the maximum age; zero means no maximum age.
        duplicate_window: if max_age.is_zero() {
            duplicate_window
        } else {
            duplicate_window.min(max_age)
        },
        ..Config::default()
    };
    let sizes = match &max_bytes {
        Some(size) => std::slice::from_ref(size),
        None => &MAX_BYTES,
    };
    let mut refused = None;
    for &max_bytes in sizes {
        let config = Config {
            max_bytes,
            ..config.clone()
        };
        match jetstream.create_stream(config).await {
            Ok(stream) => {
                tracing::info!(
                    max_age = %humantime::format_duration(max_age),
                    max_bytes,
                    replicas,
                    "created the stream {STREAM}"
                );
                if let Some(refused) = refused {
                    tracing::warn!(
                        max_bytes,
                        "NATS has no room for a larger stream ({refused}): give it more storage, then `nats stream edit {STREAM} --max-bytes …`"
                    );
                }
                return Ok(stream);
            }
            Err(error) if is_too_large(&error) => refused = Some(error.to_string()),
            Err(error) => return Err(Unavailable::NotCreated(error.to_string())),
        }
    }
    Err(Unavailable::NotCreated(refused.unwrap_or_default()))
}

/// Returns whether NATS has no room for a stream of this size: on this server, on any server of the cluster, or in the account.
fn is_too_large(error: &CreateStreamError) -> bool {
    let CreateStreamErrorKind::JetStream(error) = error.kind() else {
        return false;
    };
    matches!(
        error.error_code(),
        ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::CLUSTER_NO_PEERS
    )
}

/// Returns the JetStream domain of the stream that an operator sees from here; empty if it has none.
pub(super) async fn domain(jetstream: &jetstream::Context) -> Result<String, Unavailable> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        domain: String,
    }
    let answer: Answer = jetstream
        .request(format!("STREAM.INFO.{STREAM}"), &())
        .await
        .map_err(|error| Unavailable::Other(error.to_string()))?;
    Ok(answer.domain)
}

/// Returns which of `ids` the stream holds after the sequence `after`. Reads the headers of the messages from there up to the one that was
/// last at the start, or until all `ids` are found.
pub(super) async fn stored(
    stream: &mut Stream,
    inbox: String,
    ids: &HashSet<EventId>,
    after: u64,
) -> Result<HashSet<EventId>, LookUpError> {
    let last = stream.info().await.map_err(LookUpError::new)?;
    // A sequence that the stream has not reached comes from an earlier stream of the same name.
    let after = if after > last.state.last_sequence {
        0
    } else {
        after
    };
    let consumer = stream
        .create_consumer(push::OrderedConfig {
            deliver_subject: inbox,
            headers_only: true,
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: after + 1,
            },
            ..Default::default()
        })
        .await
        .map_err(LookUpError::new)?;
    let name = consumer.cached_info().name.clone();
    let found = find(consumer, ids).await;
    // NATS would keep it for half a minute, and limits how many there are.
    if let Err(error) = stream.delete_consumer(&name).await {
        tracing::debug!(%error, "can't delete the consumer of a lookup");
    }
    found
}

async fn find(
    consumer: OrderedPushConsumer,
    ids: &HashSet<EventId>,
) -> Result<HashSet<EventId>, LookUpError> {
    let mut found = HashSet::new();
    // Later messages need no lookup: their publisher saw the ack, or they are recent enough for NATS to know their IDs.
    let mut pending = consumer.cached_info().num_pending;
    let mut unread = pending;
    let mut messages = consumer.messages().await.map_err(LookUpError::new)?;
    while pending > 0 && unread > 0 && found.len() < ids.len() {
        let message = tokio::time::timeout(BACKGROUND_TIMEOUT, messages.next())
            .await
            .map_err(LookUpError::new)?
            .ok_or_else(|| LookUpError("the connection is lost".to_owned()))?
            .map_err(LookUpError::new)?;
        pending = message.info().map_err(LookUpError::new)?.pending;
        unread -= 1;
        let id = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(async_nats::header::NATS_MESSAGE_ID))
            .and_then(|id| EventId::parse(id.as_str()).ok());
        if let Some(id) = id.filter(|id| ids.contains(id)) {
            found.insert(id);
        }
    }
    Ok(found)
}

/// Why a lookup in the stream failed.
#[derive(Debug, thiserror::Error)]
#[error("can't look up earlier events in the stream {STREAM}: {0}")]
pub(super) struct LookUpError(String);

impl LookUpError {
    fn new(error: impl ToString) -> Self {
        Self(error.to_string())
    }
}
