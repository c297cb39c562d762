//! The accept loop: connections as they arrive, made by TLS where that is spoken.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
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
    Bounds, Connection, ConnectionMetrics, Handle, LastGood, Timeouts, connection::Stream,
    table::Table,
};

/// How long to rest where the operating system gives no connection: what is open needs time to close, and the log is not to be
/// flooded.
const REST: Duration = Duration::from_secs(1);

/// How many bytes may wait in the kernel for a peer that takes what is on its way to it before one more write is accepted: more than
/// most responses have. By itself the kernel accepts megabytes for a peer who reads nothing, and each response was worked for.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 4 * 1024;

/// How often to look whether connections were made with earlier files. Files themselves are looked at as often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The first byte of every TLS connection: a handshake record. No HTTP method begins with it.
const HANDSHAKE: u8 = 22;

/// TLS on a listener.
#[derive(Clone)]
pub struct Tls {
    /// What holds now: each handshake is made with it.
    pub config: LastGood<ServerConfig>,
    /// Whether a peer that speaks no TLS is let through, as [`Handle::plaintext`], so that it can be told so.
    pub yields_plaintext: bool,
    /// Whether connections end that were made before the files changed: whom the listener let in by an authority that it no longer
    /// believes is not to stay.
    pub ends_earlier: bool,
}

/// The connections of a listener, as they arrive: made by TLS where that is spoken, and bounded.
pub struct Incoming {
    listener: TcpListener,
    tls: Option<Tls>,
    timeouts: Timeouts,
    table: Arc<Table>,
    handshakes: JoinSet<Option<Connection>>,
    /// What the connections so far were made with.
    made_with: Option<Arc<ServerConfig>>,
    looks: Interval,
}

impl Incoming {
    /// Must be called inside a tokio runtime.
    pub fn new(
        listener: TcpListener,
        bounds: Bounds,
        tls: Option<Tls>,
        metrics: ConnectionMetrics,
    ) -> Self {
        let timeouts = bounds.timeouts;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            made_with: tls.as_ref().map(|tls| tls.config.load()),
            looks,
            listener,
            tls,
            timeouts,
            table: Arc::new(Table::new(bounds, metrics)),
            handshakes: JoinSet::new(),
        }
    }

    /// The next connection that is ready to be spoken on. Nothing is lost where the future is dropped.
    pub async fn accept(&mut self) -> Connection {
        loop {
            self.table.let_close().await;
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        if let Some(connection) = self.admit(stream, peer) {
                            return connection;
                        }
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        warn!("no connection can be accepted: {error}; is the limit of open files (ulimit -n) too low?");
                        sleep(REST).await;
                    }
                },
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                _ = self.looks.tick(), if self.made_with.is_some() => self.end_earlier(),
            }
        }
    }

    /// Ends the connections that were made with earlier files, where that is asked for.
    fn end_earlier(&mut self) {
        let Some(tls) = self.tls.as_ref().filter(|tls| tls.ends_earlier) else {
            return;
        };
        let config = tls.config.load();
        let earlier = self.made_with.replace(Arc::clone(&config));
        if earlier.is_some_and(|earlier| !Arc::ptr_eq(&earlier, &config)) {
            let ended = self.table.cancel_all();
            info!("TLS files changed: {ended} connections made with the earlier ones were ended");
        }
    }

    /// The connection, unless there is no room for it or its handshake is to be made first.
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
        let handle = self.table.admit(peer, self.timeouts)?;
        // A response is one small packet, or a few large ones: none should wait for the other side's acknowledgement.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        match self.tls.clone() {
            None => Some(Connection::new(Either::Left(stream), handle)),
            Some(tls) => {
                self.handshakes
                    .spawn(handshake(stream, handle, tls, self.timeouts.first_byte));
                None
            }
        }
    }
}

async fn handshake(
    stream: TcpStream,
    handle: Handle,
    tls: Tls,
    within: Duration,
) -> Option<Connection> {
    // Removes the handle from the table where the handshake fails.
    let unmade = Unmade(Some(handle.clone()));
    let made = tokio::select! {
        made = timeout(within, begin(stream, &tls)) => made.unwrap_or(Err(io::ErrorKind::TimedOut.into())),
        () = handle.cancelled() => return None,
    };
    match made {
        Ok((stream, http2)) => {
            handle.made(http2, matches!(stream, Either::Left(_)));
            unmade.keep();
            Some(Connection::new(stream, handle))
        }
        Err(error) => {
            info!("TLS handshake with {} failed: {error}", handle.peer());
            None
        }
    }
}

/// The stream, and whether HTTP/2 was agreed upon.
async fn begin(stream: TcpStream, tls: &Tls) -> io::Result<(Stream, bool)> {
    if tls.yields_plaintext {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
            return Ok((Either::Left(stream), false));
        }
    }
    let stream = TlsAcceptor::from(tls.config.load()).accept(stream).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Either::Right(stream), http2))
}

struct Unmade(Option<Handle>);

impl Unmade {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unmade {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.remove();
        }
    }
}

/// The peer hung up before it was accepted: no trouble of the listener's.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
