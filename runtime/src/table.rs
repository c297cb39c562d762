//! How many connections there are and how many bytes they hold, and which of them ends when there is no room for more.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::yield_now,
    time::{Instant, timeout},
};
use tracing::warn;

use crate::{
    Bounds, ConnectionMetrics, Handle, Timeouts,
    handle::{Holds, OWED},
};

/// How many connections there may be beyond the limit for the moment that those take to close that lose their place to others.
pub(crate) const CLOSING: usize = 100;

/// How often it is looked whether somebody can make room.
const LOOK: Duration = OWED;

/// How long nobody looks again where there was nobody: thousands may wait, and each looks at all that is open.
const BETWEEN: Duration = Duration::from_millis(2);

/// For how long nobody is called slow after we ourselves have been late. A burst of thousands of requests has each wait for the others.
const LATE: Duration = Duration::from_secs(1);

/// All connections of a listener, and the bytes that they hold.
#[derive(Debug)]
pub(crate) struct Table {
    bounds: Bounds,
    metrics: ConnectionMetrics,
    connections: Mutex<HashMap<usize, Handle>>,
    next_key: AtomicUsize,
    bytes: Arc<Semaphore>,
    late_until: Mutex<Option<Instant>>,
    next_look: Mutex<Option<Instant>>,
    last_warning: Mutex<Option<Instant>>,
}

