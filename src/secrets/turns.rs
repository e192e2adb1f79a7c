//! Who is next: a bounded number works, the others wait in lanes that take turns.
//!
//! Keeps true: at most `running_max` turns exist; a lane with many waiters delays another lane by one turn per round, not
//! by its length; a lane cannot fill the queue, and several that did make room for one that has few waiters. Shared by all requests; the lock is held for a few map operations.
//! Does not do: time limits; a waiter that goes away is skipped.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The queue is full, or this lane's share of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct TurnLimits {
    pub(super) running_max: usize,
    pub(super) waiting_max: usize,
    pub(super) lane_waiting_max: usize,
}

#[derive(Debug)]
pub(super) struct Turns {
    limits: TurnLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: usize,
    lanes: HashMap<u64, VecDeque<oneshot::Sender<Turn>>>,
    /// Lanes with waiters, each once, the next one first.
    order: VecDeque<u64>,
}

/// The right to work; the next in line gets it when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Option<Arc<Turns>>);

impl Turns {
    pub(super) fn new(limits: TurnLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// Waits for a turn in `lane`.
    pub(super) async fn take(self: &Arc<Self>, lane: u64) -> Result<Turn, Full> {
        let turn = {
            let mut state = self.state.lock();
            if state.running < self.limits.running_max.max(1) {
                state.running += 1;
                return Ok(Turn(Some(Arc::clone(self))));
            }
            state.enter(lane, &self.limits)?
        };
        // The sender is dropped with the queue, or to make room for a shorter lane.
        turn.await.map_err(|_| Full)
    }

    /// Waiters.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.counts().1
    }

    /// Turns and waiters.
    #[cfg(test)]
    fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.running, state.waiting)
    }
}

impl State {
    fn enter(&mut self, lane: u64, limits: &TurnLimits) -> Result<oneshot::Receiver<Turn>, Full> {
        let waiters = self.lanes.entry(lane).or_default();
        let before = waiters.len();
        waiters.retain(|waiter| !waiter.is_closed());
        self.waiting -= before - waiters.len();
        let own = waiters.len();
        let full = own >= limits.lane_waiting_max || (self.waiting >= limits.waiting_max && !self.make_room(own));
        let waiters = self.lanes.entry(lane).or_default();
        if full {
            // A lane that is in the order stays, even if it is empty by now; `next` steps over it.
            if waiters.is_empty() && before == 0 {
                self.lanes.remove(&lane);
            }
            return Err(Full);
        }
        if before == 0 {
            self.order.push_back(lane);
        }
        let (sender, receiver) = oneshot::channel();
        waiters.push_back(sender);
        self.waiting += 1;
        Ok(receiver)
    }

    /// Sends the newest waiter of the longest lane away, for one whose lane has `own` waiters; `false` if that would not be
    /// fairer. The lanes are few: as many as the queue is long at most.
    fn make_room(&mut self, own: usize) -> bool {
        let longest = self.lanes.values_mut().max_by_key(|waiters| waiters.len());
        let Some(longest) = longest.filter(|waiters| waiters.len() > own + 1) else { return false };
        // Dropping a sender tells its waiter.
        longest.pop_back();
        self.waiting -= 1;
        true
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(lane) = self.order.pop_front() {
            let Some(waiters) = self.lanes.get_mut(&lane) else { continue };
            let first = waiters.pop_front();
            if waiters.is_empty() {
                self.lanes.remove(&lane);
            } else {
                self.order.push_back(lane);
            }
            if let Some(first) = first {
                self.waiting -= 1;
                return Some(first);
            }
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        loop {
            let next = {
                let mut state = turns.state.lock();
                let next = state.next();
                if next.is_none() {
                    state.running -= 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn(Some(Arc::clone(&turns)))) {
                Ok(()) => return,
                // That waiter went away: the turn comes back and is offered to the next one, not dropped.
                Err(mut refused) => drop(refused.0.take()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> Arc<Turns> {
        Turns::new(TurnLimits { running_max: 1, waiting_max: 12, lane_waiting_max: 10 })
    }

    async fn settle(turns: &Turns, waiting: usize) {
        while turns.waiting() < waiting {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_long_lane_delays_a_short_one_by_one_turn() {
        let turns = turns();
        let first = turns.take(1).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (at, lane) in [1, 1, 1, 1, 1, 2].into_iter().enumerate() {
            let (turns_of, order) = (Arc::clone(&turns), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _turn = turns_of.take(lane).await.unwrap();
                order.lock().push(lane);
            }));
            settle(&turns, at + 1).await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [1, 2, 1, 1, 1, 1]);
        assert_eq!(turns.counts(), (0, 0));
    }

    /// Strangers with two addresses filled the queue, and everybody else was refused.
    #[tokio::test]
    async fn a_full_queue_makes_room_for_a_lane_that_has_nobody_waiting() {
        let turns = turns();
        let first = turns.take(1).await.unwrap();
        let crowd: Vec<_> = (0..12)
            .map(|at| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move { turns.take(1 + at % 2).await.map(drop) })
            })
            .collect();
        settle(&turns, 12).await;
        let turns_of = Arc::clone(&turns);
        let honest = tokio::spawn(async move { turns_of.take(3).await.map(drop) });
        let mut sent_away = 0;
        while turns.state.lock().lanes.get(&3).is_none_or(VecDeque::is_empty) {
            tokio::task::yield_now().await;
        }
        assert_eq!(turns.waiting(), 12, "one went for one who came");
        assert_eq!(turns.take(1).await.unwrap_err(), Full, "a long lane makes no room for itself");
        drop(first);
        honest.await.unwrap().unwrap();
        for task in crowd {
            sent_away += usize::from(task.await.unwrap().is_err());
        }
        assert_eq!((sent_away, turns.counts()), (1, (0, 0)));
    }

    #[tokio::test]
    async fn a_lane_cannot_fill_the_queue_and_those_who_left_free_their_place() {
        let turns = turns();
        let first = turns.take(1).await.unwrap();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move { turns.take(1).await.map(drop) })
            })
            .collect();
        settle(&turns, 10).await;
        assert_eq!(turns.take(1).await.unwrap_err(), Full);
        let turns_of = Arc::clone(&turns);
        let other = tokio::spawn(async move { turns_of.take(2).await.map(drop) });
        settle(&turns, 11).await;
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let _ = task.await;
        }
        let turns_of = Arc::clone(&turns);
        let again = tokio::spawn(async move { turns_of.take(1).await.map(drop) });
        drop(first);
        other.await.unwrap().unwrap();
        again.await.unwrap().unwrap();
        assert_eq!(turns.counts(), (0, 0));
    }
}
