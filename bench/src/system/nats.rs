use std::{net::SocketAddr, process::Command};

use anyhow::Context;
use async_nats::jetstream;
use importguard_gateway::events::Subject;

use super::{Place, wait_until_ready};
use crate::process::Process;

/// A nats-server with JetStream and a store on disk.
#[derive(Debug)]
pub(crate) struct Nats {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Nats {
    /// Starts one for the system called `name`.
    pub(crate) async fn start(place: &mut Place, name: &str) -> anyhow::Result<Self> {
        let address = place.ports.free()?;
        Self::start_at(place, name, address).await
    }

    /// Starts one at an address, with the store that one of that name had.
    pub(crate) async fn start_at(
        place: &Place,
        name: &str,
        address: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(&place.binaries.nats_server);
        command
            .args(["--addr", "127.0.0.1"])
            .args(["--port", &address.port().to_string()])
            .arg("--jetstream")
            .arg("--store_dir")
            .arg(place.dir.join(format!("{name}-store")));
        let mut process = Process::spawn(&format!("{name}-nats"), &mut command, &place.dir)?;
        let url = url(address);
        // It opens its port only when JetStream has read its store.
        wait_until_ready(&mut process, async || {
            async_nats::connect(&url)
                .await
                .map(drop)
                .map_err(Into::into)
        })
        .await?;
        Ok(Self { process, address })
    }

    pub(crate) fn url(&self) -> String {
        url(self.address)
    }
}

/// The bytes of the last message about an allowed import on the server at `url`, headers included.
pub(crate) async fn last_event_bytes(url: &str) -> anyhow::Result<usize> {
    let jetstream = jetstream::new(async_nats::connect(url).await?);
    let stream = jetstream.get_stream("IMPORTGUARD").await?;
    let message = stream
        .get_last_raw_message_by_subject(Subject::Allow.as_str())
        .await
        .context("no event was recorded")?;
    let header = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
        let name: &str = name.as_ref();
        let value = |value: &async_nats::HeaderValue| {
            name.len() + ": ".len() + value.as_str().len() + "\r\n".len()
        };
        values.iter().map(value).sum::<usize>()
    };
    let headers: usize = message.headers.iter().map(header).sum();
    Ok("NATS/1.0\r\n\r\n".len() + headers + message.payload.len())
}

fn url(address: SocketAddr) -> String {
    format!("nats://{address}")
}
