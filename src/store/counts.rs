//! How many records each collection has, kept beside the handle so that a list's total need not be counted again.
//!
//! Keeps true: a number is given only for the very position it holds at, so a snapshot never hears of another's; it comes
//! from a count in a snapshot and moves with each group commit by what that group inserted and deleted. A gap (a group
//! that nobody told of) drops the number, it is never guessed. Does not do: counting, that is `readers`; conditions.

use super::options::{Touch, TouchOp};
use crate::kernel::ident::CollectionId;
use parking_lot::Mutex;
use std::collections::HashMap;

/// The counts of one open tenant; at most one per collection that was counted.
#[derive(Debug, Default)]
pub(super) struct RecordCounts(Mutex<HashMap<CollectionId, Count>>);

#[derive(Debug, Clone, Copy)]
struct Count {
    lsn: i64,
    records: i64,
}

impl RecordCounts {
    /// The number of records at position `lsn`, if that is where it is known.
    pub(super) fn find(&self, collection: &CollectionId, lsn: i64) -> Option<i64> {
        self.0.lock().get(collection).filter(|count| count.lsn == lsn).map(|count| count.records)
    }

    /// Keeps what somebody counted at position `lsn`, unless a later one is known.
    pub(super) fn keep(&self, collection: &CollectionId, lsn: i64, records: i64) {
        let mut counts = self.0.lock();
        if counts.get(collection).is_none_or(|known| known.lsn < lsn) {
            counts.insert(collection.clone(), Count { lsn, records });
        }
    }

    /// Follows a group commit that led from position `from` to position `to`.
    pub(super) fn advance(&self, from: i64, to: i64, touches: &[Touch]) {
        let mut counts = self.0.lock();
        // Whoever counted the group's own snapshot was quicker; whoever is behind `from` missed a group.
        counts.retain(|_, count| count.lsn >= from);
        for (collection, count) in counts.iter_mut().filter(|(_, count)| count.lsn == from) {
            let own = touches.iter().filter(|touch| touch.collection == *collection);
            count.records += own.map(|touch| moved_by(touch.op)).sum::<i64>();
            count.lsn = to;
        }
    }

    /// Forgets all: the collections themselves changed.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

fn moved_by(op: TouchOp) -> i64 {
    match op {
        TouchOp::Insert => 1,
        TouchOp::Update => 0,
        TouchOp::Delete => -1,
    }
}
