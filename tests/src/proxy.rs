use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use crate::{SOON, eventually, free_port};

/// Size of a read: fits many messages, so that a cut forwards some, truncates one and drops the rest.
const CHUNK_BYTES: usize = 16 << 10;

/// A TCP proxy that simulates network failures: resets, stalls, refused connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    way: watch::Sender<ProxyState>,
    /// The numbers of the open connections.
    connections: Arc<watch::Sender<Vec<u64>>>,
    listener: JoinHandle<()>,
}

/// The state of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProxyState {
    /// New connections are accepted.
    open: bool,
    /// Nothing is forwarded or closed.
    stalled: bool,
    /// Connections with a lower number are to be cut.
    cut_before: u64,
}

impl Proxy {
    /// A proxy that forwards to `upstream` (`host:port`).
    pub async fn to(upstream: impl Into<String>) -> Self {
        let way = watch::Sender::new(ProxyState {
            open: true,
            stalled: false,
            cut_before: 0,
        });
        let (port, connections) = (free_port(), Arc::new(watch::Sender::new(Vec::new())));
        let listener = tokio::spawn(listen(
            port,
            upstream.into(),
            way.subscribe(),
            connections.clone(),
        ));
        let proxy = Self {
            port,
            way,
            connections,
            listener,
        };
        proxy.listens(true).await;
        proxy
    }

    /// `host:port` of its listener.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Resets each connection in the middle of its client's next data, of which half is forwarded. Returns when that has happened. New
    /// connections are still accepted, unless [`refuse`](Self::refuse) was called.
    pub async fn cut(&self) {
        let before = self.connections.borrow().iter().max().map_or(0, |n| n + 1);
        self.way.send_modify(|way| way.cut_before = before);
        let mut connections = self.connections.subscribe();
        let torn = connections.wait_for(|all| all.iter().all(|number| *number >= before));
        let torn = tokio::time::timeout(SOON, torn).await;
        torn.expect("the client sends something to be torn")
            .expect("the sender is ours");
    }

    /// Refuses new connections, as without a listener.
    pub async fn refuse(&self) {
        self.way.send_modify(|way| way.open = false);
        self.listens(false).await;
    }

    /// Stops forwarding, with all connections open.
    pub fn stall(&self) {
        self.way.send_modify(|way| way.stalled = true);
    }

    /// Forwards again, including data that was held back, and accepts new connections.
    pub async fn restore(&self) {
        self.way.send_modify(|way| {
            way.open = true;
            way.stalled = false;
        });
        self.listens(true).await;
    }

    async fn listens(&self, expected: bool) {
        let what = format!("the proxy's listening is {expected}");
        eventually(&what, SOON, async || {
            let found = TcpStream::connect(self.address()).await;
            if found.is_ok() == expected {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Accepts connections while the proxy is open.
async fn listen(
    port: u16,
    upstream: String,
    mut way: watch::Receiver<ProxyState>,
    connections: Arc<watch::Sender<Vec<u64>>>,
) {
    let mut number = 0;
    while way.wait_for(|way| way.open).await.is_ok() {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("the proxy's port is free");
        let mut closing = way.clone();
        let mut closed = std::pin::pin!(closing.wait_for(|way| !way.open));
        loop {
            let client = tokio::select! {
                _ = &mut closed => break,
                accepted = listener.accept() => accepted.expect("a connection").0,
            };
            let (upstream, way, connections) = (upstream.clone(), way.clone(), connections.clone());
            connections.send_modify(|all| all.push(number));
            tokio::spawn(async move {
                // An error is an end that went away, which ends the connection as it should.
                let _ = forward(client, &upstream, way, number).await;
                connections.send_modify(|all| all.retain(|one| *one != number));
            });
            number += 1;
        }
    }
}

/// Forwards both ways until one side closes or the connection is cut.
async fn forward(
    mut client: TcpStream,
    upstream: &str,
    way: watch::Receiver<ProxyState>,
    number: u64,
) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let torn = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::select! {
            torn = upwards(from_client, to_server, way.clone(), number) => torn?,
            ended = downwards(from_server, to_client, way) => ended.map(|()| false)?,
        }
    };
    if torn {
        // Closed so, it is reset.
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

/// Forwards the client's data; true if it was cut.
async fn upwards(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut way: watch::Receiver<ProxyState>,
    number: u64,
) -> io::Result<bool> {
    let mut piece = vec![0; CHUNK_BYTES];
    loop {
        let bytes = from.read(&mut piece).await?;
        let now = way.wait_for(|way| !way.stalled || way.cut_before > number);
        let now = *now.await.map_err(io::Error::other)?;
        if now.cut_before > number {
            if !now.stalled {
                to.write_all(&piece[..bytes / 2]).await?;
            }
            return Ok(true);
        }
        if bytes == 0 {
            return Ok(false);
        }
        to.write_all(&piece[..bytes]).await?;
    }
}

/// Forwards the server's data.
async fn downwards(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut way: watch::Receiver<ProxyState>,
) -> io::Result<()> {
    let mut piece = vec![0; CHUNK_BYTES];
    loop {
        let bytes = from.read(&mut piece).await?;
        way.wait_for(|way| !way.stalled)
            .await
            .map_err(io::Error::other)?;
        if bytes == 0 {
            return Ok(());
        }
        to.write_all(&piece[..bytes]).await?;
    }
}
