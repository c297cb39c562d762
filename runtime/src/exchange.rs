//! A request and its response: its stage, the bytes reserved for it, and its slot in the connection's concurrency window.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::Handle;

/// Initial concurrency window of an HTTP/2 connection, in requests. As in TCP's slow start, it doubles with each round of
/// responses that the peer reads: up to the 100 streams of a connection in five rounds.
pub(crate) const INITIAL_WINDOW: usize = 4;

/// The stage of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waiting for the peer to send the rest of the request.
    Receiving,
    /// Processing the request.
    Working,
    /// Waiting for the peer to read the response.
    Sending,
}

/// The state of an exchange, kept by its connection.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) stage: Stage,
    pub(crate) since: Instant,
    /// Since when it has been waiting for the byte limit. Until it gets its bytes, its peer is not expected to do anything.
    pub(crate) blocked_since: Option<Instant>,
    /// Bytes for which it waits, which are in memory already.
    pub(crate) waiting: usize,
    /// Bytes reserved for it.
    pub(crate) reserved: usize,
}

impl Entry {
    pub(crate) fn new(id: u64) -> Self {
        Self {
            id,
            stage: Stage::Receiving,
            since: Instant::now(),
            blocked_since: None,
            waiting: 0,
            reserved: 0,
        }
    }
}

/// A request and its response, until the response is read or lost. Holds the bytes reserved for it.
#[derive(Debug)]
pub struct Exchange {
    handle: Handle,
    id: u64,
    http2: bool,
    began: Instant,
    received: AtomicBool,
    broken: AtomicBool,
    reserved: Mutex<Option<OwnedSemaphorePermit>>,
    slot: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Exchange {
    pub(crate) fn new(handle: Handle, id: u64, http2: bool) -> Self {
        Self {
            handle,
            id,
            http2,
            began: Instant::now(),
            received: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            reserved: Mutex::new(None),
            slot: Mutex::new(None),
        }
    }

    /// The connection.
    pub fn connection(&self) -> &Handle {
        &self.handle
    }

    /// Whether it is one of several that its connection may have at once.
    pub fn is_http2(&self) -> bool {
        self.http2
    }

    /// When the head of the request had arrived.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Marks the request as complete.
    pub fn received(&self) {
        self.received.store(true, Relaxed);
        self.handle.request_received();
        self.working();
    }

    /// Marks the exchange as being processed: the peer is not expected to do anything.
    pub fn working(&self) {
        self.enter(Stage::Working);
    }

    /// Whether the request is complete.
    pub fn is_received(&self) -> bool {
        self.received.load(Relaxed)
    }

    /// Whether no response can reach the peer: it has cancelled the request, or the connection is broken.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Relaxed) || self.handle.is_broken()
    }

    /// The peer has cancelled the request. Over HTTP/1.1 its connection breaks with it.
    pub(crate) fn abandon(&self) {
        if self.http2 {
            self.broken.store(true, Relaxed);
        }
    }

    /// Marks the response, or the next part of it, as ready: the peer is expected to read it.
    pub fn answered(&self) {
        self.enter(Stage::Sending);
    }

    /// Waits for a slot in the connection's concurrency window, and holds it until the response is read or lost. The window starts
    /// small and grows by one for each response that the peer reads (slow start): a peer that reads none causes little work.
    /// HTTP/1.1 has one request at a time and needs no slot.
    pub async fn acquire_slot(&self) {
        if !self.try_acquire_slot() {
            let slot = Arc::clone(self.handle.window()).acquire_owned().await;
            // The semaphore is never closed.
            *self.slot.lock() = slot.ok();
        }
    }

    /// Acquires a slot without waiting. Returns whether the exchange has one or needs none.
    pub fn try_acquire_slot(&self) -> bool {
        let mut slot = self.slot.lock();
        if self.http2 && slot.is_none() {
            *slot = Arc::clone(self.handle.window()).try_acquire_owned().ok();
        }
        !self.http2 || slot.is_some()
    }

