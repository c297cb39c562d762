//! The recorder against a real nats-server: what it promises while NATS is well, away, stuck, or not what it expects.

// Clippy's exceptions for tests cover test functions only, and not what they share.
#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;
mod domains;
mod ended;
mod outages;
mod parking;
mod settings;
mod stream;

use std::{collections::HashSet, time::Duration};

use async_nats::jetstream;
use bytes::Bytes;
use importguard_core::{EventId, OperationId};
use importguard_gateway::{
    events::{Event, Subject},
    recorder::{RecordSettings, Recorded, Recorder, RecorderStatus, State},
};
use importguard_runtime::{Runtime, SharedRegistry, environment::parse_arguments};
use importguard_telemetry::propagation::MessageHeaders;
use importguard_tests::{NatsServer, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Generous, as tests run side by side on small machines.
const SOON: Duration = Duration::from_secs(30);

/// A recorder with a spool of its own.
struct Recording {
    recorder: Recorder,
    registry: SharedRegistry,
    settings: RecordSettings,
}

impl Recording {
    async fn start(nats: &NatsServer, spool: &TempDir) -> Self {
        Self::with(settings(nats, spool)).await
    }

    async fn with(settings: RecordSettings) -> Self {
        let mut runtime = runtime();
        let registry = runtime.registry.clone();
        let recorder = Recorder::start(settings.clone(), &mut runtime)
            .await
            .unwrap();
        Self {
            recorder,
            registry,
            settings,
        }
    }

    /// One that streams already and waits for each ack however busy the machine is, so that no event goes by way of the spool.
    async fn patient(nats: &NatsServer, spool: &TempDir) -> Self {
        let recording = Self::with(patient(settings(nats, spool))).await;
        recording.until(State::Streaming).await;
        recording
    }

    /// One that streams already.
    async fn streaming(nats: &NatsServer, spool: &TempDir) -> Self {
        let recording = Self::start(nats, spool).await;
        recording.until(State::Streaming).await;
        recording
    }

    async fn until(&self, state: State) -> RecorderStatus {
        eventually(&format!("{state}"), SOON, async || {
            let status = self.recorder.status();
            if status.state == state {
                Ok(status)
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await
    }

    /// Waits until the last error has all `parts`, while NATS is relied on for nothing.
    async fn until_told(&self, parts: &[&str]) {
        eventually("the cause is told", 4 * SOON, async || {
            let status = self.recorder.status();
            let error = status.last_error.as_deref().unwrap_or_default();
            if status.state == State::Spooling && parts.iter().all(|part| error.contains(part)) {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
    }

    /// Records event `n` with plenty of time for it.
    async fn record(&self, n: usize) -> Recorded {
        let deadline = Instant::now() + SOON;
        self.recorder.record(event(n), deadline).await.unwrap()
    }

    /// The process ends as it should.
    async fn close(self) -> RecordSettings {
        self.recorder.close(SOON).await;
        self.settings
    }

    /// The numbers of the events in the spool's file, in order.
    fn spooled(&self) -> Vec<usize> {
        let file = rusqlite::Connection::open(self.settings.spool.join("spool.db")).unwrap();
        let mut select = file
            .prepare("SELECT payload FROM event ORDER BY id")
            .unwrap();
        let payloads = select
            .query_map([], |row| row.get::<_, Vec<u8>>(0))
            .unwrap();
        payloads.map(|payload| number(&payload.unwrap())).collect()
    }

    /// What Prometheus reads for `metric`, with its label if it has one.
    fn metric(&self, metric: &str) -> f64 {
        let text = self.registry.encode(None).unwrap().text;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("no {metric} in\n{text}"));
        value.parse().unwrap()
    }
}

fn runtime() -> Runtime {
    Runtime::new(CancellationToken::new()).unwrap()
}

fn settings(nats: &NatsServer, spool: &TempDir) -> RecordSettings {
    settings_for(&nats.url(), spool)
}

fn patient(mut settings: RecordSettings) -> RecordSettings {
    settings.ack_timeout = SOON;
    settings
}

fn settings_for(nats_url: &str, spool: &TempDir) -> RecordSettings {
    let spool = format!("--spool={}", spool.path().display());
    parse_arguments([format!("--nats-url={nats_url}"), spool]).unwrap()
}

/// An event that carries the number `n`.
fn event(n: usize) -> Event {
    Event {
        id: EventId::new(),
        subject: Subject::Allow,
        operation_id: OperationId::parse(format!("operation-{n}")).unwrap(),
        trace: MessageHeaders {
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            tracestate: Some("vendor=opaque".to_owned()),
            baggage: Some(format!("openim.operation_id=operation-{n}")),
        },
        payload: Bytes::from(json!({"data": {"n": n}}).to_string()),
    }
}

fn number(payload: &[u8]) -> usize {
    let payload: Value = serde_json::from_slice(payload).unwrap();
    usize::try_from(payload["data"]["n"].as_u64().unwrap()).unwrap()
}

/// The stream's messages, in order.
async fn messages(nats: &NatsServer) -> Vec<jetstream::message::StreamMessage> {
    let jetstream = jetstream::new(nats.client().await);
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let state = &stream.cached_info().state;
    let mut messages = Vec::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        messages.push(stream.get_raw_message(sequence).await.unwrap());
    }
    messages
}

/// The numbers of the events in the stream, in order.
async fn stored(nats: &NatsServer) -> Vec<usize> {
    let messages = messages(nats).await;
    messages
        .iter()
        .map(|message| number(&message.payload))
        .collect()
}

/// Each of `0..count` is stored, and none twice.
async fn assert_each_once(nats: &NatsServer, count: usize) {
    let stored = stored(nats).await;
    let distinct: HashSet<_> = stored.iter().copied().collect();
    let missing: Vec<_> = (0..count).filter(|n| !distinct.contains(n)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert_eq!(stored.len(), count, "some are stored twice");
}
