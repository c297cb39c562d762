//! The accept loop: how many connections there are, and which of them ends when there is no room for another.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinSet, yield_now},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tracing::{info, warn};

use crate::{Connection, ConnectionMetrics, Handle, Timeouts, connection::Stream};
use importguard_files::LastGood;

/// How many connections there may be beyond the limit for the moment that those take to close that lose their place to others.
pub(crate) const CLOSING: usize = 100;

/// How long to rest where the operating system gives no connection: what is open needs time to close, and the log is not to be
/// flooded.
const REST: Duration = Duration::from_secs(1);

/// For how long a peer must have owed bytes, or left them untaken, before its connection is closed to make room for the bytes of
/// others: a hundred times what a peer in the same data centre takes.
const STALLED: Duration = Duration::from_millis(100);

/// The first byte of every TLS connection: a handshake record. No HTTP method begins with it.
const HANDSHAKE: u8 = 22;

/// How much a listener puts up with.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connections that are open at once. For one more, the one is closed that has been without a complete request for longest.
    pub max_connections: usize,
    /// What is read and what is still to be written, in bytes, of all connections together.
    pub max_bytes: usize,
    /// How long peers may take.
    pub timeouts: Timeouts,
    /// Whether [`Handle::begin`] counts requests; else any byte shows that a peer is well.
    pub counts_requests: bool,
    /// The setting that `max_connections` comes from, for the log.
    pub setting: &'static str,
}

/// TLS on a listener.
#[derive(Clone)]
pub struct Tls {
    /// What holds now: each handshake is made with it.
    pub config: LastGood<ServerConfig>,
    /// Whether a peer that speaks no TLS is let through, as [`Handle::plaintext`], so that it can be told so.
    pub yields_plaintext: bool,
}

/// The connections of a listener, as they arrive: made by TLS where that is spoken, and bounded.
pub struct Incoming {
    listener: TcpListener,
    tls: Option<Tls>,
    timeouts: Timeouts,
    table: Arc<Table>,
    handshakes: JoinSet<Option<Connection>>,
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
        Self {
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
            }
        }
    }

    /// The connection, unless there is no room for it or its handshake is to be made first.
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
        let handle = self.table.admit(peer, self.timeouts)?;
        // A response is one small packet, or a few large ones: none should wait for the other side's acknowledgement.
        let _ = stream.set_nodelay(true);
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

/// All connections of a listener, and the bytes that they hold.
#[derive(Debug)]
pub(crate) struct Table {
    bounds: Bounds,
    metrics: ConnectionMetrics,
    connections: Mutex<HashMap<usize, Handle>>,
    next_key: AtomicUsize,
    bytes: Arc<Semaphore>,
    last_warning: Mutex<Option<Instant>>,
}

impl Table {
    fn new(bounds: Bounds, metrics: ConnectionMetrics) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(bounds.max_bytes)),
            bounds,
            metrics,
            connections: Mutex::default(),
            next_key: AtomicUsize::new(0),
            last_warning: Mutex::default(),
        }
    }

    pub(crate) fn counts_requests(&self) -> bool {
        self.bounds.counts_requests
    }

    /// A place for a connection. Where all are taken, another one loses its own, unless each is in use.
    fn admit(self: &Arc<Self>, peer: SocketAddr, timeouts: Timeouts) -> Option<Handle> {
        let mut connections = self.connections();
        let max = self.bounds.max_connections;
        let open = connections.values().filter(|other| !other.is_cancelled());
        if connections.len() >= max && open.count() >= max {
            let has_room = self.evict(&connections);
            self.warn(has_room);
            if !has_room || connections.len() >= max + CLOSING {
                self.metrics.rejected.inc();
                return None;
            }
        }
        let key = self.next_key.fetch_add(1, Relaxed);
        let handle = Handle::new(peer, key, timeouts, Arc::clone(self));
        connections.insert(key, handle.clone());
        self.metrics.open.inc();
        Some(handle)
    }

    /// Lets those close that were told to: a burst of newcomers is not to be turned away for them.
    async fn let_close(&self) {
        for _ in 0..CLOSING {
            if self.connections().len() < self.bounds.max_connections + CLOSING / 2 {
                return;
            }
            yield_now().await;
        }
    }

    /// Ends the connection that has been without a complete request for longest; false where each is being served.
    fn evict(&self, connections: &HashMap<usize, Handle>) -> bool {
        let candidates = connections.values().filter(|other| !other.is_cancelled());
        let candidates =
            candidates.filter_map(|other| other.unserved_since().map(|since| (since, other)));
        let Some((_, oldest)) = candidates.min_by_key(|(since, _)| *since) else {
            return false;
        };
        oldest.cancel();
        self.metrics.evicted.inc();
        true
    }

    fn warn(&self, has_room: bool) {
        const EVERY: Duration = Duration::from_secs(1);
        let mut last = self
            .last_warning
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        *last = Some(Instant::now());
        let setting = self.bounds.setting;
        if has_room {
            warn!(
                "there are more connections than {setting} allows: those that have been without a request for longest are closed"
            );
        } else {
            warn!("every connection that {setting} allows is in use: new ones are closed");
        }
    }

    pub(crate) fn remove(&self, key: usize) {
        if self.connections().remove(&key).is_some() {
            self.metrics.open.dec();
        }
    }

    /// Room for `bytes`; for more than there ever is, all of it.
    pub(crate) async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(self.bounds.max_bytes)).unwrap_or(u32::MAX);
        loop {
            if let Ok(permit) = Arc::clone(&self.bytes).try_acquire_many_owned(bytes) {
                return Some(permit);
            }
            self.evict_stalled();
            let waiting = Arc::clone(&self.bytes).acquire_many_owned(bytes);
            if let Ok(permit) = timeout(STALLED, waiting).await {
                // Never closed.
                return permit.ok();
            }
        }
    }

    /// Ends the connection whose peer has owed bytes, or left them untaken, for longest.
    fn evict_stalled(&self) {
        let connections = self.connections();
        let candidates = connections.values().filter(|other| !other.is_cancelled());
        let candidates =
            candidates.filter_map(|other| other.stalled_since().map(|since| (since, other)));
        let longest = candidates.min_by_key(|(since, _)| *since);
        if let Some((since, stalled)) = longest
            && since.elapsed() >= STALLED
        {
            stalled.cancel();
            self.metrics.evicted.inc();
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<usize, Handle>> {
        // What it guards is whole after any panic.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
