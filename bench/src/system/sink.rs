use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::TcpStream;

use super::{Place, wait_until_ready};
use crate::process::Process;

/// An OTLP receiver that forgets what it gets.
#[derive(Debug)]
pub(crate) struct Sink {
    process: Process,
    address: SocketAddr,
}

impl Sink {
    pub(crate) async fn start(place: &mut Place) -> anyhow::Result<Self> {
        let address = place.ports.free()?;
        let mut process = place.part("sink", &["sink", "--listen", &address.to_string()])?;
        wait_until_ready(&mut process, async || {
            TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(Into::into)
        })
        .await?;
        Ok(Self { process, address })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many spans arrived up to a second ago.
    pub(crate) fn spans(&self) -> anyhow::Result<u64> {
        let said = self.process.tail();
        let last = said.lines().last().context("the sink says nothing")?;
        Ok(last.parse()?)
    }
}
