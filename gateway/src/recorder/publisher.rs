//! The one connection to NATS: what goes over it, and what its acks say.

use std::{
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
use bytes::Bytes;
use importguard_core::EventId;
use importguard_nats::NatsServers;
use importguard_telemetry::propagation::MessageHeaders;
use tokio::time::{Instant, timeout_at};

use super::{
    StartError,
    blocked::Denials,
    refusal::{AckError, Refusal},
    stream,
};
use crate::{
    events::{self, CONTENT_TYPE},
    spool::StoredEvent,
};

/// For background work: the drain's acks, questions about the stream. A busy cluster elects a new leader in this.
pub(super) const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// Two unanswered pings end a connection, so one whose other end vanished is noticed within three of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How soon a server that came back is noticed, and how often one that is away is tried.
const RECONNECT_AT_MOST: Duration = Duration::from_secs(1);

/// How often an ack that is long in coming is asked whether its connection is still there: no burden, and no long wait.
const GLANCE: Duration = Duration::from_millis(100);

/// More than a gateway answers at once and a drain has under way together; beyond it publishing waits.
const ACKS_IN_FLIGHT: usize = 8192;

/// Longer baggage stays out of the header: with the rest it would eat up the room of the event itself.
const BAGGAGE_BYTES: usize = 1024;

/// What a message is made of, from a request or from the spool.
pub(super) struct Message<'a> {
    id: EventId,
    subject: Subject,
    operation_id: &'a str,
    trace: &'a MessageHeaders,
    payload: &'a Bytes,
}

impl<'a> From<&'a events::Event> for Message<'a> {
    fn from(event: &'a events::Event) -> Self {
        Self {
            id: event.id,
            subject: Subject::from_static(event.subject.as_str()),
            operation_id: event.operation_id.as_str(),
            trace: &event.trace,
            payload: &event.payload,
        }
    }
}

impl<'a> From<&'a StoredEvent> for Message<'a> {
    fn from(event: &'a StoredEvent) -> Self {
        Self {
            id: event.id,
            subject: Subject::from(event.subject.as_str()),
            operation_id: &event.operation_id,
            trace: &event.trace,
            payload: &event.payload,
        }
    }
}

/// A message on its way.
pub(super) struct Sent {
    subject: Subject,
    ack: PublishAckFuture,
    /// No ack comes over another connection than the message went.
    connection: Option<u64>,
    /// The subject's denials before it.
    denials: u64,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Publisher {
    client: Client,
    jetstream: jetstream::Context,
    /// The stream's own limit for a message with its headers; `usize::MAX` without one.
    stream_limit: AtomicUsize,
    /// The stream's last sequence as far as it is known: what is published from now on comes after it.
    sequence: AtomicU64,
    denials: Arc<Denials>,
    servers: String,
    /// The only server that the settings name.
    server: Option<(String, u16)>,
}

impl Publisher {
    /// Starts connecting and returns at once; `on_event` hears of every change of the connection.
    pub(super) async fn connect(
        servers: NatsServers,
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
        let client = servers
            .options
            .retry_on_initial_connect()
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                denied.note(&event);
                on_event(event);
                std::future::ready(())
            })
            .connect(servers.addresses)
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
            sequence: AtomicU64::new(0),
            denials,
            servers: named,
            server,
        })
    }

    pub(super) fn server(&self) -> Option<&(String, u16)> {
        self.server.as_ref()
    }

    /// False means: don't publish. async-nats would keep the message and deliver it after a reconnect, long after its
    /// event went to the spool.
    pub(super) fn connected(&self) -> bool {
        self.client.connection_state() == ConnectionState::Connected
    }

    /// The number of the connection that is there now.
    fn connection(&self) -> Option<u64> {
        let number = self.client.statistics().connects.load(Ordering::Relaxed);
        self.connected().then_some(number)
    }

    /// Waits for the ack of a message, `within` this long from `start`.
    pub(super) async fn acknowledged(
        &self,
        sent: Sent,
        start: Instant,
        within: Duration,
    ) -> Result<(), AckError> {
        let deadline = start + within;
        let mut ack = sent.ack.into_future();
        let ack = loop {
            let look = deadline.min(Instant::now() + GLANCE);
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
        if ack.stream != stream::NAME {
            let refusal = Refusal::other_stream(&sent.subject, &ack.stream);
            return Err(AckError::Refused(refusal));
        }
        self.has_reached(ack.sequence);
        Ok(())
    }

    /// The stream has come to this sequence.
    pub(super) fn has_reached(&self, sequence: u64) {
        self.sequence.store(sequence, Ordering::Release);
    }

    /// The stream's last sequence as far as it is known. What is stored of a message that is sent after asking comes later.
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

    /// The largest message the stream takes, headers included, if it has a limit of its own.
    pub(super) fn limit_messages(&self, bytes: Option<usize>) {
        self.stream_limit
            .store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The largest message NATS takes, headers included.
    pub(super) fn max_payload(&self) -> usize {
        self.client
            .max_payload()
            .min(self.stream_limit.load(Ordering::Relaxed))
    }

    /// Sends `message`, after all that were sent before it. Waits only where the connection can't keep up.
    pub(super) async fn send(&self, message: Message<'_>) -> Result<Sent, AckError> {
        let (connection, denials) = (self.connection(), self.denials.of(&message.subject));
        // As good as always it fits; but a spooled event may have been made for another server.
        let payload = events::fit(message.payload.clone(), self.max_payload());
        let headers = headers(&message);
        let publish = PublishMessage::build().payload(payload).headers(headers);
        let subject = message.subject;
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

    /// Hands what is left to the kernel.
    pub(super) async fn close(&self, deadline: Instant) {
        let flushed = async {
            if self.connected() {
                // Either fails only where the connection is gone already.
                let _ = self.client.flush().await;
                let _ = self.client.drain().await;
            }
        };
        if timeout_at(deadline, flushed).await.is_err() {
            tracing::warn!("the connection to NATS could not be flushed in time");
        }
    }
}

/// The error in a connection event, for the recorder's status.
pub(super) fn connection_error(event: &Event) -> Option<String> {
    match event {
        Event::ServerError(error) => Some(format!("NATS reports: {error}")),
        // A failed attempt, which `NatsServers::on_failure` reports with its cause; but for this one, of which it is told nothing.
        Event::ClientError(ClientError::Other(kind)) if !kind.contains("DNS error") => None,
        Event::ClientError(ClientError::Other(_)) => {
            Some("cannot resolve the host name in NATS_URL".to_owned())
        }
        Event::ClientError(error) => Some(format!("cannot connect to NATS: {error}")),
        Event::Disconnected => Some(AckError::Disconnected.to_string()),
        _ => None,
    }
}

fn headers(message: &Message<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, message.id.to_string());
    headers.insert("Content-Type", CONTENT_TYPE);
    let MessageHeaders {
        traceparent,
        tracestate,
        baggage,
    } = message.trace;
    let baggage = baggage.as_deref();
    let baggage = baggage.filter(|baggage| baggage.len() <= BAGGAGE_BYTES);
    for (name, value) in [
        ("operationID", Some(message.operation_id)),
        ("traceparent", traceparent.as_deref()),
        ("tracestate", tracestate.as_deref()),
        ("baggage", baggage),
    ] {
        // A value with a line break in it would be refused by a panic.
        if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
            headers.insert(name, value);
        }
    }
    headers
}

fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX);
    Duration::from_millis(2_u64.saturating_pow(doublings)).min(RECONNECT_AT_MOST)
}