impl Table {
    pub(crate) fn new(bounds: Bounds, metrics: ConnectionMetrics) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(bounds.max_bytes)),
            bounds,
            metrics,
            connections: Mutex::default(),
            next_key: AtomicUsize::new(0),
            late_until: Mutex::default(),
            next_look: Mutex::default(),
            last_warning: Mutex::default(),
        }
    }

    pub(crate) fn counts_requests(&self) -> bool {
        self.bounds.counts_requests
    }

    /// A place for a connection. Where all are taken, another one loses its own, unless each is in use.
    pub(crate) fn admit(self: &Arc<Self>, peer: SocketAddr, timeouts: Timeouts) -> Option<Handle> {
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
    pub(crate) async fn let_close(&self) {
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
        self.end(oldest);
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

    /// Ends all connections, and returns how many those are.
    pub(crate) fn cancel_all(&self) -> usize {
        let connections = self.connections();
        connections.values().for_each(Handle::cancel);
        connections.len()
    }

    pub(crate) fn remove(&self, key: usize) {
        if self.connections().remove(&key).is_some() {
            self.metrics.open.dec();
        }
    }

    /// Room for `bytes`, if there is some; for more than there ever is, all of it.
    pub(crate) fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = self.permits(bytes);
        Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()
    }

    /// Room for `bytes`, as soon as there is some, in the order of those who ask. It is made by who holds up bytes for longest.
    pub(crate) async fn make_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = self.permits(bytes);
        let mut waiting = pin!(Arc::clone(&self.bytes).acquire_many_owned(bytes));
        self.look();
        loop {
            let began = Instant::now();
            if let Ok(permit) = timeout(LOOK, &mut waiting).await {
                // Never closed.
                return permit.ok();
            }
            if began.elapsed() >= LOOK * 2 {
                *self.late_until() = Some(Instant::now() + LATE);
            }
            if self.look() == Some(false) {
                self.evict_deadlocked();
            }
        }
    }

    /// Ends the connection that has held up bytes for longest, and says whether there was one; `None` if it is not the time to look.
    fn look(&self) -> Option<bool> {
        let now = Instant::now();
        let mut next = self
            .next_look
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.is_late() || next.is_some_and(|next| now < next) {
            return None;
        }
        let found = self.evict_stalled();
        *next = (!found).then(|| now + BETWEEN);
        Some(found)
    }

    /// Whether we have been late lately, so that peers wait for us, and not we for them.
    fn is_late(&self) -> bool {
        self.late_until()
            .is_some_and(|until| Instant::now() < until)
    }

    fn late_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.late_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.bounds.max_bytes)).unwrap_or(u32::MAX)
    }

    /// Ends the connection whose peer has owed bytes, or left them untaken, for longest; false where there is none.
    fn evict_stalled(&self) -> bool {
        let connections = self.connections();
        let candidates = connections.values().filter(|other| !other.is_cancelled());
        let candidates =
            candidates.filter_map(|other| other.stalled_since().map(|since| (since, other)));
        let longest = candidates.min_by_key(|(since, _)| *since);
        let Some((_, stalled)) = longest else {
            return false;
        };
        self.end(stalled);
        true
    }

    /// Where all that hold bytes wait for more, none ever gets them: ends the connection that holds most. Who is honest holds little.
    /// Where anything else is under way its end gives bytes back, and nobody has to go for that.
    fn evict_deadlocked(&self) {
        let connections = self.connections();
        let mut most = None;
        for connection in connections.values() {
            let Holds { waiting, moving } = connection.holds();
            if moving > 0 || (waiting > 0 && connection.is_cancelled()) {
                return;
            }
            if waiting > most.map_or(0, |(most, _)| most) {
                most = Some((waiting, connection));
            }
        }
        if let Some((_, connection)) = most {
            self.end(connection);
        }
    }

    fn end(&self, connection: &Handle) {
        connection.cancel();
        self.metrics.evicted.inc();
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<usize, Handle>> {
        // What it guards is whole after any panic.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
    use crate::Exchange;

    const BYTES: usize = 1_000;
    const LONG: Duration = Duration::from_secs(1);

    pub(crate) fn table() -> Arc<Table> {
        let timeouts = timeouts();
        let bounds = Bounds {
            max_connections: 10,
            max_bytes: BYTES,
            timeouts,
            counts_requests: true,
            setting: "",
        };
        let metrics = ConnectionMetrics::register(&mut Registry::default(), "test", "a listener");
        Arc::new(Table::new(bounds, metrics))
    }

    fn timeouts() -> Timeouts {
        let far = Duration::from_secs(60);
        Timeouts {
            first_byte: far,
            head: far,
            idle: far,
            write: far,
        }
    }

    pub(crate) fn connection(table: &Arc<Table>) -> Handle {
        let handle = table.admit(([127, 0, 0, 1], 1).into(), timeouts());
        handle.unwrap()
    }

    /// A request that has begun, on a connection of its own.
    fn request(table: &Arc<Table>) -> Arc<Exchange> {
        Arc::new(connection(table).begin(false))
    }

    /// One that waits for as much room.
    fn asks(exchange: &Arc<Exchange>, bytes: usize) -> JoinHandle<()> {
        let exchange = Arc::clone(exchange);
        tokio::spawn(async move { exchange.reserve(bytes).await })
    }

    fn is_closed(exchange: &Exchange) -> bool {
        exchange.connection().is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_room_is_not_closed_for_it() {
        let table = table();
        let worked_on = request(&table);
        worked_on.reserve(900).await;
        worked_on.received();
        let waiting = [request(&table), request(&table)];
        let mut rooms = Vec::new();
        for exchange in &waiting {
            exchange.reserve(10).await;
            rooms.push(asks(exchange, 200));
        }
        sleep(LONG).await;
        assert!(rooms.iter().all(|room| !room.is_finished()));
        drop(worked_on);
        for room in rooms {
            room.await.unwrap();
        }
        assert!(!waiting.iter().any(|exchange| is_closed(exchange)));
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_made_by_whose_peer_has_held_up_bytes_for_longest() {
        let table = table();
        let mut holding_up = Vec::new();
        for _ in 0..2 {
            let exchange = request(&table);
            exchange.reserve(450).await;
            holding_up.push(exchange);
            sleep(LONG).await;
        }
        let honest = request(&table);
        let room = asks(&honest, 200);
        sleep(LOOK / 10).await;
        assert!(is_closed(&holding_up[0]) && !is_closed(&holding_up[1]));
        drop(holding_up);
        room.await.unwrap();
        assert!(!is_closed(&honest));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_it_waited_for_room_is_not_held_up_by_its_peer() {
        let table = table();
        let worked_on = request(&table);
        worked_on.reserve(900).await;
        worked_on.received();
        let early = request(&table);
        let room = asks(&early, 200);
        sleep(LONG).await;
        drop(worked_on);
        room.await.unwrap();
        let late = request(&table);
        late.reserve(800).await;
        let next = request(&table);
        let _room = asks(&next, 500);
        sleep(OWED / 2).await;
        assert!(!is_closed(&early) && !is_closed(&late));
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_wait_for_each_other_who_holds_most_makes_room() {
        let table = table();
        let (large, small) = (request(&table), request(&table));
        large.reserve(600).await;
        small.reserve(300).await;
        let (first, second) = (asks(&large, 300), asks(&small, 300));
        sleep(LONG).await;
        assert!(is_closed(&large) && !is_closed(&small));
        // Who is closed waits no more: nothing else is read or written on its connection meanwhile, where that would be noticed.
        first.await.unwrap();
        drop(large);
        second.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn while_we_are_late_ourselves_nobody_is_called_slow() {
        let table = table();
        let owing = request(&table);
        owing.reserve(900).await;
        let next = request(&table);
        let room = asks(&next, 200);
        yield_now().await;
        // As if something else had taken all of the time.
        advance(OWED * 5).await;
        sleep(LATE / 2).await;
        assert!(!is_closed(&owing));
        sleep(LATE).await;
        assert!(is_closed(&owing));
        drop(owing);
        room.await.unwrap();
    }
}
