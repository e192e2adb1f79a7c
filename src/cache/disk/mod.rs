//! L2: what the cache asks of a disk, and what it may expect: nothing but an honest answer in time.
//!
//! Keeps true: whatever happens below, a call returns soon, with bytes that were put there under that key or with a
//! miss. Everything in here is losable at any moment. Does not do: freshness; the caller checks what it gets.

mod engine;
mod groups;
mod queue;
mod sled_tier;
mod sweep;

pub use groups::{GroupOf, GroupUsage};
pub use sled_tier::{SledTier, SledTierOptions};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

/// Says of a value, by its key and its beginning (a few kilobytes of it), that nobody will be given it any more.
pub type IsDead = Arc<dyn Fn(&[u8], &[u8]) -> bool + Send + Sync>;

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskRead {
    /// These bytes.
    Found(Bytes),
    /// Surely nothing.
    Absent,
    /// No answer: late, broken, off. Nothing follows from it.
    Failed,
}

/// How the disk tier is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskState {
    /// Working.
    Ready,
    /// Getting ready.
    Opening,
    /// Not wanted.
    Off,
    /// Not working, and why; it may come back by itself.
    Degraded(String),
}

/// Numbers of the disk tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskStats {
    /// How it is.
    pub state: DiskState,
    /// Reads answered with bytes.
    pub hits: u64,
    /// Reads answered with nothing.
    pub misses: u64,
    /// Reads that got no answer in time.
    pub timeouts: u64,
    /// Answers written.
    pub writes: u64,
    /// Writes dropped because the queue was full.
    pub dropped: u64,
    /// Answers found damaged.
    pub corrupt: u64,
    /// Answers removed because nobody would have been given them any more.
    pub swept: u64,
    /// Times the store broke and was replaced by an empty one.
    pub resets: u64,
    /// Times it was replaced because it outgrew its budget.
    pub rotations: u64,
    /// Bytes on disk at the last look.
    pub bytes: u64,
    /// Bytes it may take.
    pub bytes_max: u64,
}

impl DiskStats {
    /// The numbers of a tier that does not exist.
    pub fn off() -> Self {
        Self {
            state: DiskState::Off,
            hits: 0,
            misses: 0,
            timeouts: 0,
            writes: 0,
            dropped: 0,
            corrupt: 0,
            swept: 0,
            resets: 0,
            rotations: 0,
            bytes: 0,
            bytes_max: 0,
        }
    }
}

/// A losable store of bytes on disk.
pub trait DiskCache: Send + Sync + fmt::Debug {
    /// Reads `key`, within the tier's own deadline.
    fn get(&self, key: Vec<u8>) -> BoxFuture<'_, DiskRead>;

    /// Writes when there is time; `false` if it will not be written. Writes happen in the order of these calls.
    fn put(&self, key: Vec<u8>, value: Bytes) -> bool;

    /// Writes and waits until it is done; `false` if that is not certain.
    fn put_surely(&self, key: Vec<u8>, value: Bytes) -> BoxFuture<'_, bool>;

    /// Forgets `key` when there is time.
    fn remove(&self, key: Vec<u8>);

    /// Forgets `key` when there is time, if it still has `value` by then.
    fn remove_this(&self, key: Vec<u8>, value: Bytes);

    /// Looks through everything once, a little at a time, and forgets what `dead` names; one pass after the other.
    fn sweep(&self, _dead: IsDead) {}

    /// Throws everything away and starts empty: the way out when something must be forgotten for certain.
    fn discard(&self, why: &str);

    /// Numbers and state.
    fn stats(&self) -> DiskStats;

    /// Which store this is: another number once it was replaced by an empty one, and what was written before is gone.
    fn epoch(&self) -> u64 {
        1
    }

    /// What the keys that begin with `group` hold, as far as that is known yet.
    fn usage(&self, _group: &[u8]) -> GroupUsage {
        GroupUsage::default()
    }

    /// Waits until many writes find room, within a bounded time; blocks, so it is for the end of a process only.
    fn await_room(&self) -> bool {
        true
    }

    /// Makes what was put durable and stops, within a bounded time.
    fn close(&self);
}

/// The tier that is not there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDisk;

impl DiskCache for NoDisk {
    fn get(&self, _key: Vec<u8>) -> BoxFuture<'_, DiskRead> {
        Box::pin(std::future::ready(DiskRead::Failed))
    }

    fn put(&self, _key: Vec<u8>, _value: Bytes) -> bool {
        false
    }

    fn put_surely(&self, _key: Vec<u8>, _value: Bytes) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(false))
    }

    fn remove(&self, _key: Vec<u8>) {}

    fn remove_this(&self, _key: Vec<u8>, _value: Bytes) {}

    fn discard(&self, _why: &str) {}

    fn stats(&self) -> DiskStats {
        DiskStats::off()
    }

    fn close(&self) {}
}
