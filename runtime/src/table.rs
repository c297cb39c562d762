//! The connection limit and the byte limit of a listener, and which connection is evicted when one of them is reached.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use importguard_telemetry::PerSecond;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::yield_now,
    time::{Instant, sleep},
};
use tracing::warn;

use crate::{
    Bounds, ConnectionMetrics, Handle,
    handle::{READ_STALL, ReservedBytes},
};

/// How far the connection limit may be exceeded while evicted connections close.
pub(crate) const CLOSING: usize = 100;

/// How often stalled connections are searched for while requests wait for the byte limit.
const EVICTION_INTERVAL: Duration = READ_STALL;

/// Minimum interval between searches for the connection that waits for most, and after a search for stalled ones that found none:
/// thousands of requests may begin to wait in a second, and each search visits all that are open.
const MIN_SEARCH_INTERVAL: Duration = Duration::from_millis(5);

/// How long no connection counts as stalled after this process itself has lagged: in a burst of thousands of requests, each waits
/// for the others.
const LAG_GRACE: Duration = Duration::from_secs(1);

/// All connections of a listener, and the bytes reserved for them.
#[derive(Debug)]
pub(crate) struct Table {
    bounds: Bounds,
    metrics: ConnectionMetrics,
    connections: Mutex<HashMap<usize, Handle>>,
    next_key: AtomicUsize,
    bytes: Arc<Semaphore>,
    /// Bytes in memory that wait for some of `bytes`.
    waiting: AtomicUsize,
    /// Whether a task evicts stalled connections.
    evicting: AtomicBool,
    lagging_until: Mutex<Option<Instant>>,
    next_search: Mutex<Option<Instant>>,
    next_waiting_search: Mutex<Option<Instant>>,
    warnings: PerSecond,
}

