//! Counts refusals by owner and prints an alert if an owner is refused too often. A consumer of importguard's events to copy:
//! durable, handles each event once, continues the import's trace.

mod once;
mod trace;
mod window;

use std::{env, str::FromStr, time::Duration};

use anyhow::Context;
use async_nats::{
    ConnectOptions, ServerAddr,
    jetstream::{self, AckKind, Message, consumer::pull},
};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::{once::Once, window::Window};

const STREAM: &str = "IMPORTGUARD";

/// The fields that we need; unknown fields are ignored, as the contract requires.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "ownerUserID")]
    owner: String,
    verdict: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let durable = env::var("CONSUMER").unwrap_or_else(|_| "refusals-rust".to_owned());
    let threshold = setting("ALERT_THRESHOLD", 5)?;
    let window = Duration::from_secs(setting("ALERT_WINDOW_SECONDS", 60)?);
    let tracing = trace::init("refusals-by-owner-rust")?;
    let client = connect().await?;

    // The gateway creates the stream: wait for it.
    let jetstream = jetstream::new(client.clone());
    let stream = loop {
        match jetstream.get_stream(STREAM).await {
            Ok(stream) => break stream,
            Err(error) => println!("waiting for the stream {STREAM}: {error}"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let config = pull::Config {
        durable_name: Some(durable.clone()),
        filter_subject: "importguard.v1.decision.*".to_owned(),
        // An event is delivered again if it is not acknowledged by then.
        ack_wait: Duration::from_secs(30),
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer(&durable, config).await?;
    let mut messages = consumer.messages().await?;
    println!("ready: consumer {durable} on {STREAM}");

    let mut seen = Once::remembering(100_000);
    let mut refusals = Window::new(window);
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    loop {
        let message = tokio::select! {
            message = messages.next() => message.context("the consumer has ended")?,
            _ = term.recv() => break,
            _ = int.recv() => break,
        };
        match message {
            Ok(message) => {
                if let Err(error) = handle(&message, &mut seen, &mut refusals, threshold).await {
                    println!("not handled, comes again: {error:#}");
                }
            }
            // The client reconnects by itself and pulls again.
            Err(error) => println!("trouble with NATS: {error}"),
        }
    }
    client.drain().await?;
    tracing.shutdown()?;
    Ok(())
}

/// Handles a message, then acknowledges it: if the process dies in between, NATS delivers it again.
async fn handle(
    message: &Message,
    seen: &mut Once,
    refusals: &mut Window,
    threshold: usize,
) -> anyhow::Result<()> {
    let header = |name: &str| {
        let value = message.headers.as_ref()?.get(name)?;
        Some(value.as_str().to_owned())
    };
    let id = header("Nats-Msg-Id").context("a message without Nats-Msg-Id")?;
    let mut span = trace::process(&message.subject, &id, header("traceparent").as_deref());
    if seen.contains(&id) {
        println!("duplicate {id}");
    } else {
        match serde_json::from_slice::<Event>(&message.payload) {
            Ok(event) => judge(&event, refusals, threshold),
            Err(error) => {
                // A retry would fail again.
                trace::failed(&mut span, &error.to_string());
                println!("no event: {error}");
                message
                    .ack_with(AckKind::Term)
                    .await
                    .map_err(|error| anyhow::anyhow!(error))?;
                return Ok(());
            }
        }
        seen.insert(id);
    }
    message.ack().await.map_err(|error| anyhow::anyhow!(error))
}

fn judge(event: &Event, refusals: &mut Window, threshold: usize) {
    let refused = event.data.verdict.as_deref() == Some("refuse");
    if event.kind != "importguard.decision.v1" || !refused {
        return;
    }
    let owner = &event.data.owner;
    let count = refusals.count(owner);
    println!("refusal owner={owner} count={count}");
    if count > threshold {
        println!(
            "ALERT owner={owner} refusals={count} within={}s",
            refusals.length().as_secs()
        );
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