    /// Reserves `bytes` more for this exchange, until it ends; they are in memory already. When the byte limit is reached, evicts the
    /// connection that has stalled for longest and waits; the caller must bound the wait. Reserves nothing if this connection itself is
    /// evicted.
    pub async fn reserve(&self, bytes: usize) {
        let table = self.handle.table();
        let permit = match table.try_reserve(bytes) {
            Some(permit) => Some(permit),
            None => {
                let _blocked = Blocked::begin(self, bytes);
                tokio::select! {
                    permit = table.reserve(bytes) => permit,
                    // A cancelled connection is not read, so no read error ends this wait.
                    () = self.handle.cancelled() => None,
                }
            }
        };
        let mut reserved = self.reserved.lock();
        match (&mut *reserved, permit) {
            (Some(reserved), Some(permit)) => reserved.merge(permit),
            (reserved, permit) => *reserved = permit.or(reserved.take()),
        }
        let bytes = reserved
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        self.update(|entry| entry.reserved = bytes);
    }

    fn enter(&self, stage: Stage) {
        self.update(|entry| {
            entry.stage = stage;
            entry.since = Instant::now();
        });
    }

    fn update(&self, change: impl FnOnce(&mut Entry)) {
        self.handle.update(self.id, change);
    }
}

/// Marks an exchange as waiting for the byte limit while this lives. That time does not count against its peer.
struct Blocked<'a> {
    exchange: &'a Exchange,
    bytes: usize,
}

impl<'a> Blocked<'a> {
    fn begin(exchange: &'a Exchange, bytes: usize) -> Self {
        exchange.update(|entry| {
            entry.blocked_since = Some(Instant::now());
            entry.waiting = bytes;
        });
        exchange.handle.table().begin_waiting(bytes);
        Self { exchange, bytes }
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.exchange.handle.table().end_waiting(self.bytes);
        self.exchange.update(|entry| {
            entry.waiting = 0;
            if let Some(since) = entry.blocked_since.take() {
                entry.since += since.elapsed();
            }
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let had_slot = self.slot.lock().take().is_some();
        if self.handle.end(self.id) && had_slot {
            self.handle.window().add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::table::tests::{connection, table};

    const LONG: Duration = Duration::from_secs(60);

    /// The exchanges that get a slot, of so many requests on one connection.
    fn with_slots(handle: &Handle, requests: usize) -> Vec<Exchange> {
        let all = (0..requests).map(|_| handle.begin(true));
        all.filter(Exchange::try_acquire_slot).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_reads_no_response_stays_at_the_initial_window() {
        let table = table();
        let handle = connection(&table);
        let unread = with_slots(&handle, 100);
        assert_eq!(unread.len(), INITIAL_WINDOW);
        unread.iter().for_each(Exchange::answered);
        let next = handle.begin(true);
        assert!(timeout(LONG, next.acquire_slot()).await.is_err());
        let other = connection(&table);
        assert!(other.begin(true).try_acquire_slot());
    }

    #[tokio::test]
    async fn the_window_doubles_with_each_round_of_responses_that_are_read() {
        let handle = connection(&table());
        for round in 0..5 {
            let read = with_slots(&handle, 100);
            assert_eq!(read.len(), (INITIAL_WINDOW << round).min(100));
            read.iter().for_each(Exchange::answered);
        }
    }

    #[tokio::test]
    async fn exchanges_abandoned_before_or_with_their_response_do_not_widen_the_window() {
        let handle = connection(&table());
        drop(with_slots(&handle, 100));
        let lost = with_slots(&handle, 100);
        assert_eq!(lost.len(), INITIAL_WINDOW);
        lost.iter().for_each(Exchange::answered);
        handle.set_broken();
        drop(lost);
        assert_eq!(with_slots(&handle, 100).len(), INITIAL_WINDOW);
    }

    #[tokio::test]
    async fn a_waiting_request_gets_the_slot_of_one_that_ends() {
        let handle = connection(&table());
        let mut unread = with_slots(&handle, 100);
        let next = handle.begin(true);
        let (_, ()) = tokio::join!(next.acquire_slot(), async { drop(unread.pop()) });
        assert!(next.try_acquire_slot());
    }

    #[tokio::test]
    async fn http1_requests_never_wait() {
        let handle = connection(&table());
        let pipelined: Vec<_> = (0..100).map(|_| handle.begin(false)).collect();
        assert!(pipelined.iter().all(Exchange::try_acquire_slot));
    }
}
