//! One accepted connection: its bytes, and how long its peer may take for what is expected of it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    runtime::Handle as Runtime,
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{
    either::Either,
    sync::{CancellationToken, WaitForCancellationFutureOwned},
};

use crate::accept::Table;

pub(crate) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// How long a closed connection is read on: a socket that is closed on unread bytes resets the connection, and the peer loses
/// the last response. As long as a packet that was lost twice.
const LINGER: Duration = Duration::from_secs(3);

/// How much is read at once of what nobody wants.
const DISCARD_BYTES: usize = 16 * 1024;

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To the first byte, and to the end of a TLS handshake.
    pub first_byte: Duration,
    /// From a request's first byte to the end of its head. Only where requests are counted, by [`Handle::begin`].
    pub head: Duration,
    /// Without a request where requests are counted, else without a byte.
    pub idle: Duration,
    /// To take a response, or any other bytes that were written.
    pub write: Duration,
}

/// What the rest of the process knows of a connection. Clones are handles to the same connection.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    peer: SocketAddr,
    key: usize,
    timeouts: Timeouts,
    table: Arc<Table>,
    cancel: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// When the last request was complete or answered; at first, when the connection was accepted.
    last_request: Instant,
    http2: bool,
    plaintext: bool,
    /// Nothing that is written now gets to the peer.
    lost: bool,
    /// In the order in which they began.
    exchanges: Vec<Entry>,
    next_id: u64,
}

/// What is expected of the peer while no request is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    FirstByte,
    Head,
    Idle,
    /// Requests are not counted here: anything at all.
    Anything,
}

/// Whose turn it is in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The peer's: its request's body is still to come.
    Receiving,
    /// Ours.
    Working,
    /// The peer's: it has a response to take.
    Sending,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    stage: Stage,
    since: Instant,
}

