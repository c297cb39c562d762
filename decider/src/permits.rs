//! Permits for expensive evaluations. Those that wait get one in the order of their cost, so that the dearest do not delay the others.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot::{self, error::RecvError};

/// A fixed number of permits.
pub(crate) struct Permits(Arc<Mutex<State>>);

/// A permit, until it is dropped.
pub(crate) struct Permit(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// Nobody waits while a permit is free.
    waiting: BTreeMap<Place, oneshot::Sender<Permit>>,
    arrivals: u64,
}

/// The place of a waiting evaluation: its cost and, among those with the same cost, its arrival.
type Place = (u64, u64);

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: count,
            waiting: BTreeMap::new(),
            arrivals: 0,
        })))
    }

    /// Waits for a permit for an evaluation of this cost. Never fails, as a place is left only by whoever waits there.
    pub(crate) async fn acquire(&self, cost: u64) -> Result<Permit, RecvError> {
        let (place, granted) = {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Permit(Arc::clone(&self.0)));
            }
            let (grant, granted) = oneshot::channel();
            let place = (cost, state.arrivals);
            state.arrivals += 1;
            state.waiting.insert(place, grant);
            (place, granted)
        };
        let _waiting = Waiting(&self.0, place);
        granted.await
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.lock();
            let next = state.waiting.pop_first();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        if let Some((_, grant)) = next {
            // Whoever gives up at this moment drops the new permit, which then goes to the next.
            let _ = grant.send(Self(Arc::clone(&self.0)));
        }
    }
}

/// Leaves its place when it is dropped.
struct Waiting<'p>(&'p Mutex<State>, Place);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting.remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn the_cheapest_that_waits_is_next() {
        let permits = Permits::new(2);
        let first = permits.acquire(7).await.unwrap();
        let _second = permits.acquire(7).await.unwrap();
        let mut waiting = [900, 30, 500, 30].map(|cost| Box::pin(permits.acquire(cost)));
        for it in &mut waiting {
            assert!(poll!(it).is_pending());
        }
        let mut permit = first;
        for next in [1, 3, 2, 0] {
            drop(permit);
            permit = waiting[next].as_mut().now_or_never().unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_permit_to_the_next() {
        let permits = Permits::new(1);
        let first = permits.acquire(1).await.unwrap();
        let mut cheap = Box::pin(permits.acquire(1));
        let mut granted = Box::pin(permits.acquire(2));
        let mut dear = Box::pin(permits.acquire(3));
        for it in [&mut cheap, &mut granted, &mut dear] {
            assert!(poll!(it).is_pending());
        }
        drop(cheap);
        drop(first);
        // It has a permit already, and does not take it.
        drop(granted);
        let last = dear.as_mut().now_or_never().unwrap().unwrap();
        drop(last);
        let state = permits.0.lock();
        assert!(state.free == 1 && state.waiting.is_empty());
    }
}
