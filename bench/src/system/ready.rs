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
    get(admin, "/readyz").await
}

/// A counter of an admin listener's `/metrics`, which has no labels.
pub(crate) async fn counter(admin: SocketAddr, name: &str) -> anyhow::Result<u64> {
    let metrics = get(admin, "/metrics").await?;
    let values = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let value = values.filter_map(|rest| rest.trim().parse().ok()).next();
    value.with_context(|| format!("/metrics has no {name}"))
}

/// What an admin listener has at `path`.
async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("half an answer from {path}"))?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{path} says {body}");
    }
    Ok(body.to_owned())
}