/// A request and its response, until the peer has taken the response or lost it. Holds the bytes that were reserved for it.
#[derive(Debug)]
pub struct Exchange {
    handle: Handle,
    id: u64,
    received: AtomicBool,
    reserved: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Handle {
    pub(crate) fn new(peer: SocketAddr, key: usize, timeouts: Timeouts, table: Arc<Table>) -> Self {
        let now = Instant::now();
        Self(Arc::new(Shared {
            peer,
            key,
            timeouts,
            table,
            cancel: CancellationToken::new(),
            state: Mutex::new(State {
                phase: Phase::FirstByte,
                since: now,
                last_request: now,
                http2: false,
                plaintext: false,
                lost: false,
                exchanges: Vec::new(),
                next_id: 0,
            }),
        }))
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// Whether the peer speaks no TLS where only TLS is spoken.
    pub fn plaintext(&self) -> bool {
        self.state().plaintext
    }

    /// Its handshake is made: the peer's time begins anew.
    pub(crate) fn made(&self, http2: bool, plaintext: bool) {
        let mut state = self.state();
        state.http2 = http2;
        state.plaintext = plaintext;
        state.enter(Phase::FirstByte);
    }

    /// Ready once the connection is to end at once.
    pub(crate) async fn cancelled(&self) {
        self.0.cancel.cancelled().await;
    }

    pub(crate) fn remove(&self) {
        self.0.table.remove(self.0.key);
    }

    /// Whether the connection is broken: responses that were not taken by now never are.
    pub fn is_lost(&self) -> bool {
        self.state().lost
    }

    fn lose(&self) {
        self.state().lost = true;
    }

    /// Ends the connection at once, whatever is open on it.
    pub fn cancel(&self) {
        self.0.cancel.cancel();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.cancel.is_cancelled()
    }

    /// Begins an exchange: the head of a request has arrived. An HTTP/2 connection may have several.
    pub fn begin(&self, http2: bool) -> Exchange {
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        state.http2 = http2;
        state.exchanges.push(Entry {
            id,
            stage: Stage::Receiving,
            since: Instant::now(),
        });
        drop(state);
        Exchange {
            handle: self.clone(),
            id,
            received: AtomicBool::new(false),
            reserved: Mutex::new(None),
        }
    }

    /// Since when this connection has been without a complete request, or where those are not counted without a byte; `None` while
    /// it is in use.
    pub(crate) fn unserved_since(&self) -> Option<Instant> {
        /// A response that is taken at once keeps its connection.
        const TAKEN_AT_ONCE: Duration = Duration::from_secs(1);
        let state = self.state();
        if state.phase == Phase::Anything {
            // Whoever lives is heard within that time.
            let silent = state.since.elapsed() >= self.0.timeouts.first_byte;
            return silent.then_some(state.since);
        }
        let served = state.exchanges.iter().any(|entry| match entry.stage {
            Stage::Receiving => false,
            Stage::Working => true,
            Stage::Sending => entry.since.elapsed() < TAKEN_AT_ONCE,
        });
        (!served).then_some(state.last_request)
    }

    /// Since when the peer has been owing the rest of a body, or has left a response untaken.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        let state = self.state();
        let theirs = state.exchanges.iter();
        let theirs = theirs.filter(|entry| entry.stage != Stage::Working);
        theirs.map(|entry| entry.since).min()
    }

    fn received(&self) {
        let mut state = self.state();
        match state.phase {
            Phase::FirstByte if self.0.table.counts_requests() => state.enter(Phase::Head),
            Phase::FirstByte | Phase::Anything => state.enter(Phase::Anything),
            Phase::Idle if !state.http2 && state.exchanges.is_empty() => state.enter(Phase::Head),
            Phase::Idle | Phase::Head => {}
        }
    }

    /// When patience with the peer ends, if anything is expected of it.
    fn due(&self) -> Option<Instant> {
        let Timeouts {
            first_byte,
            head,
            idle,
            write,
        } = self.0.timeouts;
        let state = self.state();
        if !state.exchanges.is_empty() {
            let sending = state.exchanges.iter();
            let sending = sending.filter(|entry| entry.stage == Stage::Sending);
            return sending.map(|entry| entry.since + write).min();
        }
        let patience = match state.phase {
            Phase::FirstByte => first_byte,
            Phase::Head => head,
            Phase::Idle | Phase::Anything => idle,
        };
        Some(state.since + patience)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What it guards is whole after any panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}

impl Exchange {
    /// The connection.
    pub fn connection(&self) -> &Handle {
        &self.handle
    }

    /// The request is complete: the next step is ours.
    pub fn received(&self) {
        self.received.store(true, Relaxed);
        self.handle.state().last_request = Instant::now();
        self.working();
    }

    /// The next step is ours.
    pub fn working(&self) {
        let mut state = self.handle.state();
        self.enter(&mut state, Stage::Working);
    }

    /// Whether the whole request has arrived.
    pub fn is_received(&self) -> bool {
        self.received.load(Relaxed)
    }

    /// The response, or the next piece of it, is made: the peer has to take it.
    pub fn answered(&self) {
        let mut state = self.handle.state();
        self.enter(&mut state, Stage::Sending);
    }

    /// Reserves room for `bytes` more of this exchange, until it ends. Where there is none, the connection that has owed bytes,
    /// or left some untaken, for longest is closed to make room. To be bounded by the caller: it may wait for ever.
    pub async fn reserve(&self, bytes: usize) {
        let permit = self.handle.0.table.reserve(bytes).await;
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *reserved, permit) {
            (Some(reserved), Some(permit)) => reserved.merge(permit),
            (reserved, permit) => *reserved = permit.or(reserved.take()),
        }
    }

    fn enter(&self, state: &mut State, stage: Stage) {
        if let Some(entry) = state.exchanges.iter_mut().find(|entry| entry.id == self.id) {
            entry.stage = stage;
            entry.since = Instant::now();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.handle.state();
        state.exchanges.retain(|entry| entry.id != self.id);
        if state.exchanges.is_empty() {
            state.enter(Phase::Idle);
            state.last_request = state.since;
        }
    }
}

/// An accepted connection's bytes. Reading or writing fails once the peer has taken too long, or the connection is cancelled.
/// When it is shut down, what the peer still sends is read for a while, so that it gets the last response.
pub struct Connection {
    /// Taken when this is dropped.
    stream: Option<Stream>,
    handle: Handle,
    timer: Pin<Box<Sleep>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Since when the peer has taken nothing of what is to be written.
    write_blocked: Option<Instant>,
    /// Until when what still arrives is read; the connection is shut down.
    lingers: Option<Instant>,
    ended_by_peer: bool,
}

impl Connection {
    pub(crate) fn new(stream: Stream, handle: Handle) -> Self {
        // The first look sets the right time.
        let timer = sleep_until(Instant::now() + handle.0.timeouts.first_byte);
        Self {
            stream: Some(stream),
            timer: Box::pin(timer),
            cancelled: Box::pin(handle.0.cancel.clone().cancelled_owned()),
            handle,
            write_blocked: None,
            lingers: None,
            ended_by_peer: false,
        }
    }

    /// What the rest of the process knows of this connection.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ready when the connection has to end. The timer is set anew only where it would fire too late, or fired too early: a
    /// peer that is quick never touches tokio's timers.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.cancelled.as_mut().poll(cx).is_ready() {
            self.handle.lose();
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        let blocked = self.write_blocked;
        let blocked = blocked.map(|since| since + self.handle.0.timeouts.write);
        let due = match self.lingers {
            Some(until) => Some(until),
            None => self.handle.due().into_iter().chain(blocked).min(),
        };
        let Some(due) = due else {
            return Poll::Pending;
        };
        if self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= due {
                self.handle.lose();
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(due);
        }
    }

    /// What a write came to; one that waits is bounded.
    fn written<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = written {
            self.write_blocked = None;
            return Poll::Ready(written.inspect_err(|_| self.handle.lose()));
        }
        self.write_blocked.get_or_insert_with(Instant::now);
        self.poll_overdue(cx).map(Err)
    }
}

