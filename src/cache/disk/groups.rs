//! What each group of keys holds on disk: counted as values come and go, and after a start by looking through what is there.
//!
//! Keeps true: every value is counted once, by the look-through if it lies ahead of it, else by the change that made it; the
//! look-through goes in small steps between other work. Does not do: limits; whoever asks decides what is too much.

use super::engine::Change;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Which group a key belongs to: a beginning of the key; `None` is not counted.
pub type GroupOf = fn(&[u8]) -> Option<&[u8]>;

/// What one group holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// Bytes of values.
    pub bytes: u64,
    /// Values.
    pub entries: u64,
}

/// The count. Changed by the disk thread alone, for one addition; read by whoever asks.
pub(super) struct Groups {
    of: GroupOf,
    counts: Mutex<HashMap<Box<[u8]>, GroupUsage>>,
    /// What lies behind this was not counted yet; `None`: everything was. Touched by the disk thread alone.
    unseen_after: Mutex<Option<Vec<u8>>>,
}

impl Groups {
    pub(super) fn new(of: GroupOf) -> Self {
        Self { of, counts: Mutex::default(), unseen_after: Mutex::default() }
    }

    /// Another store took the place of the one that was counted, and may hold something already.
    pub(super) fn restart(&self) {
        self.counts.lock().clear();
        *self.unseen_after.lock() = Some(Vec::new());
    }

    /// Where the look-through goes on; `None` once it is done.
    pub(super) fn unseen_after(&self) -> Option<Vec<u8>> {
        self.unseen_after.lock().clone()
    }

    /// Counts a value that the look-through has met.
    pub(super) fn see(&self, key: &[u8], bytes: u64) {
        self.add(key, Change { before: None, after: Some(bytes) });
    }

    /// The look-through has come so far.
    pub(super) fn go_on(&self, next: Option<Vec<u8>>) {
        *self.unseen_after.lock() = next;
    }

    /// Counts a value that came, went or changed, unless the look-through is still to meet it.
    pub(super) fn note(&self, key: &[u8], change: Change) {
        if self.unseen_after.lock().as_deref().is_none_or(|unseen| key < unseen) {
            self.add(key, change);
        }
    }

    pub(super) fn usage(&self, group: &[u8]) -> GroupUsage {
        self.counts.lock().get(group).copied().unwrap_or_default()
    }

    fn add(&self, key: &[u8], Change { before, after }: Change) {
        let Some(group) = (self.of)(key) else { return };
        let mut counts = self.counts.lock();
        let usage = counts.entry(Box::from(group)).or_default();
        usage.bytes = (usage.bytes + after.unwrap_or(0)).saturating_sub(before.unwrap_or(0));
        usage.entries = (usage.entries + u64::from(after.is_some())).saturating_sub(u64::from(before.is_some()));
        if usage.entries == 0 {
            counts.remove(group);
        }
    }
}
