//! The accept loop: accepts connections within bounds, performs TLS handshakes, and counts connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use importguard_telemetry::{Flood, metrics::register};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tracing::{info, warn};

use crate::{
    Connection, Handle, LastGood, ServerTls, Timeouts, TlsFailure, connection::Stream, table::Table,
};

/// Pause after a failed accept: open connections need time to close, and the log must not be flooded.
const ACCEPT_BACKOFF: Duration = Duration::from_secs(1);

/// Maximum unsent bytes in the kernel's send buffer (TCP_NOTSENT_LOWAT): more than most responses have. By default, the kernel
/// buffers megabytes for a peer that reads nothing.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 4 * 1024;

/// How often to check for a new TLS configuration: as often as the files are checked.
const RELOAD_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The first byte of every TLS connection, a handshake record. No HTTP method begins with it.
const HANDSHAKE_RECORD: u8 = 22;

/// The limits of a listener.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connection limit. When it is reached, a new connection evicts the one that has been without a complete request for longest.
    pub max_connections: usize,
    /// Byte limit: what all connections together have read and have yet to write.
    pub max_bytes: usize,
    /// Time limits for peers.
    pub timeouts: Timeouts,
    /// Whether only requests count as activity, each begun by [`Handle::begin`](crate::Handle::begin); otherwise, any byte does, such as
    /// the answer to a ping.
    pub counts_requests: bool,
    /// The setting for `max_connections`, named in logs.
    pub setting: &'static str,
}

/// The metrics of a listener.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    /// Open connections.
    pub(crate) open: Gauge,
    /// Connections evicted for others.
    pub(crate) evicted: Counter,
    /// Connections rejected because all others were in use.
    pub(crate) rejected: Counter,
}

impl ConnectionMetrics {
    /// Registers `PREFIX_connections`, `PREFIX_connections_evicted_total` and `PREFIX_connections_rejected_total`, whose help texts
    /// call the listener `listener`.
    pub fn register(registry: &mut Registry, prefix: &str, listener: &str) -> Self {
        Self {
            open: register(
                registry,
                &format!("{prefix}_connections"),
                &format!("Open connections on {listener}"),
                Gauge::default(),
            ),
            evicted: register(
                registry,
                &format!("{prefix}_connections_evicted"),
                &format!("Connections on {listener} that were closed to make room for others"),
                Counter::default(),
            ),
            rejected: register(
                registry,
                &format!("{prefix}_connections_rejected"),
                &format!("Connections that {listener} had no room for, and that were closed"),
                Counter::default(),
            ),
        }
    }
}

/// TLS on a listener.
#[derive(Clone)]
pub struct Tls {
    /// The active configuration, used by new handshakes.
    pub config: LastGood<ServerTls>,
    /// Whether a connection without TLS is passed on, marked by [`Handle::plaintext`], so that it can get an error response.
    pub allow_plaintext: bool,
}

/// The accept loop of a listener: yields connections after their TLS handshake, within bounds.
pub struct Acceptor {
    listener: TcpListener,
    tls: Option<Tls>,
    table: Arc<Table>,
    handshakes: JoinSet<Option<Connection>>,
    failed_handshakes: Arc<Flood>,
    /// The configuration of the connections so far.
    last_config: Option<Arc<ServerTls>>,
    reload_checks: Interval,
}

