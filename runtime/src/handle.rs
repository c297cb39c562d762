//! The state of an accepted connection: what its peer is expected to do, and by when.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    Exchange,
    connection::LINGER,
    exchange::{Entry, INITIAL_WINDOW, Stage},
    table::Table,
};

/// How long the peer must have owed the rest of a request before its connection may be evicted: a hundred times what a peer in the
/// same data centre needs.
pub(crate) const READ_STALL: Duration = Duration::from_millis(100);

/// How long a response must have been unread before its connection may be evicted. In an overload of thousands of requests,
/// hundreds of milliseconds pass before a response is written.
const WRITE_STALL: Duration = Duration::from_millis(500);

/// How much a peer may send over HTTP/2, beside the bodies of requests, without reading a response, before it is read in turns: the heads
/// of a hundred requests. There are frames that belong to no request, and each costs as much as a hundred bytes of a body.
const FREE_BYTES: usize = 16 * 1024;

/// Time limits for a peer.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until the first byte, and until the end of a TLS handshake.
    pub first_byte: Duration,
    /// From a request's first byte to the end of its head. Only if requests are counted, by [`Handle::begin`].
    pub head: Duration,
    /// Without a request if requests are counted, otherwise without a byte.
    pub idle: Duration,
    /// To read a response, or any other bytes that were written.
    pub write: Duration,
}

/// A handle to a connection, for the rest of the process. Clones refer to the same connection.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    peer: SocketAddr,
    key: usize,
    table: Arc<Table>,
    cancel: CancellationToken,
    retired: CancellationToken,
    window: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// When the last request was completed or answered; initially, when the connection was accepted.
    last_request: Instant,
    http2: bool,
    plaintext: bool,
    /// Whether writes can no longer reach the peer.
    broken: bool,
    /// Bytes received over HTTP/2, beside the bodies of requests, since the peer last read a response.
    unanswered_bytes: usize,
    /// In the order in which they began, and so in that of their IDs.
    exchanges: VecDeque<Entry>,
    next_id: u64,
}

/// What the peer is expected to send while no request is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    FirstByte,
    Head,
    Idle,
    /// Any byte: requests are not counted.
    AnyByte,
}

/// Bytes reserved for a connection's exchanges.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReservedBytes {
    /// By exchanges that have waited for more for [`READ_STALL`].
    pub(crate) blocked: usize,
    /// Not reserved yet, by exchanges that wait for them.
    pub(crate) waiting: usize,
    /// By all others, which release them when they end.
    pub(crate) active: usize,
}

impl Handle {
    pub(crate) fn new(peer: SocketAddr, key: usize, table: Arc<Table>) -> Self {
        let now = Instant::now();
        Self(Arc::new(Shared {
            peer,
            key,
            table,
            cancel: CancellationToken::new(),
            retired: CancellationToken::new(),
            window: Arc::new(Semaphore::new(INITIAL_WINDOW)),
            state: Mutex::new(State {
                phase: Phase::FirstByte,
                since: now,
                last_request: now,
                http2: false,
                plaintext: false,
                broken: false,
                unanswered_bytes: 0,
                exchanges: VecDeque::new(),
                next_id: 0,
            }),
        }))
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// Whether the peer does not use TLS on a TLS listener.
    pub fn plaintext(&self) -> bool {
        self.0.state.lock().plaintext
    }

    /// The handshake is complete: restarts the timeout for the first byte.
    pub(crate) fn handshake_done(&self, http2: bool, plaintext: bool) {
        let mut state = self.0.state.lock();
        state.http2 = http2;
        state.plaintext = plaintext;
        state.enter(Phase::FirstByte);
    }

    /// Ready once the connection is cancelled.
    pub(crate) fn cancelled(&self) -> WaitForCancellationFutureOwned {
        self.0.cancel.clone().cancelled_owned()
    }

    /// Ready once the connection has been without a request for the idle timeout: the server must close it, so that the peer is told
    /// first, as by HTTP/2's GOAWAY. Three seconds later, reading and writing fail.
    pub fn retired(&self) -> WaitForCancellationFutureOwned {
        self.0.retired.clone().cancelled_owned()
    }

    /// Retires the connection if its peer has exceeded the idle timeout. Returns false if it has not, or was retired before.
    pub(crate) fn retire(&self) -> bool {
        let state = self.0.state.lock();
        let is_idle = state.phase == Phase::Idle && state.exchanges.is_empty();
        let is_overdue = state.since.elapsed() >= self.timeouts().idle;
        let retires = is_idle && is_overdue && !self.0.retired.is_cancelled();
        if retires {
            self.0.retired.cancel();
        }
        retires
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.0.table.bounds().timeouts
    }

    pub(crate) fn remove(&self) {
        self.0.table.remove(self.0.key);
    }

    /// Whether the connection is broken: unread responses are lost.
    pub fn is_broken(&self) -> bool {
        self.0.state.lock().broken
    }

    pub(crate) fn set_broken(&self) {
        self.0.state.lock().broken = true;
    }

    /// Closes the connection immediately, even during a request.
    pub fn cancel(&self) {
        self.0.cancel.cancel();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.cancel.is_cancelled()
    }

    /// Begins an exchange, when the head of a request has arrived. An HTTP/2 connection may have several.
    pub fn begin(&self, http2: bool) -> Exchange {
        let mut state = self.0.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.http2 = http2;
        state.exchanges.push_back(Entry::new(id));
        drop(state);
        Exchange::new(self.clone(), id, http2)
    }

    /// Updates the state of an exchange.
    pub(crate) fn update(&self, id: u64, change: impl FnOnce(&mut Entry)) {
        let mut state = self.0.state.lock();
        if let Some(entry) = state
            .position(id)
            .and_then(|at| state.exchanges.get_mut(at))
        {
            change(entry);
        }
    }

    /// Ends an exchange. Returns whether its response was read.
    pub(crate) fn end(&self, id: u64) -> bool {
        let mut state = self.0.state.lock();
        let ended = state.position(id).and_then(|at| state.exchanges.remove(at));
        if state.exchanges.is_empty() {
            let counts_requests = self.0.table.bounds().counts_requests;
            state.enter(match counts_requests {
                true => Phase::Idle,
                false => Phase::AnyByte,
            });
            state.last_request = state.since;
        }
        let is_read = !state.broken && ended.is_some_and(|entry| entry.stage == Stage::Sending);
        if is_read {
            state.unanswered_bytes = 0;
        }
        is_read
    }

    /// A request is complete.
    pub(crate) fn request_received(&self) {
        self.0.state.lock().last_request = Instant::now();
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.0.table
    }

    /// The concurrency window: each exchange that is processed or has an unread response holds a permit.
    pub(crate) fn window(&self) -> &Arc<Semaphore> {
        &self.0.window
    }

    /// Since when this connection has been without a complete request or, if requests are not counted, without a byte; `None` while
    /// it is in use.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        /// A connection counts as in use for this long after its response is ready.
        const READ_PROMPTLY: Duration = Duration::from_secs(1);
        let state = self.0.state.lock();
        if state.phase == Phase::AnyByte {
            let idle = state.since.elapsed() >= self.timeouts().first_byte;
            return idle.then_some(state.since);
        }
        let in_use = state.exchanges.iter().any(|entry| match entry.stage {
            Stage::Receiving => false,
            Stage::Working => true,
            Stage::Sending => entry.since.elapsed() < READ_PROMPTLY,
        });
        (!in_use).then_some(state.last_request)
    }

