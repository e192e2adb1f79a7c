//! Single flight: however many ask for one key, one of them loads and the others wait for its result.
//!
//! Keeps true: a leader that is cancelled or fails leaves no trace; its waiters wake and one of them takes over.
//! Nothing is locked while anybody waits. Does not do: judging whether a result still serves a waiter that arrived after
//! the load began; the facade does, by stamp.

use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::watch;

/// What a load is known by: the tenant's incarnation and the key's digest.
pub(crate) type FlightKey = (u64, [u8; 32]);

const SHARDS: usize = 16;

type Shard<T> = Mutex<HashMap<FlightKey, watch::Receiver<Option<T>>>>;

/// The loads under way. Shards are locked for a table operation only.
#[derive(Debug)]
pub(crate) struct Flights<T> {
    shards: [Shard<T>; SHARDS],
}

/// A place in a flight.
pub(crate) enum Seat<'flights, T> {
    /// Load, then [`Lead::land`]; dropping the lead instead lets a waiter take over.
    Lead(Lead<'flights, T>),
    /// Wait for the leader.
    Wait(Waiter<T>),
}

/// The right and duty to load.
pub(crate) struct Lead<'flights, T> {
    flights: &'flights Flights<T>,
    key: FlightKey,
    sender: watch::Sender<Option<T>>,
}

/// Somebody else is loading.
pub(crate) struct Waiter<T>(watch::Receiver<Option<T>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<T: Clone> Flights<T> {
    /// Joins the load of `key`, or starts it.
    pub(crate) fn join(&self, key: FlightKey) -> Seat<'_, T> {
        let mut shard = self.shard(&key).lock();
        if let Some(receiver) = shard.get(&key) {
            return Seat::Wait(Waiter(receiver.clone()));
        }
        let (sender, receiver) = watch::channel(None);
        shard.insert(key, receiver);
        Seat::Lead(Lead { flights: self, key, sender })
    }

    /// Loads under way.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl<T> Flights<T> {
    fn shard(&self, key: &FlightKey) -> &Shard<T> {
        let first = key.1.first().copied().unwrap_or(0);
        self.shards.get(usize::from(first) % SHARDS).expect("invariant: a remainder is below the divisor")
    }
}

impl<T: Clone> Lead<'_, T> {
    /// Hands `result` to everyone who waits. Whoever comes later starts anew, so store the result first.
    pub(crate) fn land(self, result: T) {
        // Out of the table first: a late joiner must not wait for a flight that is over. `drop` finds nothing then.
        self.flights.shard(&self.key).lock().remove(&self.key);
        self.sender.send_replace(Some(result));
    }
}

impl<T> Drop for Lead<'_, T> {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(&self.key).lock();
        // After landing, the table may already hold a successor's flight; only our own is ours to remove.
        if shard.get(&self.key).is_some_and(|receiver| receiver.same_channel(&self.sender.subscribe())) {
            shard.remove(&self.key);
        }
    }
}

impl<T: Clone> Waiter<T> {
    /// The leader's result; `None` if it failed or was cancelled.
    pub(crate) async fn result(mut self) -> Option<T> {
        if let Ok(result) = self.0.wait_for(Option::is_some).await {
            return result.clone();
        }
        // The sender is gone, but it may have landed just before.
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    const KEY: FlightKey = (1, [7; 32]);

    fn lead(flights: &Flights<u32>) -> Lead<'_, u32> {
        match flights.join(KEY) {
            Seat::Lead(lead) => lead,
            Seat::Wait(_) => panic!("expected to lead"),
        }
    }

    fn wait(flights: &Flights<u32>) -> Waiter<u32> {
        match flights.join(KEY) {
            Seat::Wait(waiter) => waiter,
            Seat::Lead(_) => panic!("expected to wait"),
        }
    }

    #[test]
    fn waiters_share_what_the_leader_lands() {
        let flights = Flights::default();
        let leader = lead(&flights);
        let waiters: Vec<_> = (0..5).map(|_| wait(&flights)).collect();
        leader.land(42);
        for waiter in waiters {
            assert_eq!(waiter.result().now_or_never(), Some(Some(42)));
        }
        assert_eq!(flights.len(), 0);
        lead(&flights).land(1);
    }

    #[test]
    fn a_cancelled_leader_is_replaced_by_a_waiter() {
        let flights = Flights::default();
        let leader = lead(&flights);
        let (first, second) = (wait(&flights), wait(&flights));
        drop(leader);
        assert_eq!(first.result().now_or_never(), Some(None));
        let successor = lead(&flights);
        assert_eq!(second.result().now_or_never(), Some(None));
        let late = wait(&flights);
        successor.land(2);
        assert_eq!(late.result().now_or_never(), Some(Some(2)));
        assert_eq!(flights.len(), 0);
    }
}
