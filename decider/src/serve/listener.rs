use std::{convert::Infallible, io, sync::Arc, time::Duration};

use importguard_files::LastGood;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tracing::{info, warn};

use super::{Connection, Metrics, connection::Stream};

/// How long a TLS handshake may take: by then a gateway has given up, whose default patience is half a second.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long to rest where the operating system gives no connection, for want of files mostly: what is open needs time to close,
/// and the log is not to be flooded.
const NO_MORE_FILES: Duration = Duration::from_secs(1);

/// Accepts gateways' connections, as many as there may be.
pub(crate) struct Listener {
    seats: Arc<Semaphore>,
    idle: Duration,
    tls: Option<LastGood<ServerConfig>>,
    metrics: Metrics,
}

impl Listener {
    pub(crate) fn new(
        max_connections: usize,
        idle: Duration,
        tls: Option<LastGood<ServerConfig>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            seats: Arc::new(Semaphore::new(max_connections)),
            idle,
            tls,
            metrics,
        }
    }

    /// Hands connections that are ready to be spoken on to `ready`, until nobody takes them any more.
    pub(crate) async fn accept(
        self,
        listener: TcpListener,
        ready: mpsc::Sender<io::Result<Connection>>,
    ) {
        tokio::select! {
            never = self.accept_all(listener, &ready) => match never {},
            () = ready.closed() => {}
        }
    }

    async fn accept_all(
        &self,
        listener: TcpListener,
        ready: &mpsc::Sender<io::Result<Connection>>,
    ) -> Infallible {
        let mut handshakes = JoinSet::new();
        let mut full = false;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => match Arc::clone(&self.seats).try_acquire_owned() {
                    Ok(seat) => {
                        full = false;
                        let (ready, tls, idle) = (ready.clone(), self.tls.clone(), self.idle);
                        let open = self.metrics.open();
                        handshakes.spawn(async move {
                            match handshake(stream, tls).await {
                                Ok(stream) => {
                                    let connection = Connection::new(stream, idle, seat, open);
                                    // Fails where nobody takes connections any more.
                                    let _ = ready.send(Ok(connection)).await;
                                }
                                Err(error) => info!("no TLS with {peer}: {error}"),
                            }
                        });
                    }
                    Err(_) => {
                        self.metrics.turned_away();
                        if !full {
                            warn!(
                                "there are more connections than IMPORTGUARD_DECIDER_MAX_CONNECTIONS: new ones are closed"
                            );
                        }
                        full = true;
                    }
                },
                Err(error) if is_one_connections(&error) => {}
                Err(error) => {
                    warn!(
                        "no connection can be accepted: {error}; is the limit of open files (ulimit -n) below IMPORTGUARD_DECIDER_MAX_CONNECTIONS?"
                    );
                    sleep(NO_MORE_FILES).await;
                }
            }
            while handshakes.try_join_next().is_some() {}
        }
    }
}

/// Each is made with the certificates that hold then.
async fn handshake(stream: TcpStream, tls: Option<LastGood<ServerConfig>>) -> io::Result<Stream> {
    // An answer is one small packet: it should not wait for the other side's acknowledgement.
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Either::Left(stream));
    };
    let accepted = timeout(HANDSHAKE, TlsAcceptor::from(tls.load()).accept(stream)).await;
    Ok(Either::Right(accepted??))
}

/// The peer hung up before it was accepted: no trouble of the listener's.
fn is_one_connections(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
