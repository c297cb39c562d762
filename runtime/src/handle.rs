//! What is known of an accepted connection: what is expected of its peer, and how long that may take.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    Exchange,
    exchange::{Entry, FIRST_TURNS, Stage},
    table::Table,
};

/// For how long a peer must have owed bytes before its connection is closed to make room for the bytes of others: a hundred times what
/// a peer in the same data centre takes.
pub(crate) const OWED: Duration = Duration::from_millis(100);

/// For how long it must have left a response untaken. With thousands of requests in an overload, hundreds of milliseconds pass before
/// it is written.
const UNTAKEN: Duration = Duration::from_millis(500);

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
    turns: Arc<Semaphore>,
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

/// How many bytes a connection's exchanges hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holds {
    /// Of exchanges that wait for room for more.
    pub(crate) waiting: usize,
    /// Of all others, which give them back when they end.
    pub(crate) moving: usize,
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
            turns: Arc::new(Semaphore::new(FIRST_TURNS)),
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
    pub(crate) fn cancelled(&self) -> WaitForCancellationFutureOwned {
        self.0.cancel.clone().cancelled_owned()
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.0.timeouts
    }

    pub(crate) fn remove(&self) {
        self.0.table.remove(self.0.key);
    }

    /// Whether the connection is broken: responses that were not taken by now never are.
    pub fn is_lost(&self) -> bool {
        self.state().lost
    }

    pub(crate) fn lose(&self) {
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
        state.exchanges.push(Entry::new(id));
        drop(state);
        Exchange::new(self.clone(), id, http2)
    }

    /// Changes what is known of an exchange.
    pub(crate) fn update(&self, id: u64, change: impl FnOnce(&mut Entry)) {
        let mut state = self.state();
        if let Some(entry) = state.exchanges.iter_mut().find(|entry| entry.id == id) {
            change(entry);
        }
    }

    /// Ends an exchange. Whether its response was taken.
    pub(crate) fn end(&self, id: u64) -> bool {
        let mut state = self.state();
        let position = state.exchanges.iter().position(|entry| entry.id == id);
        let ended = position.map(|position| state.exchanges.remove(position));
        if state.exchanges.is_empty() {
            state.enter(Phase::Idle);
            state.last_request = state.since;
        }
        !state.lost && ended.is_some_and(|entry| entry.stage == Stage::Sending)
    }

    /// A whole request has arrived.
    pub(crate) fn requested(&self) {
        self.state().last_request = Instant::now();
    }

    pub(crate) fn table(&self) -> &Table {
        &self.0.table
    }

    /// The turns of its requests, of which each exchange that is worked on or untaken has one.
    pub(crate) fn turns(&self) -> &Arc<Semaphore> {
        &self.0.turns
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

    /// Since when the peer has held up bytes: has been owing the rest of a body, or has left a response untaken for longer than we
    /// ourselves may take to write it.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        let state = self.state();
        let theirs = state.exchanges.iter().filter(|entry| {
            let patience = match entry.stage {
                Stage::Receiving => OWED,
                Stage::Working => return false,
                Stage::Sending => UNTAKEN,
            };
            entry.holds > 0 && entry.waits_since.is_none() && entry.since.elapsed() >= patience
        });
        theirs.map(|entry| entry.since).min()
    }

    /// How many bytes its exchanges hold.
    pub(crate) fn holds(&self) -> Holds {
        let state = self.state();
        let mut holds = Holds::default();
        for entry in &state.exchanges {
            match entry.waits_since {
                Some(_) => holds.waiting += entry.holds,
                None => holds.moving += entry.holds,
            }
        }
        holds
    }

    /// Something has arrived.
    pub(crate) fn heard(&self) {
        let mut state = self.state();
        match state.phase {
            Phase::FirstByte if self.0.table.counts_requests() => state.enter(Phase::Head),
            Phase::FirstByte | Phase::Anything => state.enter(Phase::Anything),
            Phase::Idle if !state.http2 && state.exchanges.is_empty() => state.enter(Phase::Head),
            Phase::Idle | Phase::Head => {}
        }
    }

    /// When patience with the peer ends, if anything is expected of it.
    pub(crate) fn due(&self) -> Option<Instant> {
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
