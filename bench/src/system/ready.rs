use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::process::Process;

/// A list of a million ids is read in a few seconds.
const START: Duration = Duration::from_secs(60);

const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// Waits until `look` finds no error any more, or `process` has ended.
pub(crate) async fn wait_until_ready(
    process: &mut Process,
    look: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    loop {
        process.still_runs()?;
        match timeout(START, look()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if Instant::now() > deadline => {
                return Err(error.context(format!("not ready: {}", process.tail())));
            }
            Err(_) => bail!("not ready: {}", process.tail()),
            Ok(Err(_)) => sleep(BETWEEN_LOOKS).await,
        }
    }
}

/// `/readyz` of an admin listener: its text, if it says yes.
pub(crate) async fn readyz(admin: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("half an answer from /readyz")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("/readyz says {body}");
    }
    Ok(body.to_owned())
}