    /// Since when the peer has stalled reserved bytes, by not sending the rest of a body or not reading a response; `None` before
    /// the respective stall time has passed.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        let state = self.0.state.lock();
        let stalled = state.exchanges.iter().filter(|entry| {
            let limit = match entry.stage {
                Stage::Receiving => READ_STALL,
                Stage::Working => return false,
                Stage::Sending => WRITE_STALL,
            };
            entry.reserved > 0 && entry.blocked_since.is_none() && entry.since.elapsed() >= limit
        });
        stalled.map(|entry| entry.since).min()
    }

    /// Bytes reserved for its exchanges.
    pub(crate) fn reserved(&self) -> ReservedBytes {
        let state = self.0.state.lock();
        let mut reserved = ReservedBytes::default();
        for entry in &state.exchanges {
            reserved.waiting += entry.waiting;
            match entry.blocked_since {
                Some(since) if since.elapsed() >= READ_STALL => reserved.blocked += entry.reserved,
                _ => reserved.active += entry.reserved,
            }
        }
        reserved
    }

    /// Bytes have arrived, `beside_data` of them over HTTP/2 beside the bodies of requests. Returns whether more must be read in turns.
    pub(crate) fn received_bytes(&self, beside_data: usize) -> bool {
        let mut state = self.0.state.lock();
        let counts_requests = self.0.table.bounds().counts_requests;
        match state.phase {
            Phase::FirstByte if counts_requests => state.enter(Phase::Head),
            Phase::FirstByte | Phase::AnyByte => state.enter(Phase::AnyByte),
            Phase::Idle if !state.http2 && state.exchanges.is_empty() => state.enter(Phase::Head),
            Phase::Idle | Phase::Head => {}
        }
        state.unanswered_bytes = state.unanswered_bytes.saturating_add(beside_data);
        counts_requests && state.unanswered_bytes > FREE_BYTES
    }

    /// HTTP/2's preface is complete: a request may follow at any time.
    pub(crate) fn received_preface(&self) {
        let mut state = self.0.state.lock();
        state.http2 = true;
        if state.phase == Phase::Head {
            state.enter(Phase::Idle);
        }
    }

    /// When the peer exceeds its timeout, if it is expected to do anything.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let Timeouts {
            first_byte,
            head,
            idle,
            write,
        } = self.timeouts();
        let state = self.0.state.lock();
        if !state.exchanges.is_empty() {
            let sending = state.exchanges.iter();
            let sending = sending.filter(|entry| entry.stage == Stage::Sending);
            return sending.map(|entry| entry.since + write).min();
        }
        let limit = match state.phase {
            Phase::FirstByte => first_byte,
            Phase::Head => head,
            Phase::Idle if self.0.retired.is_cancelled() => idle + LINGER,
            Phase::Idle | Phase::AnyByte => idle,
        };
        Some(state.since + limit)
    }
}

impl State {
    fn position(&self, id: u64) -> Option<usize> {
        self.exchanges
            .binary_search_by_key(&id, |entry| entry.id)
            .ok()
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}