/// Where HTTP ended the connection by an error, it was not shut down: that is done now, for the same reason.
impl Drop for Connection {
    fn drop(&mut self) {
        let lost = self.handle.state().lost;
        self.handle.lose();
        let stream = self.stream.take();
        let handle = self.handle.clone();
        if lost || self.ended_by_peer || self.lingers.is_some() {
            return handle.remove();
        }
        let (Some(mut stream), Ok(runtime)) = (stream, Runtime::try_current()) else {
            return handle.remove();
        };
        runtime.spawn(async move {
            let last = async {
                stream.shutdown().await?;
                let mut discarded = vec![0; DISCARD_BYTES];
                while stream.read(&mut discarded).await? > 0 {}
                io::Result::Ok(())
            };
            // The peer is gone by then, or has been for long enough.
            let _ = timeout(LINGER, last).await;
            handle.remove();
        });
    }
}

/// What a stream that was dropped already reads as.
fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Some(stream) = &mut self.stream else {
            return gone();
        };
        if let Poll::Ready(read) = Pin::new(stream).poll_read(cx, buf) {
            if buf.filled().len() > before {
                self.handle.received();
            } else {
                self.ended_by_peer = true;
            }
            return Poll::Ready(read.inspect_err(|_| self.handle.lose()));
        }
        self.poll_overdue(cx).map(Err)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return gone();
        };
        let written = Pin::new(stream).poll_write(cx, buf);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return gone();
        };
        let written = Pin::new(stream).poll_write_vectored(cx, bufs);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else {
            return gone();
        };
        let flushed = Pin::new(stream).poll_flush(cx);
        self.written(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingers.is_none() {
            let Some(stream) = &mut self.stream else {
                return gone();
            };
            let shut_down = Pin::new(stream).poll_shutdown(cx);
            ready!(self.written(shut_down, cx))?;
            self.lingers = Some(Instant::now() + LINGER);
        }
        let mut discarded = [0; DISCARD_BYTES];
        while !self.ended_by_peer {
            let Some(stream) = &mut self.stream else {
                return gone();
            };
            let mut buf = ReadBuf::new(&mut discarded);
            match Pin::new(stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => self.ended_by_peer = buf.filled().is_empty(),
                // The peer is gone, or has been for long enough.
                Poll::Ready(Err(_)) => break,
                Poll::Pending => {
                    ready!(self.poll_overdue(cx));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Handle;

    fn connect_info(&self) -> Handle {
        self.handle.clone()
    }
}