impl Acceptor {
    /// Must be called inside a tokio runtime.
    pub fn new(
        listener: TcpListener,
        bounds: Bounds,
        tls: Option<Tls>,
        metrics: ConnectionMetrics,
    ) -> Self {
        let mut reload_checks = interval(RELOAD_CHECK_INTERVAL);
        reload_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            last_config: tls.as_ref().map(|tls| tls.config.load()),
            reload_checks,
            listener,
            tls,
            table: Arc::new(Table::new(bounds, metrics)),
            handshakes: JoinSet::new(),
            failed_handshakes: Arc::default(),
        }
    }

    /// The next connection whose handshake is complete. Cancel safe.
    pub async fn accept(&mut self) -> Connection {
        loop {
            self.table.await_evicted().await;
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // Over IPv4 a listener of both families sees ::ffff:192.0.2.7.
                        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                        if let Some(connection) = self.accepted(stream, peer) {
                            return connection;
                        }
                    }
                    Err(error) if is_connection_error(&error) => {}
                    Err(error) => {
                        warn!("cannot accept connections: {error}; is the limit of open files (ulimit -n) too low?");
                        sleep(ACCEPT_BACKOFF).await;
                    }
                },
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                _ = self.reload_checks.tick(), if self.last_config.is_some() => self.close_after_reload(),
            }
        }
    }

    /// Closes all connections if a CA for clients is gone, so that none outlives the CA of its peer's certificate. Otherwise they stay: a
    /// renewed certificate must not break the calls that are in flight.
    fn close_after_reload(&mut self) {
        let config = self.tls.as_ref().map(|tls| tls.config.load());
        let earlier = std::mem::replace(&mut self.last_config, config);
        let Some((earlier, now)) = earlier.zip(self.last_config.as_ref()) else {
            return;
        };
        if !now.has_client_cas_of(&earlier) {
            let closed = self.table.cancel_all();
            info!("a CA for client certificates was removed: closed {closed} connections");
        }
    }

    /// The new connection, unless it exceeds the connection limit or needs a TLS handshake first.
    fn accepted(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
        let handle = self.table.add(peer)?;
        // A response is one small packet, or a few large ones: none should wait for the peer's acknowledgement.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        match self.tls.clone() {
            None => Some(Connection::new(Either::Left(stream), handle)),
            Some(tls) => {
                let failed = Arc::clone(&self.failed_handshakes);
                self.handshakes
                    .spawn(handshake(stream, handle, tls, failed));
                None
            }
        }
    }
}

async fn handshake(
    stream: TcpStream,
    handle: Handle,
    tls: Tls,
    failed: Arc<Flood>,
) -> Option<Connection> {
    // Removes the handle from the table if the handshake fails.
    let on_failure = RemoveOnDrop(Some(handle.clone()));
    let within = handle.timeouts().first_byte;
    let done = tokio::select! {
        done = timeout(within, begin(stream, &tls)) => done.unwrap_or(Err(io::ErrorKind::TimedOut.into())),
        () = handle.cancelled() => return None,
    };
    match done {
        Ok((stream, http2)) => {
            handle.handshake_done(http2, matches!(stream, Either::Left(_)));
            on_failure.keep();
            Some(Connection::new(stream, handle))
        }
        Err(error) => {
            let line = || {
                let why = explain(&error, tls.config.load().settings());
                info!("TLS handshake with {} failed: {why}", handle.peer());
            };
            failed.count(line, |handshakes| {
                warn!("{handshakes} more TLS handshakes failed in the last second");
            });
            None
        }
    }
}

/// The stream, and whether HTTP/2 was negotiated.
async fn begin(stream: TcpStream, tls: &Tls) -> io::Result<(Stream, bool)> {
    if tls.allow_plaintext {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
            return Ok((Either::Left(stream), false));
        }
    }
    let stream = TlsAcceptor::from(Arc::clone(&tls.config.load().config))
        .accept(stream)
        .await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Either::Right(stream), http2))
}

/// The error with the side that has to be corrected. `settings` are those of our certificate, and of the CAs for those of clients.
fn explain(error: &io::Error, settings: (&str, Option<&str>)) -> String {
    let (certificate, authorities) = settings;
    let authorities = authorities.unwrap_or("the CA file");
    match TlsFailure::find(error) {
        Some(TlsFailure::Rejected(alert)) => format!(
            "the client rejects our certificate ({alert}); check {certificate}, and the CA certificates and server name that the client uses"
        ),
        Some(TlsFailure::UnknownIssuer) => format!(
            "the client's certificate was not issued by a CA in {authorities} (unknown issuer)"
        ),
        Some(TlsFailure::Invalid(defect)) => {
            format!("the client's certificate {defect}; replace it at the client")
        }
        Some(TlsFailure::NoCertificate) => {
            format!("the client has no certificate, which {authorities} requires")
        }
        Some(TlsFailure::NoTls) => {
            format!("the client does not use TLS, which {certificate} requires")
        }
        Some(TlsFailure::Other(error)) => error,
        None => error.to_string(),
    }
}

struct RemoveOnDrop(Option<Handle>);

impl RemoveOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.remove();
        }
    }
}

/// Whether the error concerns one connection only: its peer hung up before it was accepted.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
