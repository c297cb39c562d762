use std::{future::ready, sync::Arc};

use anyhow::{Context, anyhow};
use async_nats::{Event, jetstream};
use importguard_gateway::events::{PseudonymSettings, Pseudonyms};
use importguard_lists::{Bucket, CHANGED_SUBJECT, RETENTION, Writer};
use importguard_nats::NatsSettings;
use importguard_runtime::FileWatches;
use tokio::sync::{SetOnce, watch};

use super::CONSOLE;
use crate::events::{forbidden, with_remedy};

/// How many entries a command that changes a list reads to clear away expired and removed ones: this takes a tenth of a second.
const CLEAR_AT_ONCE: u64 = 1000;

/// Connects to NATS.
///
/// # Errors
/// If the settings are invalid, or no server accepts the connection.
pub(super) async fn connect(
    nats: &NatsSettings,
    denials: &Denials,
) -> anyhow::Result<jetstream::Context> {
    let mut files = FileWatches::without_metrics();
    let mut servers = nats.servers("importguard-list", &mut files).await?;
    if let Some(warning) = servers.warning {
        CONSOLE.report(&format!("warning: {warning}"));
    }
    let denials = denials.clone();
    servers.options = servers.options.event_callback(move |event| {
        if let Event::ServerError(error) = event {
            denials.record(&error.to_string());
        }
        ready(())
    });
    let connected = servers.connect().await;
    let client = connected.map_err(|(_, cause)| anyhow!(with_remedy(cause)))?;
    Ok(jetstream::new(client))
}

/// Returns a writer to the bucket, which is created if it does not exist.
pub(super) async fn writer(
    jetstream: &jetstream::Context,
    pseudonyms: &PseudonymSettings,
    denials: &Denials,
) -> anyhow::Result<Writer> {
    let pseudonyms = pseudonyms.pseudonyms()?;
    let bucket = Bucket::open_or_create(jetstream, 1).await?;
    let writer = Writer::new(bucket).with_events_denied(Arc::clone(&denials.events));
    Ok(match pseudonyms {
        Pseudonyms::Off => writer,
        pseudonyms => writer.with_pseudonyms(move |id| pseudonyms.of(id).into_owned()),
    })
}

/// The first permission violations that NATS reports. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Denials {
    /// Of the events about changes. The changes are made without them.
    events: Arc<SetOnce<String>>,
    /// Of anything else.
    other: watch::Sender<Denial>,
}

#[derive(Debug)]
enum Denial {
    None,
    First(String),
    Ignored,
}

impl Denials {
    pub(super) fn new() -> Self {
        Self {
            events: Arc::default(),
            other: watch::channel(Denial::None).0,
        }
    }

    fn record(&self, error: &str) {
        let Some(denied) = forbidden(error, "_INBOX_moderator") else {
            return;
        };
        if error.contains(&format!("Publish to \"{CHANGED_SUBJECT}\"")) {
            // Those after the first say the same.
            let _ = self.events.set(format!(
                "this user may not publish to {CHANGED_SUBJECT} (deploy/nats/nats-server.conf has a user who may)"
            ));
            return;
        }
        self.settle(Denial::First(denied));
    }

    /// Ignores permission violations from now on.
    fn ignore(&self) {
        self.settle(Denial::Ignored);
    }

    /// Sets what is final.
    fn settle(&self, denial: Denial) {
        self.other.send_if_modified(|first| {
            let is_first = matches!(first, Denial::None);
            if is_first {
                *first = denial;
            }
            is_first
        });
    }

    /// Waits for the first permission violation that ends a command. NATS does not respond to a denied request, so it would wait in vain.
    pub(super) async fn first(&self) -> anyhow::Error {
        let mut receiver = self.other.subscribe();
        let first = receiver.wait_for(|denial| matches!(denial, Denial::First(_)));
        match first.await.as_deref() {
            Ok(Denial::First(text)) => anyhow!(text.clone()),
            // Unreachable: the sender lives as long as `self`.
            _ => std::future::pending().await,
        }
    }
}

/// Publishes events that interrupted writers left behind, and clears some entries away. The changes are already made, so an error here does
/// not fail the command.
pub(super) async fn tidy(writer: &Writer, own: &[u64], denials: &Denials) {
    denials.ignore();
    let tidied = async {
        writer
            .finish(own)
            .await
            .context("cannot publish the events of interrupted changes")?;
        let cleared = writer.bucket().clear(CLEAR_AT_ONCE, RETENTION).await;
        cleared.context("cannot clear away what expired")?;
        anyhow::Ok(())
    };
    if let Err(error) = tidied.await {
        CONSOLE.report(&format!("warning: {error:#}"));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use importguard_runtime::environment;

    use super::*;

    #[tokio::test]
    async fn a_refused_connection_has_its_remedy() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("--nats-url=nats://{}", unused.local_addr().unwrap());
        drop(unused);
        let nats = environment::parse_arguments([url]).unwrap();
        let opened = connect(&nats, &Denials::new()).await;
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("NATS_URL or --nats-url"), "{error}");
    }
}
