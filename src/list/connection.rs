use anyhow::{Context, anyhow};
use async_nats::jetstream;
use importguard_core::UserId;
use importguard_gateway::events::{PseudonymSettings, Pseudonyms};
use importguard_lists::{Bucket, BucketSettings, RETENTION, Writer};
use importguard_nats::NatsSettings;
use importguard_runtime::FileWatches;

use super::CONSOLE;

/// How many entries a command that changes a list looks at to clear away what no longer counts: a tenth of a second.
const CLEAR_AT_ONCE: u64 = 1000;

/// A connection to NATS.
pub(super) struct Connection {
    jetstream: jetstream::Context,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// If the settings are invalid, or no server lets us in.
    pub(super) async fn open(nats: &NatsSettings) -> anyhow::Result<Self> {
        let mut files = FileWatches::without_metrics();
        let servers = nats.servers("importguard-list", &mut files).await?;
        if let Some(warning) = servers.warning {
            CONSOLE.report(&format!("warning: {warning}"));
        }
        let names = servers.names();
        let connected = servers.options.connect(servers.addresses).await;
        let client = connected.map_err(|error| {
            let cause = servers.failures.describe(&names, &error.to_string());
            anyhow!(cause)
        })?;
        Ok(Self {
            jetstream: jetstream::new(client),
        })
    }

    /// The bucket, which is created if there is none.
    pub(super) async fn bucket(&self, replicas: u8) -> anyhow::Result<Bucket> {
        let settings = BucketSettings { replicas };
        Ok(Bucket::open_or_create(&self.jetstream, settings).await?)
    }

    /// The bucket, if there is one.
    pub(super) async fn existing_bucket(&self) -> anyhow::Result<Bucket> {
        Ok(Bucket::open(&self.jetstream).await?)
    }

    /// A writer to the bucket, which is created if there is none.
    pub(super) async fn writer(&self, pseudonyms: &PseudonymSettings) -> anyhow::Result<Writer> {
        let pseudonyms = pseudonyms.pseudonyms()?;
        let shown = move |id: &UserId| match &pseudonyms {
            Pseudonyms::Off => id.clone(),
            pseudonyms => pseudonyms.of(id).into_owned(),
        };
        Ok(Writer::new(self.bucket(1).await?, shown))
    }
}

/// Publishes events that interrupted writers left, and clears some entries away. The changes are made already, so a failure is no
/// failure of the command.
pub(super) async fn tidy(writer: &Writer, own: &[u64]) {
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
