use anyhow::{Context, ensure};
use async_nats::{
    HeaderMap,
    jetstream::{self, stream::Config},
};
use importguard_gateway::events::{CONTENT_TYPE, DecisionEvent, ImportedEvent};
use serde_json::Value;

use crate::{NatsServer, SOON, TraceParent, eventually};

const STREAM: &str = "IMPORTGUARD";

/// A message of the stream.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its sequence number in the stream.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its raw payload.
    pub json: Value,
    /// Its parsed payload.
    pub event: Event,
}

/// The payload of a message.
#[derive(Clone, Debug)]
pub enum Event {
    /// A verdict.
    Decision(Box<DecisionEvent<'static>>),
    /// A report after an import.
    Imported(Box<ImportedEvent<'static>>),
}

impl StoredEvent {
    /// The header `name`, in exactly this spelling.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }

    /// The `operationID` in the payload.
    pub fn operation_id(&self) -> &str {
        match &self.event {
            Event::Decision(event) => event.data.operation_id.as_str(),
            Event::Imported(event) => event.data.operation_id.as_str(),
        }
    }

    /// The event's id.
    pub fn id(&self) -> &str {
        match &self.event {
            Event::Decision(event) => &event.id,
            Event::Imported(event) => &event.id,
        }
    }

    /// The trace that the message belongs to.
    pub fn trace(&self) -> Option<TraceParent> {
        TraceParent::parse(self.header("traceparent")?)
    }

    /// The event of a decision. Fails the test if it is another one.
    pub fn decision(&self) -> &DecisionEvent<'static> {
        match &self.event {
            Event::Decision(event) => event,
            Event::Imported(_) => panic!("not a decision: {}", self.json),
        }
    }

    /// The event of a completed import. Fails the test if it is another one.
    pub fn imported(&self) -> &ImportedEvent<'static> {
        match &self.event {
            Event::Imported(event) => event,
            Event::Decision(_) => panic!("not a report of an import: {}", self.json),
        }
    }

    fn read(message: jetstream::message::StreamMessage) -> anyhow::Result<Self> {
        let json: Value = serde_json::from_slice(&message.payload)?;
        let event = match json["type"].as_str() {
            Some("importguard.decision.v1") => {
                Event::Decision(serde_json::from_value(json.clone())?)
            }
            Some("importguard.imported.v1") => {
                Event::Imported(serde_json::from_value(json.clone())?)
            }
            other => anyhow::bail!("an event of type {other:?}: {json}"),
        };
        let stored = Self {
            sequence: message.sequence,
            subject: message.subject.to_string(),
            headers: message.headers,
            json,
            event,
        };
        // What holds for every event.
        ensure!(stored.header("Nats-Msg-Id") == Some(stored.id()));
        ensure!(stored.header("operationID") == Some(stored.operation_id()));
        ensure!(stored.header("Content-Type") == Some(CONTENT_TYPE));
        Ok(stored)
    }
}

/// Creates the stream of events, with the server's defaults but for what `change` sets.
pub async fn create_stream(
    client: async_nats::Client,
    change: impl FnOnce(&mut Config),
) -> jetstream::Context {
    let mut config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["importguard.v1.>".to_owned()],
        ..Config::default()
    };
    change(&mut config);
    let jetstream = jetstream::new(client);
    let created = jetstream.create_stream(config).await;
    created.expect("the stream can be created");
    jetstream
}

/// All stored events, in order. Fails the test if a message is not an event of importguard.
pub async fn stored(nats: &NatsServer) -> Vec<StoredEvent> {
    stored_with(nats.client().await).await
}

/// The same, read with `client`.
pub async fn stored_with(client: async_nats::Client) -> Vec<StoredEvent> {
    let (stream, messages) = count(client).await.expect("the stream can be looked at");
    // Its first and last sequence would be 0, which no message has.
    if messages == 0 {
        return Vec::new();
    }
    let mut events = Vec::with_capacity(messages);
    let first = stream.cached_info().state.first_sequence;
    let last = stream.cached_info().state.last_sequence;
    for sequence in first..=last {
        // A cluster does not respond while it elects a leader.
        let message = eventually(&format!("message {sequence} is read"), SOON, async || {
            stream.get_raw_message(sequence).await
        })
        .await;
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let event = StoredEvent::read(message)
            .unwrap_or_else(|error| panic!("message {sequence} is no event: {error:#}: {text}"));
        events.push(event);
    }
    events
}

/// Waits until at least `least` events are stored, and returns all.
pub async fn wait_for_count(nats: &NatsServer, least: usize) -> Vec<StoredEvent> {
    let what = format!("{least} events are stored");
    eventually(&what, SOON, async || {
        let client = async_nats::connect(nats.url()).await?;
        let (_, messages) = count(client).await?;
        ensure!(messages >= least, "{messages} are");
        Ok(())
    })
    .await;
    stored(nats).await
}

async fn count(client: async_nats::Client) -> anyhow::Result<(jetstream::stream::Stream, usize)> {
    let stream = jetstream::new(client)
        .get_stream(STREAM)
        .await
        .context("no stream yet")?;
    let messages = stream.cached_info().state.messages;
    Ok((stream, usize::try_from(messages)?))
}
