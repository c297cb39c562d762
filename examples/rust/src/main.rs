//! Counts refusals by owner and prints an alert if an owner is refused too often. A consumer of importguard's events to copy:
//! durable, handles each event once, continues the import's trace.

mod once;
mod trace;
mod window;

use std::{
    env,
    pin::{Pin, pin},
    str::FromStr,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use async_nats::{
    ConnectOptions, ServerAddr, datetime,
    jetstream::{self, AckKind, Message, consumer::pull},
};
use futures_util::StreamExt;
use opentelemetry::{KeyValue, trace::Span};
use serde::{Deserialize, Deserializer, de::Error};
use tokio::signal::unix::{SignalKind, signal};

use crate::{once::Once, window::Window};

const STREAM: &str = "IMPORTGUARD";

/// The fields that we need; unknown fields are ignored, as the contract requires.
#[derive(Deserialize)]
struct Event {
    /// The header Nats-Msg-Id has it too, but NATS takes messages without headers.
    id: String,
    #[serde(rename = "type")]
    kind: String,
    /// When the decision was made.
    #[serde(deserialize_with = "rfc3339")]
    time: SystemTime,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "ownerUserID")]
    owner: String,
    verdict: Option<String>,
}

struct Consumer {
    seen: Once,
    refusals: Window,
    threshold: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let durable = env::var("CONSUMER").unwrap_or_else(|_| "refusals-rust".to_owned());
    let window = Duration::from_secs(setting("ALERT_WINDOW_SECONDS", 60)?);
    let mut consumer = Consumer {
        seen: Once::remembering(100_000),
        refusals: Window::new(window),
        threshold: setting("ALERT_THRESHOLD", 5)?,
    };
    let tracing = trace::init("refusals-by-owner-rust")?;
    let client = connect().await?;
    let jetstream = jetstream::new(client.clone());
    let mut stop = pin!(signalled());
    loop {
        let messages = tokio::select! {
            messages = subscribe(&jetstream, &durable) => messages,
            signal = &mut stop => break signal?,
        };
        println!("ready: consumer {durable} on {STREAM}");
        match consumer.consume(messages, stop.as_mut()).await {
            Ok(()) => break,
            Err(error) => println!("trouble with NATS, subscribing again: {error:#}"),
        }
    }
    client.drain().await?;
    tracing.shutdown()?;
    Ok(())
}

impl Consumer {
    /// Handles messages until `stop`. Fails if no more come, for example because the consumer was deleted with its stream.
    async fn consume(
        &mut self,
        mut messages: pull::Stream,
        mut stop: Pin<&mut impl Future<Output = anyhow::Result<()>>>,
    ) -> anyhow::Result<()> {
        loop {
            let message = tokio::select! {
                message = messages.next() => message.context("the consumer has ended")??,
                signal = &mut stop => return signal,
            };
            if let Err(error) = self.handle(&message).await {
                println!("not acknowledged, comes again: {error:#}");
            }
        }
    }

    /// Handles a message, then acknowledges it: if the process dies in between, NATS delivers it again.
    async fn handle(&mut self, message: &Message) -> anyhow::Result<()> {
        let headers = message.headers.as_ref();
        let traceparent = headers.and_then(|headers| headers.get("traceparent"));
        let mut span = trace::process(&message.subject, traceparent.map(|value| value.as_str()));
        let event = match serde_json::from_slice::<Event>(&message.payload) {
            Ok(event) => event,
            Err(error) => {
                // A retry would fail again.
                trace::failed(&mut span, &error.to_string());
                println!("no event: {error}");
                let terminated = message.ack_with(AckKind::Term).await;
                return terminated.map_err(|error| anyhow::anyhow!(error));
            }
        };
        span.set_attribute(KeyValue::new("messaging.message.id", event.id.clone()));
        if self.seen.contains(&event.id) {
            println!("duplicate {}", quoted(&event.id));
        } else {
            self.judge(&event);
            self.seen.insert(event.id);
        }
        message.ack().await.map_err(|error| anyhow::anyhow!(error))
    }

    fn judge(&mut self, event: &Event) {
        let refused = event.data.verdict.as_deref() == Some("refuse");
        if event.kind != "importguard.decision.v1" || !refused {
            return;
        }
        let owner = &event.data.owner;
        let count = self.refusals.count(owner, event.time);
        let owner = quoted(owner);
        println!("refusal owner={owner} count={count}");
        if count > self.threshold {
            println!(
                "ALERT owner={owner} refusals={count} within={}s",
                self.refusals.length().as_secs()
            );
        }
    }
}

/// An ID as a JSON string: it may contain line breaks, and must not look like a line of its own.
fn quoted(id: &str) -> serde_json::Value {
    id.into()
}

/// Subscribes when it is possible: the gateway creates the stream.
async fn subscribe(jetstream: &jetstream::Context, durable: &str) -> pull::Stream {
    loop {
        match try_subscribe(jetstream, durable).await {
            Ok(messages) => return messages,
            Err(error) => println!("waiting for the stream {STREAM}: {error:#}"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn try_subscribe(
    jetstream: &jetstream::Context,
    durable: &str,
) -> anyhow::Result<pull::Stream> {
    let config = pull::Config {
        durable_name: Some(durable.to_owned()),
        filter_subject: "importguard.v1.decision.*".to_owned(),
        // An event is delivered again if it is not acknowledged by then.
        ack_wait: Duration::from_secs(30),
        ..pull::Config::default()
    };
    let stream = jetstream.get_stream(STREAM).await?;
    let consumer = stream.get_or_create_consumer(durable, config).await?;
    // Without heartbeats, it would wait for ever if the consumer were deleted during a disconnection.
    let messages = consumer.stream().heartbeat(Duration::from_secs(2));
    Ok(messages.messages().await?)
}

/// Returns at SIGTERM or SIGINT.
async fn signalled() -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
    }
}

async fn connect() -> anyhow::Result<async_nats::Client> {
    let url = env::var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let addresses = url
        .split(',')
        .map(ServerAddr::from_str)
        .collect::<Result<Vec<_>, _>>()
        .context("NATS_URL")?;
    let mut options = ConnectOptions::new().name("refusals-by-owner");
    if let (Ok(user), Ok(password)) = (env::var("NATS_USER"), env::var("NATS_PASSWORD")) {
        options = options.user_and_password(user, password);
    }
    if let Ok(file) = env::var("NATS_CREDS") {
        options = options.credentials_file(file).await.context("NATS_CREDS")?;
    }
    options
        .retry_on_initial_connect()
        .connect(addresses)
        .await
        .context("NATS")
}

fn setting<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &'static str,
    default: T,
) -> anyhow::Result<T> {
    match env::var(name) {
        Ok(text) => text.parse().context(name),
        Err(_) => Ok(default),
    }
}

fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = datetime::parse_rfc3339(&text).map_err(D::Error::custom)?;
    Ok(time.into())
}
