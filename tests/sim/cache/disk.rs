//! A disk tier that can be lost, copied, put back and damaged, that refuses and forgets, and answers at once.
//!
//! What was put and not made durable is gone after a power cut, from some write on; the order of writes holds. A store
//! that was replaced by an empty one has another number, as the real one.

use super::reader::pause;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tenantry::cache::disk::{DiskCache, DiskRead, DiskState, DiskStats, IsDead};

pub(super) type Table = BTreeMap<Vec<u8>, Bytes>;

/// What goes wrong at present.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// So many reads get no answer.
    pub(super) failing_reads: usize,
    /// Others come in between before a read is answered.
    pub(super) slow: bool,
    /// Only so many more writes are accepted.
    pub(super) room: Option<usize>,
    /// Certain writes cannot be made certain, whether they arrive or not.
    pub(super) uncertain: bool,
}

#[derive(Debug, Default)]
struct Inside {
    table: Table,
    /// What keys held before the writes that are not durable yet, oldest first.
    open: Vec<(Vec<u8>, Option<Bytes>)>,
    trouble: Trouble,
    epoch: u64,
    tally: DiskTally,
}

/// How often things went wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DiskTally {
    pub(super) failed_reads: u64,
    pub(super) refused_writes: u64,
    pub(super) uncertain_writes: u64,
    pub(super) lost_writes: u64,
    pub(super) discards: u64,
    /// Answers that left because they were dead.
    pub(super) swept: u64,
}

impl DiskTally {
    pub(super) fn add(&mut self, other: &Self) {
        self.failed_reads += other.failed_reads;
        self.refused_writes += other.refused_writes;
        self.uncertain_writes += other.uncertain_writes;
        self.lost_writes += other.lost_writes;
        self.discards += other.discards;
        self.swept += other.swept;
    }
}

#[derive(Debug, Clone)]
pub(super) struct SimDisk(Arc<Mutex<Inside>>);

impl Default for SimDisk {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inside { epoch: 1, ..Inside::default() })))
    }
}

impl Inside {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        let before = self.table.insert(key.clone(), value);
        self.open.push((key, before));
    }

    fn answers(&self) -> Vec<Vec<u8>> {
        self.table.keys().filter(|key| key.first() == Some(&b'r')).cloned().collect()
    }
}

impl SimDisk {
    pub(super) fn copy(&self) -> Table {
        self.0.lock().unwrap().table.clone()
    }

    /// Another table is in place; nobody was told.
    pub(super) fn replace(&self, table: Table) {
        let mut inside = self.0.lock().unwrap();
        inside.table = table;
        inside.open.clear();
    }

    /// The store breaks and goes on empty.
    pub(super) fn start_anew(&self) {
        self.discard("");
    }

    pub(super) fn set(&self, trouble: Trouble) {
        self.0.lock().unwrap().trouble = trouble;
    }

    pub(super) fn tally(&self) -> DiskTally {
        self.0.lock().unwrap().tally
    }

    /// A power cut: of what is not durable, everything from some write on is gone.
    pub(super) fn cut_power(&self, draw: impl FnOnce(usize) -> usize) {
        let mut inside = self.0.lock().unwrap();
        let kept = draw(inside.open.len() + 1);
        for (key, before) in inside.open.split_off(kept).into_iter().rev() {
            inside.tally.lost_writes += 1;
            match before {
                Some(value) => inside.table.insert(key, value),
                None => inside.table.remove(&key),
            };
        }
        inside.open.clear();
    }

    /// Flips one bit of one stored answer. Bookkeeping is left alone: the real store checks every value it returns.
    pub(super) fn flip(&self, mut draw: impl FnMut(usize) -> usize) {
        let mut inside = self.0.lock().unwrap();
        let answers = inside.answers();
        if answers.is_empty() {
            return;
        }
        let key = &answers[draw(answers.len())];
        let mut value = inside.table[key].to_vec();
        let at = draw(value.len());
        value[at] ^= 1 << draw(8);
        inside.table.insert(key.clone(), Bytes::from(value));
    }

    /// Files one answer under the key of another of the same tenant and generation: whole, and in the wrong place.
    pub(super) fn misfile(&self, mut draw: impl FnMut(usize) -> usize) {
        const DIGEST: usize = 32;
        let mut inside = self.0.lock().unwrap();
        let answers = inside.answers();
        if answers.is_empty() {
            return;
        }
        let place = answers[draw(answers.len())].clone();
        let shelf = &place[..place.len() - DIGEST];
        let others: Vec<&Vec<u8>> = answers.iter().filter(|key| key.starts_with(shelf)).collect();
        let value = inside.table[others[draw(others.len())]].clone();
        inside.table.insert(place, value);
    }
}

impl DiskCache for SimDisk {
    fn get(&self, key: Vec<u8>) -> BoxFuture<'_, DiskRead> {
        let mut inside = self.0.lock().unwrap();
        let read = if inside.trouble.failing_reads > 0 {
            inside.trouble.failing_reads -= 1;
            inside.tally.failed_reads += 1;
            DiskRead::Failed
        } else {
            inside.table.get(&key).cloned().map_or(DiskRead::Absent, DiskRead::Found)
        };
        let slow = inside.trouble.slow;
        Box::pin(async move {
            if slow {
                pause().await;
            }
            read
        })
    }

    fn put(&self, key: Vec<u8>, value: Bytes) -> bool {
        let mut inside = self.0.lock().unwrap();
        if inside.trouble.room == Some(0) {
            inside.tally.refused_writes += 1;
            return false;
        }
        inside.trouble.room = inside.trouble.room.map(|room| room - 1);
        inside.put(key, value);
        true
    }

    fn put_surely(&self, key: Vec<u8>, value: Bytes) -> BoxFuture<'_, bool> {
        let mut inside = self.0.lock().unwrap();
        let certain = !inside.trouble.uncertain;
        if !certain {
            inside.tally.uncertain_writes += 1;
        }
        if certain {
            inside.put(key, value);
            inside.open.clear();
        }
        Box::pin(std::future::ready(certain))
    }

    fn remove(&self, key: Vec<u8>) {
        self.0.lock().unwrap().table.remove(&key);
    }

    fn remove_this(&self, key: Vec<u8>, value: Bytes) {
        let mut inside = self.0.lock().unwrap();
        if inside.table.get(&key) == Some(&value) {
            inside.table.remove(&key);
        }
    }

    fn sweep(&self, dead: IsDead) {
        let mut inside = self.0.lock().unwrap();
        let Inside { table, tally, .. } = &mut *inside;
        let before = table.len();
        table.retain(|key, value| !dead(key, value));
        tally.swept += u64::try_from(before - table.len()).unwrap();
    }

    fn discard(&self, _why: &str) {
        let mut inside = self.0.lock().unwrap();
        inside.table.clear();
        inside.open.clear();
        inside.epoch += 1;
        inside.tally.discards += 1;
    }

    fn stats(&self) -> DiskStats {
        DiskStats { state: DiskState::Ready, ..DiskStats::off() }
    }

    fn epoch(&self) -> u64 {
        self.0.lock().unwrap().epoch
    }

    fn close(&self) {
        self.0.lock().unwrap().open.clear();
    }
}
