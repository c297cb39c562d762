//! What is known of an accepted connection: whose turn it is in each exchange, and how long its peer may take for what is expected
//! of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::table::Table;

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
    /// Since when it has been waiting for room: until it has some, its peer owes nothing.
    waits_since: Option<Instant>,
    /// How many bytes are reserved for it.
    holds: usize,
}

/// How many bytes a connection's exchanges hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holds {
    /// Of exchanges that wait for room for more.
    pub(crate) waiting: usize,
    /// Of all others, which give them back when they end.
    pub(crate) moving: usize,
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
        state.exchanges.push(Entry {
            id,
            stage: Stage::Receiving,
            since: Instant::now(),
            waits_since: None,
            holds: 0,
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

    /// Since when the peer has been owing the rest of a body, or has left a response untaken, that holds bytes.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        let state = self.state();
        let theirs = state.exchanges.iter().filter(|entry| {
            entry.holds > 0 && entry.stage != Stage::Working && entry.waits_since.is_none()
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
        self.enter(Stage::Working);
    }

    /// Whether the whole request has arrived.
    pub fn is_received(&self) -> bool {
        self.received.load(Relaxed)
    }

    /// The response, or the next piece of it, is made: the peer has to take it.
    pub fn answered(&self) {
        self.enter(Stage::Sending);
    }

    /// Reserves room for `bytes` more of this exchange, until it ends. Where there is none, the connection that has owed bytes,
    /// or left some untaken, for longest is closed to make room. To be bounded by the caller: it may wait for long.
    pub async fn reserve(&self, bytes: usize) {
        let table = &self.handle.0.table;
        let permit = match table.room(bytes) {
            Some(permit) => Some(permit),
            None => {
                let _waits = Waits::begin(self);
                table.make_room(bytes).await
            }
        };
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *reserved, permit) {
            (Some(reserved), Some(permit)) => reserved.merge(permit),
            (reserved, permit) => *reserved = permit.or(reserved.take()),
        }
        let holds = reserved
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        self.update(|entry| entry.holds = holds);
    }

    fn enter(&self, stage: Stage) {
        self.update(|entry| {
            entry.stage = stage;
            entry.since = Instant::now();
        });
    }

    fn update(&self, change: impl FnOnce(&mut Entry)) {
        let mut state = self.handle.state();
        if let Some(entry) = state.exchanges.iter_mut().find(|entry| entry.id == self.id) {
            change(entry);
        }
    }
}

/// An exchange waits for room for as long as this lives. That time is not its peer's.
struct Waits<'a>(&'a Exchange);

impl<'a> Waits<'a> {
    fn begin(exchange: &'a Exchange) -> Self {
        exchange.update(|entry| entry.waits_since = Some(Instant::now()));
        Self(exchange)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.update(|entry| {
            if let Some(since) = entry.waits_since.take() {
                entry.since += since.elapsed();
            }
        });
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
