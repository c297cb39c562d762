//! The recorder's only connection to NATS: publishes messages and interprets their acks.

use std::{
    borrow::Cow,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, ClientError, Event, HeaderMap, HeaderValue, Subject,
    connection::State as ConnectionState,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self,
        context::{ContextBuilder, PublishAckFuture},
        message::PublishMessage,
    },
};
use importguard_nats::NatsServers;
use importguard_telemetry::propagation::MessageHeaders;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::{
    StartError,
    blocked::Denials,
    refusal::{AckError, Refusal},
    settings::{BACKGROUND_TIMEOUT, STREAM},
};
use crate::{
    events::{self, CONTENT_TYPE},
    spool::PendingEvent,
};

/// How often to check, while an ack is outstanding, whether its connection is still there and its subject was not denied: often enough to
/// avoid a long wait, rarely enough to cost little.
const ACK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// More than a gateway's concurrent callbacks and its drain need together. Beyond this limit, publishing waits.
const ACKS_IN_FLIGHT: usize = 8192;

/// An event that was sent and not yet acknowledged.
pub(super) struct Sent {
    subject: Subject,
    ack: PublishAckFuture,
    /// The connection it was sent on. Its ack arrives on no other.
    connection: Option<u64>,
    /// Number of denials of the subject before it was sent.
    denials: u64,
}

/// When NATS stored an event that it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Now,
    /// It had the event already.
    Before,
}

/// The connection to NATS.
#[derive(Debug)]
pub(super) struct Publisher {
    client: Client,
    jetstream: jetstream::Context,
    /// The stream's limit on the size of a message with its headers, in bytes; `usize::MAX` if it has none.
    stream_limit: AtomicUsize,
    /// The JetStream domain of the stream; empty if it has none.
    domain: Mutex<String>,
    /// The stream's last known sequence: events published from now on are stored after it.
    sequence: AtomicU64,
    denials: Arc<Denials>,
    servers: String,
    /// The host and port of the server, if the settings name exactly one.
    server: Option<(String, u16)>,
}

