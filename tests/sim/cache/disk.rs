//! A disk tier that can be lost, copied, put back and damaged, and answers at once.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tenantry::cache::disk::{DiskCache, DiskRead, DiskState, DiskStats};

pub(super) type Table = BTreeMap<Vec<u8>, Bytes>;

#[derive(Debug, Clone, Default)]
pub(super) struct SimDisk(Arc<Mutex<Table>>);

impl SimDisk {
    pub(super) fn copy(&self) -> Table {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn replace(&self, table: Table) {
        *self.0.lock().unwrap() = table;
    }

    /// Flips one bit of one stored answer. Bookkeeping is left alone: the real store checks every value it returns.
    pub(super) fn flip(&self, mut draw: impl FnMut(usize) -> usize) {
        let mut table = self.0.lock().unwrap();
        let answers: Vec<Vec<u8>> = table.keys().filter(|key| key.first() == Some(&b'r')).cloned().collect();
        if answers.is_empty() {
            return;
        }
        let key = &answers[draw(answers.len())];
        let mut value = table[key].to_vec();
        let at = draw(value.len());
        value[at] ^= 1 << draw(8);
        table.insert(key.clone(), Bytes::from(value));
    }
}

impl DiskCache for SimDisk {
    fn get(&self, key: Vec<u8>) -> BoxFuture<'_, DiskRead> {
        let found = self.0.lock().unwrap().get(&key).cloned();
        Box::pin(std::future::ready(found.map_or(DiskRead::Absent, DiskRead::Found)))
    }

    fn put(&self, key: Vec<u8>, value: Bytes) -> bool {
        self.0.lock().unwrap().insert(key, value);
        true
    }

    fn put_surely(&self, key: Vec<u8>, value: Bytes) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(self.put(key, value)))
    }

    fn remove(&self, key: Vec<u8>) {
        self.0.lock().unwrap().remove(&key);
    }

    fn discard(&self, _why: &str) {
        self.0.lock().unwrap().clear();
    }

    fn stats(&self) -> DiskStats {
        DiskStats { state: DiskState::Ready, ..DiskStats::off() }
    }

    fn close(&self) {}
}