impl Table {
    pub(crate) fn new(bounds: Bounds, metrics: ConnectionMetrics) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(bounds.max_bytes)),
            bounds,
            metrics,
            connections: Mutex::default(),
            next_key: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            evicting: AtomicBool::new(false),
            lagging_until: Mutex::default(),
            next_search: Mutex::default(),
            next_waiting_search: Mutex::default(),
            warnings: PerSecond::new(1),
        }
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Adds a connection. At the connection limit, it replaces an idle one; `None` if all are in use.
    pub(crate) fn add(self: &Arc<Self>, peer: SocketAddr) -> Option<Handle> {
        let mut connections = self.connections.lock();
        let max = self.bounds.max_connections;
        let open = connections.values().filter(|other| !other.is_cancelled());
        if connections.len() >= max && open.count() >= max {
            // One more that closes would not make room for this one.
            let closing = connections.len() >= max + CLOSING;
            let evicted = !closing && self.evict_first(&connections, Handle::idle_since);
            self.warn(evicted);
            if !evicted {
                self.metrics.rejected.inc();
                return None;
            }
        }
        let key = self.next_key.fetch_add(1, SeqCst);
        let handle = Handle::new(peer, key, Arc::clone(self));
        connections.insert(key, handle.clone());
        self.metrics.open.inc();
        Some(handle)
    }

    /// Gives evicted connections time to close, so that a burst of new ones is not rejected because of them.
    pub(crate) async fn await_evicted(&self) {
        for _ in 0..CLOSING {
            if self.connections.lock().len() < self.bounds.max_connections + CLOSING / 2 {
                return;
            }
            yield_now().await;
        }
    }

    /// Evicts the connection for which `since` is the earliest; false if there is none.
    fn evict_first(
        &self,
        connections: &HashMap<usize, Handle>,
        since: impl Fn(&Handle) -> Option<Instant>,
    ) -> bool {
        let candidates = connections.values().filter(|other| !other.is_cancelled());
        let candidates = candidates.filter_map(|other| since(other).map(|since| (since, other)));
        let Some((_, first)) = candidates.min_by_key(|(since, _)| *since) else {
            return false;
        };
        self.evict(first);
        true
    }

    fn warn(&self, evicted: bool) {
        if !self.warnings.take() {
            return;
        }
        let setting = self.bounds.setting;
        if evicted {
            warn!(
                "connection limit reached ({setting}): closing the connections that have been without a request for longest"
            );
        } else {
            warn!(
                "connection limit reached ({setting}) and all connections are in use: rejecting new ones"
            );
        }
    }

    /// Cancels all connections, and returns their number.
    pub(crate) fn cancel_all(&self) -> usize {
        let connections = self.connections.lock();
        connections.values().for_each(Handle::cancel);
        connections.len()
    }

    pub(crate) fn remove(&self, key: usize) {
        if self.connections.lock().remove(&key).is_some() {
            self.metrics.open.dec();
        }
    }

    /// Reserves `bytes`, if available; more than the byte limit counts as the limit.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = self.permits(bytes);
        Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()
    }

    /// Reserves `bytes` as soon as they are available, first come, first served.
    pub(crate) async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = self.permits(bytes);
        // The semaphore is never closed.
        Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok()
    }

    /// Counts bytes that are in memory already and wait for the byte limit. They are bounded by that limit, too: beyond it, evicts the
    /// connection with most of them. While any wait, stalled connections are evicted, longest stalled first.
    pub(crate) fn begin_waiting(self: &Arc<Self>, bytes: usize) {
        if self.waiting.fetch_add(bytes, SeqCst) + bytes > self.bounds.max_bytes {
            self.evict_most_waiting();
        }
        self.search();
        if !self.evicting.swap(true, SeqCst) {
            tokio::spawn(Arc::clone(self).evict_stalled());
        }
    }

    pub(crate) fn end_waiting(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, SeqCst);
    }

    /// Evicts stalled connections until no bytes wait: one task for all, as a timer for each of thousands would cost more than it finds.
    async fn evict_stalled(self: Arc<Self>) {
        let mut found = None;
        while !self.is_finished() {
            let pause = match found {
                Some(true) => MIN_SEARCH_INTERVAL,
                _ => EVICTION_INTERVAL,
            };
            let began = Instant::now();
            sleep(pause).await;
            if began.elapsed() >= pause + EVICTION_INTERVAL {
                *self.lagging_until.lock() = Some(Instant::now() + LAG_GRACE);
            }
            // Requests that have just got their bytes notice it first.
            yield_now().await;
            if self.waiting.load(SeqCst) == 0 {
                continue;
            }
            // Its own pauses suffice: requests that begin to wait must not keep it from searching.
            *self.next_search.lock() = None;
            found = self.search();
            if found == Some(false) {
                self.evict_deadlocked();
            }
        }
    }

    /// Whether no bytes wait, so that the task ends; the next ones then start another.
    fn is_finished(&self) -> bool {
        if self.waiting.load(SeqCst) > 0 {
            return false;
        }
        self.evicting.store(false, SeqCst);
        // Bytes that began to wait before that have started no task.
        self.waiting.load(SeqCst) == 0 || self.evicting.swap(true, SeqCst)
    }

    /// The bytes of evicted connections are released soon and do not count. Searches rarely: each search visits all requests, and less
    /// arrives between two than an eviction releases.
    fn evict_most_waiting(&self) {
        let now = Instant::now();
        let mut next = self.next_waiting_search.lock();
        if next.is_some_and(|next| now < next) {
            return;
        }
        *next = Some(now + MIN_SEARCH_INTERVAL);
        drop(next);
        let connections = self.connections.lock();
        let open = connections.values().filter(|other| !other.is_cancelled());
        let waiting: Vec<_> = open
            .map(|other| (other.reserved().waiting, other))
            .collect();
        let total: usize = waiting.iter().map(|(bytes, _)| bytes).sum();
        let most = waiting.into_iter().max_by_key(|(bytes, _)| *bytes);
        if let Some((_, connection)) = most.filter(|_| total > self.bounds.max_bytes) {
            self.evict(connection);
        }
    }

    /// Evicts the connection that has stalled for longest. Returns whether there was one; `None` if it was not time to search.
    fn search(&self) -> Option<bool> {
        let now = Instant::now();
        let mut next = self.next_search.lock();
        if self.is_lagging() || next.is_some_and(|next| now < next) {
            return None;
        }
        let found = self.evict_first(&self.connections.lock(), Handle::stalled_since);
        *next = (!found).then(|| now + MIN_SEARCH_INTERVAL);
        Some(found)
    }

    /// Whether this process has lagged recently, so that its peers wait for it and not the other way round.
    fn is_lagging(&self) -> bool {
        self.lagging_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.bounds.max_bytes)).unwrap_or(u32::MAX)
    }

    /// If all exchanges with reserved bytes wait for more, none would ever get them: evicts the connection with the most. Honest
    /// peers need few. While any other exchange is active, its end will release bytes, and nothing needs to be evicted.
    fn evict_deadlocked(&self) {
        let connections = self.connections.lock();
        let mut most = None;
        for connection in connections.values() {
            let ReservedBytes {
                blocked, active, ..
            } = connection.reserved();
            if active > 0 || (blocked > 0 && connection.is_cancelled()) {
                return;
            }
            if blocked > most.map_or(0, |(most, _)| most) {
                most = Some((blocked, connection));
            }
        }
        if let Some((_, connection)) = most {
            self.evict(connection);
        }
    }

    fn evict(&self, connection: &Handle) {
        connection.cancel();
        self.metrics.evicted.inc();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use prometheus_client::registry::Registry;
    use tokio::{
        task::JoinHandle,
        time::{advance, sleep},
    };

    use super::*;
    use crate::{Exchange, Timeouts};

    const BYTES: usize = 1_000;
    const LONG: Duration = Duration::from_secs(1);

    pub(crate) fn table() -> Arc<Table> {
        let far = Duration::from_secs(60);
        let bounds = Bounds {
            max_connections: 10,
            max_bytes: BYTES,
            timeouts: Timeouts {
                first_byte: far,
                head: far,
                idle: far,
                write: far,
            },
            counts_requests: true,
            setting: "",
        };
        let metrics = ConnectionMetrics::register(&mut Registry::default(), "test", "a listener");
        Arc::new(Table::new(bounds, metrics))
    }

    pub(crate) fn connection(table: &Arc<Table>) -> Handle {
        table.add(([127, 0, 0, 1], 1).into()).unwrap()
    }

    /// A request that has begun, on its own connection.
    fn request(table: &Arc<Table>) -> Arc<Exchange> {
        Arc::new(connection(table).begin(false))
    }

    /// Reserves bytes in the background.
    fn reserves(exchange: &Arc<Exchange>, bytes: usize) -> JoinHandle<()> {
        let exchange = Arc::clone(exchange);
        tokio::spawn(async move { exchange.reserve(bytes).await })
    }

    fn is_evicted(exchange: &Exchange) -> bool {
        exchange.connection().is_cancelled()
    }

    #[tokio::test]
    async fn a_connection_that_is_rejected_evicts_none() {
        let table = table();
        let all: Vec<_> = (0..10 + CLOSING).map(|_| connection(&table)).collect();
        let evicted = || all.iter().filter(|handle| handle.is_cancelled()).count();
        assert_eq!(evicted(), CLOSING);
        assert!(table.add(([127, 0, 0, 1], 1).into()).is_none());
        assert_eq!(evicted(), CLOSING);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_waits_for_bytes_is_not_evicted() {
        let table = table();
        let active = request(&table);
        active.reserve(900).await;
        active.received();
        let waiting = [request(&table), request(&table)];
        let mut reservations = Vec::new();
        for exchange in &waiting {
            exchange.reserve(10).await;
            reservations.push(reserves(exchange, 200));
        }
        sleep(LONG).await;
        assert!(reservations.iter().all(|task| !task.is_finished()));
        drop(active);
        for reserved in reservations {
            reserved.await.unwrap();
        }
        assert!(!waiting.iter().any(|exchange| is_evicted(exchange)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_has_stalled_for_longest_is_evicted() {
        let table = table();
        let mut stalled = Vec::new();
        for _ in 0..2 {
            let exchange = request(&table);
            exchange.reserve(450).await;
            stalled.push(exchange);
            sleep(LONG).await;
        }
        let honest = request(&table);
        let reserved = reserves(&honest, 200);
        sleep(EVICTION_INTERVAL / 10).await;
        assert!(is_evicted(&stalled[0]) && !is_evicted(&stalled[1]));
        drop(stalled);
        reserved.await.unwrap();
        assert!(!is_evicted(&honest));
    }

    #[tokio::test(start_paused = true)]
    async fn time_spent_waiting_for_bytes_does_not_count_as_stalled() {
        let table = table();
        let active = request(&table);
        active.reserve(900).await;
        active.received();
        let early = request(&table);
        let reserved = reserves(&early, 200);
        sleep(LONG).await;
        drop(active);
        reserved.await.unwrap();
        let late = request(&table);
        late.reserve(800).await;
        let next = request(&table);
        let _reserved = reserves(&next, 500);
        sleep(READ_STALL / 2).await;
        assert!(!is_evicted(&early) && !is_evicted(&late));
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_deadlock_the_connection_with_the_most_bytes_is_evicted() {
        let table = table();
        let (large, small) = (request(&table), request(&table));
        large.reserve(600).await;
        small.reserve(300).await;
        let (first, second) = (reserves(&large, 300), reserves(&small, 300));
        sleep(LONG).await;
        assert!(is_evicted(&large) && !is_evicted(&small));
        // An evicted connection stops waiting: nothing else is read or written on it that would notice.
        first.await.unwrap();
        drop(large);
        second.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nor_is_the_deadlock_missed_because_others_begin_to_wait() {
        let table = table();
        let (large, small) = (request(&table), request(&table));
        large.reserve(600).await;
        small.reserve(300).await;
        let _blocked = (reserves(&large, 300), reserves(&small, 300));
        let other = connection(&table);
        for _ in 0..100 {
            let _waiting = reserves(&Arc::new(other.begin(true)), 1);
            sleep(MIN_SEARCH_INTERVAL / 2).await;
        }
        assert!(is_evicted(&large) && !is_evicted(&small));
    }

    #[tokio::test(start_paused = true)]
    async fn once_nobody_waits_any_more_no_connection_is_evicted() {
        let table = table();
        let (slow, ends) = (request(&table), request(&table));
        slow.reserve(500).await;
        ends.reserve(500).await;
        let next = request(&table);
        let reserved = reserves(&next, 200);
        sleep(EVICTION_INTERVAL / 10).await;
        drop(ends);
        reserved.await.unwrap();
        sleep(EVICTION_INTERVAL * 2).await;
        assert!(!is_evicted(&slow));
    }

    #[tokio::test(start_paused = true)]
    async fn where_too_much_waits_the_connection_with_most_of_it_is_evicted() {
        let table = table();
        let active = request(&table);
        active.reserve(BYTES).await;
        active.received();
        let (honest, greedy) = (request(&table), request(&table));
        let mut waiting = vec![reserves(&honest, BYTES / 10)];
        for _ in 0..9 {
            let another = Arc::new(greedy.connection().begin(true));
            waiting.push(reserves(&another, BYTES / 10));
        }
        yield_now().await;
        assert!(!is_evicted(&greedy), "all of it is within the limit");
        let last = request(&table);
        waiting.push(reserves(&last, BYTES / 10));
        yield_now().await;
        assert!(is_evicted(&greedy) && !is_evicted(&honest) && !is_evicted(&last));
        drop(active);
        for reserved in waiting {
            reserved.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_this_process_lags_no_connection_is_evicted() {
        let table = table();
        let owing = request(&table);
        owing.reserve(900).await;
        let next = request(&table);
        let reserved = reserves(&next, 200);
        yield_now().await;
        // As if something else had used all of the CPU time.
        advance(READ_STALL * 5).await;
        sleep(LAG_GRACE / 2).await;
        assert!(!is_evicted(&owing));
        sleep(LAG_GRACE).await;
        assert!(is_evicted(&owing));
        drop(owing);
        reserved.await.unwrap();
    }
}
