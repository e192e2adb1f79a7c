//! The work of the disk thread: reads before writes, each lane bounded.
//!
//! Keeps true: pushing never waits and never grows a lane past its bound; what is pushed to the write lane comes out in
//! that order. Shared by everyone who reads or writes (push) and the one disk thread (pop); ends when closed and empty.
//! Does not do: deadlines.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Debug)]
struct Lanes<R, W> {
    reads: VecDeque<R>,
    writes: VecDeque<W>,
    closed: bool,
}

/// Two bounded lanes.
#[derive(Debug)]
pub(super) struct Queue<R, W> {
    lanes: Mutex<Lanes<R, W>>,
    wake: Condvar,
    /// Signalled when the write lane has emptied to a half.
    room: Condvar,
    reads_max: usize,
    writes_max: usize,
}

/// What the disk thread is to do next.
pub(super) enum Next<R, W> {
    Read(R),
    Write(W),
    /// Nothing to do for the whole wait.
    Idle,
    /// Closed, and everything is done.
    End,
}

impl<R, W> Queue<R, W> {
    pub(super) fn new(reads_max: usize, writes_max: usize) -> Self {
        let lanes = Mutex::new(Lanes { reads: VecDeque::new(), writes: VecDeque::new(), closed: false });
        Self { lanes, wake: Condvar::new(), room: Condvar::new(), reads_max, writes_max }
    }

    /// Queues a read; gives it back if the lane is full or closed.
    pub(super) fn push_read(&self, read: R) -> Result<(), R> {
        let mut lanes = self.lanes.lock();
        if lanes.closed || lanes.reads.len() >= self.reads_max {
            return Err(read);
        }
        lanes.reads.push_back(read);
        drop(lanes);
        self.wake.notify_one();
        Ok(())
    }

    /// Queues a write; gives it back if the lane is full or closed.
    pub(super) fn push_write(&self, write: W) -> Result<(), W> {
        let mut lanes = self.lanes.lock();
        if lanes.closed || lanes.writes.len() >= self.writes_max {
            return Err(write);
        }
        lanes.writes.push_back(write);
        drop(lanes);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes the next piece of work, waiting at most `wait`.
    pub(super) fn pop(&self, wait: Duration) -> Next<R, W> {
        let mut lanes = self.lanes.lock();
        loop {
            if let Some(read) = lanes.reads.pop_front() {
                return Next::Read(read);
            }
            if let Some(write) = lanes.writes.pop_front() {
                if lanes.writes.len() <= self.writes_max / 2 {
                    self.room.notify_all();
                }
                return Next::Write(write);
            }
            if lanes.closed {
                return Next::End;
            }
            if self.wake.wait_for(&mut lanes, wait).timed_out() && lanes.reads.is_empty() && lanes.writes.is_empty() {
                return if lanes.closed { Next::End } else { Next::Idle };
            }
        }
    }

    /// Waits until the write lane is at most half full, or `wait` is over; whether there is room.
    pub(super) fn await_room(&self, wait: Duration) -> bool {
        let mut lanes = self.lanes.lock();
        let crowded = |lanes: &mut Lanes<R, W>| !lanes.closed && lanes.writes.len() > self.writes_max / 2;
        !self.room.wait_while_for(&mut lanes, crowded, wait).timed_out()
    }

    /// Drops the writes that wait; reads are answered by whoever pops them.
    pub(super) fn clear_writes(&self) {
        let dropped = std::mem::take(&mut self.lanes.lock().writes);
        drop(dropped);
        self.room.notify_all();
    }

    /// Refuses what comes from now on.
    pub(super) fn close(&self) {
        self.lanes.lock().closed = true;
        self.wake.notify_all();
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_first_and_lanes_are_bounded() {
        let queue: Queue<u8, u8> = Queue::new(1, 2);
        assert!(queue.push_write(1).is_ok() && queue.push_write(2).is_ok());
        assert_eq!(queue.push_write(3), Err(3));
        assert!(queue.push_read(9).is_ok());
        assert_eq!(queue.push_read(8), Err(8));
        let wait = Duration::from_millis(1);
        assert!(matches!(queue.pop(wait), Next::Read(9)));
        assert!(matches!(queue.pop(wait), Next::Write(1)));
        queue.close();
        assert!(matches!(queue.pop(wait), Next::Write(2)));
        assert!(matches!(queue.pop(wait), Next::End));
        assert_eq!(queue.push_read(7), Err(7));
    }

    #[test]
    fn waiting_for_room_ends_when_half_is_written_or_time_is_over() {
        let queue: Queue<u8, u8> = Queue::new(1, 4);
        for write in 0..4 {
            assert!(queue.push_write(write).is_ok());
        }
        assert!(!queue.await_room(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.await_room(Duration::from_secs(60)));
            for _ in 0..2 {
                assert!(matches!(queue.pop(Duration::from_secs(60)), Next::Write(_)));
            }
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn idling_ends_by_itself() {
        let queue: Queue<u8, u8> = Queue::new(1, 1);
        assert!(matches!(queue.pop(Duration::from_millis(1)), Next::Idle));
    }
}