impl Publisher {
    /// Starts connecting and returns immediately. `on_event` is called with every event of the client.
    pub(super) async fn connect(
        mut servers: NatsServers,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let named = servers.names();
        let server = match &servers.addresses[..] {
            [only] => Some((only.host().to_owned(), only.port())),
            _ => None,
        };
        let on_event = Arc::new(on_event);
        let denials = Arc::new(Denials::default());
        let denied = denials.clone();
        servers.options = servers.options.event_callback(move |event| {
            denied.note(&event);
            on_event(event);
            std::future::ready(())
        });
        let client = servers
            .connect_in_background()
            .await
            .map_err(|source| StartError::Nats {
                servers: named.clone(),
                source,
            })?;
        let jetstream = ContextBuilder::new()
            .timeout(BACKGROUND_TIMEOUT)
            .max_ack_inflight(ACKS_IN_FLIGHT)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            stream_limit: AtomicUsize::new(usize::MAX),
            domain: Mutex::default(),
            sequence: AtomicU64::new(0),
            denials,
            servers: named,
            server,
        })
    }

    pub(super) fn server(&self) -> Option<&(String, u16)> {
        self.server.as_ref()
    }

    /// Returns whether the connection is established. If not, do not publish: async-nats would keep the message and deliver it after a
    /// reconnect, long after its event was spooled.
    pub(super) fn connected(&self) -> bool {
        self.client.connection_state() == ConnectionState::Connected
    }

    /// Returns the number of the current connection, or `None` if there is none.
    pub(super) fn connection(&self) -> Option<u64> {
        let number = self.client.statistics().connects.load(Ordering::Relaxed);
        self.connected().then_some(number)
    }

    /// Waits for the ack of a message, until `within` after `start`.
    pub(super) async fn acknowledged(
        &self,
        sent: Sent,
        start: Instant,
        within: Duration,
    ) -> Result<Stored, AckError> {
        let deadline = start + within;
        let mut ack = sent.ack.into_future();
        let ack = loop {
            let look = deadline.min(Instant::now() + ACK_POLL_INTERVAL);
            match timeout_at(look, &mut ack).await {
                Ok(ack) => break ack?,
                Err(_) if self.denials.of(&sent.subject) != sent.denials => {
                    return Err(AckError::Refused(Refusal::permission_denied(&sent.subject)));
                }
                Err(_) if self.connection() != sent.connection => {
                    return Err(AckError::Disconnected);
                }
                Err(_) if look == deadline => return Err(AckError::Timeout(within)),
                Err(_) => {}
            }
        };
        if ack.stream != STREAM {
            let refusal = Refusal::other_stream(&sent.subject, &ack.stream);
            return Err(AckError::Refused(refusal));
        }
        if ack.domain != *self.domain.lock() {
            return Err(AckError::OtherDomain(ack.domain));
        }
        self.set_sequence(ack.sequence);
        Ok(match ack.duplicate {
            true => Stored::Before,
            false => Stored::Now,
        })
    }

    /// Sets the JetStream domain of the stream: a stream of this name in another one may acknowledge events, too.
    pub(super) fn set_domain(&self, domain: String) {
        *self.domain.lock() = domain;
    }

    /// Records `sequence` as the stream's last known one.
    pub(super) fn set_sequence(&self, sequence: u64) {
        self.sequence.store(sequence, Ordering::Release);
    }

    /// Returns the stream's last known sequence. A message sent after this call is stored after it.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// `host:port` of every server in the settings.
    pub(super) fn servers(&self) -> &str {
        &self.servers
    }

    /// Sets the stream's limit on the size of a message with its headers, in bytes; `None` if it has none.
    pub(super) fn limit_messages(&self, bytes: Option<usize>) {
        self.stream_limit
            .store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Returns the size of the largest message that NATS accepts, headers included, in bytes.
    pub(super) fn max_payload(&self) -> usize {
        self.client
            .max_payload()
            .min(self.stream_limit.load(Ordering::Relaxed))
    }

    /// Sends `event` after all earlier ones. Waits only if the connection cannot keep up or `ACKS_IN_FLIGHT` acks are outstanding.
    pub(super) async fn send(&self, event: &PendingEvent) -> Result<Sent, AckError> {
        let subject = match &event.subject {
            Cow::Borrowed(subject) => Subject::from_static(subject),
            Cow::Owned(subject) => Subject::from(subject.as_str()),
        };
        let (connection, denials) = (self.connection(), self.denials.of(&subject));
        // The payload nearly always fits, but a spooled event may have been made for another server.
        let payload = events::fit(event.payload.clone(), self.max_payload());
        let headers = headers(event);
        let publish = PublishMessage::build().payload(payload).headers(headers);
        let ack = self
            .jetstream
            .send_publish(subject.clone(), publish)
            .await?;
        Ok(Sent {
            subject,
            ack,
            connection,
            denials,
        })
    }

    /// Flushes pending messages to the socket and closes the connection; gives up at `deadline`.
    pub(super) async fn close(&self, deadline: Instant) {
        let flushed = async {
            if self.connected() {
                // Either fails only if the connection is already lost.
                let _ = self.client.flush().await;
                let _ = self.client.drain().await;
            }
        };
        if timeout_at(deadline, flushed).await.is_err() {
            tracing::warn!("the connection to NATS could not be flushed in time");
        }
    }
}

/// Returns the error in a connection event, for the recorder's status.
pub(super) fn connection_error(event: &Event) -> Option<String> {
    match event {
        Event::ServerError(error) => Some(format!("NATS reports: {error}")),
        // A failed connection attempt. `NatsServers::on_failure` reports it with its cause, except for DNS errors, which it does not see.
        Event::ClientError(ClientError::Other(kind)) if !kind.contains("DNS error") => None,
        Event::ClientError(ClientError::Other(_)) => {
            Some("cannot resolve the host name in NATS_URL".to_owned())
        }
        Event::ClientError(error) => Some(format!("cannot connect to NATS: {error}")),
        Event::Disconnected => Some(AckError::Disconnected.to_string()),
        _ => None,
    }
}

fn headers(event: &PendingEvent) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, event.id.to_string());
    headers.insert("Content-Type", CONTENT_TYPE);
    let MessageHeaders {
        traceparent,
        tracestate,
        baggage,
    } = &event.trace;
    for (name, value) in [
        ("operationID", Some(event.operation_id.as_str())),
        ("traceparent", traceparent.as_deref()),
        ("tracestate", tracestate.as_deref()),
        ("baggage", baggage.as_deref()),
    ] {
        // Inserting a string with a line break would panic.
        if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
            headers.insert(name, value);
        }
    }
    headers
}
