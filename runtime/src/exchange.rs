//! A request and its response: whose step is next, the bytes that are held for it, and its turn among those of its connection.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::Handle;

/// How many requests of an HTTP/2 connection are worked on at first. As TCP's congestion window that doubles with each round of
/// responses that are taken: to the 100 streams of a connection in five rounds.
pub(crate) const FIRST_TURNS: usize = 4;

/// Whose step is next in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The peer's: its request's body is still to come.
    Receiving,
    /// Ours.
    Working,
    /// The peer's: it has a response to take.
    Sending,
}

/// What a connection knows of an exchange.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) stage: Stage,
    pub(crate) since: Instant,
    /// Since when it has been waiting for room: until it has some, its peer owes nothing.
    pub(crate) waits_since: Option<Instant>,
    /// How many bytes are reserved for it.
    pub(crate) holds: usize,
}

impl Entry {
    pub(crate) fn new(id: u64) -> Self {
        Self {
            id,
            stage: Stage::Receiving,
            since: Instant::now(),
            waits_since: None,
            holds: 0,
        }
    }
}

/// A request and its response, until the peer has taken the response or lost it. Holds the bytes that were reserved for it.
#[derive(Debug)]
pub struct Exchange {
    handle: Handle,
    id: u64,
    http2: bool,
    received: AtomicBool,
    reserved: Mutex<Option<OwnedSemaphorePermit>>,
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Exchange {
    pub(crate) fn new(handle: Handle, id: u64, http2: bool) -> Self {
        Self {
            handle,
            id,
            http2,
            received: AtomicBool::new(false),
            reserved: Mutex::new(None),
            turn: Mutex::new(None),
        }
    }

    /// The connection.
    pub fn connection(&self) -> &Handle {
        &self.handle
    }

    /// The request is complete: the next step is ours.
    pub fn received(&self) {
        self.received.store(true, Relaxed);
        self.handle.requested();
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

    /// Waits for this request's turn among those of its connection, and has it until the response is taken or lost. A connection begins
    /// with few turns and has one more for each response that was taken: whoever takes none has little worked for, and whoever takes
    /// all soon waits no more. One request at a time, as in HTTP/1.1, has its turn anyway.
    pub async fn turn(&self) {
        if !self.try_turn() {
            let turn = Arc::clone(self.handle.turns()).acquire_owned().await;
            // Never closed.
            *self.held_turn() = turn.ok();
        }
    }

    /// The same where nobody has to wait for it: whether it has its turn.
    pub fn try_turn(&self) -> bool {
        let mut held = self.held_turn();
        if self.http2 && held.is_none() {
            *held = Arc::clone(self.handle.turns()).try_acquire_owned().ok();
        }
        !self.http2 || held.is_some()
    }

    fn held_turn(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves room for `bytes` more of this exchange, until it ends. Where there is none, the connection that has owed bytes,
    /// or left some untaken, for longest is closed to make room. To be bounded by the caller: it may wait for long.
    /// Nothing is reserved where the connection was closed for others.
    pub async fn reserve(&self, bytes: usize) {
        let table = self.handle.table();
        let permit = match table.room(bytes) {
            Some(permit) => Some(permit),
            None => {
                let _waits = Waits::begin(self);
                tokio::select! {
                    permit = table.make_room(bytes) => permit,
                    // Nothing is read meanwhile that would fail.
                    () = self.handle.cancelled() => None,
                }
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
        self.handle.update(self.id, change);
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
        let had_turn = self.held_turn().take().is_some();
        if self.handle.end(self.id) && had_turn {
            self.handle.turns().add_permits(1);
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

    /// Requests of one connection whose turn it is, of so many.
    fn in_turn(handle: &Handle, requests: usize) -> Vec<Exchange> {
        let all = (0..requests).map(|_| handle.begin(true));
        all.filter(Exchange::try_turn).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_no_response_has_few_requests_worked_on() {
        let table = table();
        let handle = connection(&table);
        let untaken = in_turn(&handle, 100);
        assert_eq!(untaken.len(), FIRST_TURNS);
        untaken.iter().for_each(Exchange::answered);
        let next = handle.begin(true);
        assert!(timeout(LONG, next.turn()).await.is_err());
        let other = connection(&table);
        assert!(other.begin(true).try_turn());
    }

    #[tokio::test]
    async fn with_each_round_of_responses_that_are_taken_it_has_twice_as_many() {
        let handle = connection(&table());
        for round in 0..5 {
            let taken = in_turn(&handle, 100);
            assert_eq!(taken.len(), (FIRST_TURNS << round).min(100));
            taken.iter().for_each(Exchange::answered);
        }
    }

    #[tokio::test]
    async fn what_is_given_up_before_its_response_or_with_it_brings_nothing() {
        let handle = connection(&table());
        drop(in_turn(&handle, 100));
        let lost = in_turn(&handle, 100);
        assert_eq!(lost.len(), FIRST_TURNS);
        lost.iter().for_each(Exchange::answered);
        handle.lose();
        drop(lost);
        assert_eq!(in_turn(&handle, 100).len(), FIRST_TURNS);
    }

    #[tokio::test]
    async fn a_request_that_waits_has_its_turn_as_soon_as_another_is_over() {
        let handle = connection(&table());
        let mut untaken = in_turn(&handle, 100);
        let next = handle.begin(true);
        let (_, ()) = tokio::join!(next.turn(), async { drop(untaken.pop()) });
        assert!(next.try_turn());
    }

    #[tokio::test]
    async fn one_request_at_a_time_never_waits() {
        let handle = connection(&table());
        let pipelined: Vec<_> = (0..100).map(|_| handle.begin(false)).collect();
        assert!(pipelined.iter().all(Exchange::try_turn));
    }
}
