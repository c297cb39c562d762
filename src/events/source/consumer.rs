//! The stream and the consumer on it.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    context::{GetStreamError, GetStreamErrorKind, RequestError, RequestErrorKind},
    stream::{ConsumerError, ConsumerErrorKind, Info, Stream},
};
use importguard_runtime::whole_text;

use super::{STREAM, Source, client_name};
use crate::events::{Durable, rfc3339};

/// How long NATS keeps an ephemeral consumer without a reader. A server restarts in less.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(300);

impl Source {
    /// Says that earlier events than those read may have happened since `since`; `None` if not, or if the stream was not found.
    pub(crate) fn gap(&self, since: SystemTime) -> Option<String> {
        let state = &self.found.as_ref()?.state;
        let first = SystemTime::from(state.first_timestamp);
        match state.messages {
            0 if state.last_sequence == 0 => None,
            0 => Some("the stream is empty: its events have expired or were removed".to_owned()),
            _ if first <= since => None,
            _ => Some(format!(
                "the stream begins at {}: earlier events have expired, or there were none",
                rfc3339(first)
            )),
        }
    }

    /// Looks up or creates the consumer; `None` if that must be retried.
    pub(super) async fn consumer(
        &mut self,
        jetstream: &jetstream::Context,
    ) -> anyhow::Result<Option<PullConsumer>> {
        let stream = match jetstream.get_stream(STREAM).await {
            Ok(stream) => stream,
            Err(_) if self.lost_connection() => return Ok(None),
            Err(error) => {
                let missing = matches!(error.kind(), GetStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND);
                if missing && !self.range.follows() {
                    bail!("no stream {STREAM}: no gateway has created it yet");
                }
                match error.kind() {
                    _ if missing => self.status.report(&format!(
                        "no stream {STREAM} yet; waiting for a gateway to create it"
                    )),
                    GetStreamErrorKind::Request if is_off(&error) => self.status.report_retry(
                        "JetStream is off at this NATS server (nats-server needs -js)",
                    ),
                    _ => self.status.report_retry(&format!(
                        "cannot access the stream {STREAM} ({})",
                        whole_text(&error)
                    )),
                }
                return Ok(None);
            }
        };
        let info = stream.cached_info();
        if !self.range.follows() {
            self.last.get_or_insert(info.state.last_sequence);
        }
        self.found.get_or_insert_with(|| info.clone());
        let start = self.start(info);
        let found = match &self.durable {
            Some(durable) => create_durable(&stream, durable, start).await,
            None => self.ephemeral(&stream, start).await,
        };
        match found {
            Ok(consumer) => {
                if let Some(durable) = &self.durable {
                    durable.check(&consumer)?;
                }
                self.status.recovered();
                Ok(Some(consumer))
            }
            Err(_) if self.lost_connection() => Ok(None),
            Err(error) => match error.kind() {
                // A bad request, for example because the name belongs to another kind of consumer. Other errors are the server's, and
                // temporary.
                ConsumerErrorKind::JetStream(refused) if refused.code() == 400 => {
                    bail!("NATS rejected the consumer on {STREAM}: {refused}")
                }
                ConsumerErrorKind::InvalidConsumerType => {
                    bail!(
                        "NATS rejected the consumer on {STREAM}: {}",
                        whole_text(&error)
                    )
                }
                _ => {
                    let cause = whole_text(&error);
                    let status = &self.status;
                    status.report_retry(&format!("cannot create a consumer on {STREAM} ({cause})"));
                    Ok(None)
                }
            },
        }
    }

    /// Where a consumer starts that NATS does not have: after the last event that was read, or where the range begins.
    fn start(&mut self, info: &Info) -> DeliverPolicy {
        let created = SystemTime::from(info.created);
        let is_another = self
            .created
            .replace(created)
            .is_some_and(|before| before != created);
        // The sequence of a stream that was created again, or restored from a backup, restarts before this position.
        let last = info.state.last_sequence;
        if is_another || self.position.is_some_and(|position| position > last) {
            self.position = Some(0);
        }
        match self.position {
            Some(position) => DeliverPolicy::ByStartSequence {
                start_sequence: position + 1,
            },
            None => self.range.begin.policy(),
        }
    }

    async fn ephemeral(
        &mut self,
        stream: &Stream,
        start: DeliverPolicy,
    ) -> Result<PullConsumer, ConsumerError> {
        // Servers before 2.10 ignore a list, so that they send every subject.
        let (one, several) = match self.subjects {
            [one] => ((*one).to_owned(), Vec::new()),
            several => {
                let several = several.iter().map(|subject| (*subject).to_owned());
                (String::new(), several.collect())
            }
        };
        let inbox = self.client.new_inbox();
        let unique = inbox.rsplit('.').next().unwrap_or_default();
        let config = pull::Config {
            name: Some(format!("{}-{unique}", client_name(self.status.console()))),
            ack_policy: AckPolicy::None,
            filter_subject: one,
            filter_subjects: several,
            deliver_policy: start,
            inactive_threshold: INACTIVE_THRESHOLD,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = stream.create_consumer(config).await?;
        // "New events" means from here on, even if the connection is lost before the first event.
        let delivered = consumer.cached_info().delivered.stream_sequence;
        self.position.get_or_insert(delivered);
        Ok(consumer)
    }
}

/// Returns the consumer with this name, which NATS may have already.
async fn create_durable(
    stream: &Stream,
    durable: &Durable,
    start: DeliverPolicy,
) -> Result<PullConsumer, ConsumerError> {
    let config = pull::Config {
        durable_name: Some(durable.name.clone()),
        description: Some(durable.description()),
        ack_policy: AckPolicy::Explicit,
        deliver_policy: start,
        ..pull::Config::default()
    };
    stream.get_or_create_consumer(&durable.name, config).await
}

/// Whether no JetStream answers at all.
fn is_off(error: &GetStreamError) -> bool {
    let request = error
        .source()
        .and_then(|source| source.downcast_ref::<RequestError>());
    request.is_some_and(|request| request.kind() == RequestErrorKind::NoResponders)
}
