//! What the cache did: counters per tenant and collection, and the report made of them.
//!
//! Keeps true: counting is one relaxed atomic addition; a number may lag, none is lost.
//! Does not do: rates over time or export. Metrics read the report.

use crate::kernel::ident::{CollectionId, TenantId};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($field:ident: $doc:literal,)*) => {
        /// Counters of one collection of one tenant.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(#[doc = $doc] pub(crate) $field: AtomicU64,)* }

        /// The same as plain numbers.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts { $(#[doc = $doc] pub $field: u64,)* }

        impl Counters {
            /// Reads every counter.
            pub(crate) fn read(&self) -> Counts {
                Counts { $($field: self.$field.load(Ordering::Relaxed),)* }
            }
        }

        impl Counts {
            /// Adds another collection's or tenant's numbers.
            pub fn add(&mut self, other: &Counts) { $(self.$field += other.$field;)* }
            /// What happened since `earlier`; gauges are as they are now.
            pub fn since(&self, earlier: &Counts) -> Counts {
                let mut delta = Counts { $($field: self.$field.saturating_sub(earlier.$field),)* };
                delta.bytes = self.bytes;
                delta.entries = self.entries;
                delta
            }
            /// Names and values, in order, for reports and metrics.
            pub fn rows(&self) -> Vec<(&'static str, u64)> { vec![$((stringify!($field), self.$field),)*] }
        }
    };
}

counters! {
    l1_hits: "Answers served from memory.",
    l2_hits: "Answers served from disk.",
    misses: "Answers that had to be loaded.",
    joined: "Misses that shared somebody else's load.",
    bypasses: "Reads that went past the cache by policy or request.",
    stale: "Answers found but no longer current.",
    expired: "Answers found whose time was over.",
    evictions: "Answers that left memory for lack of room.",
    trims: "Answers that left memory because their tenant was over its share.",
    swept: "Answers that upkeep removed because they were stale or their time was over.",
    rejected: "Answers too large to keep in memory.",
    disk_refused: "Answers not written to disk because their tenant had its share there.",
    purges: "Purges asked for.",
    verified: "Hits that were recomputed and compared.",
    mismatches: "Hits that differed from their recomputation.",
    bytes: "Bytes in memory now.",
    entries: "Answers in memory now.",
}

impl Counts {
    /// Hits among all reads that asked the cache, 0 to 1; 0 where nobody asked.
    pub fn hit_rate(&self) -> f64 {
        let hits = self.l1_hits + self.l2_hits;
        let all = hits + self.misses;
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        if all == 0 { 0.0 } else { hits as f64 / all as f64 }
    }
}

impl Counters {
    pub(crate) fn bump(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counters of one tenant, by collection.
#[derive(Debug, Default)]
pub(crate) struct TenantCounters {
    /// Read on misses only: an entry in memory carries its own counters.
    collections: RwLock<HashMap<CollectionId, Arc<Counters>>>,
}

impl TenantCounters {
    /// The counters of `collection`.
    pub(crate) fn of(&self, collection: &CollectionId) -> Arc<Counters> {
        if let Some(found) = self.collections.read().get(collection) {
            return Arc::clone(found);
        }
        Arc::clone(self.collections.write().entry(collection.clone()).or_default())
    }

    /// Reads everything, by collection id.
    pub(crate) fn read(&self) -> Vec<(CollectionId, Counts)> {
        let mut rows: Vec<_> =
            self.collections.read().iter().map(|(id, counters)| (id.clone(), counters.read())).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    }
}

/// One tenant in the report.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantReport {
    /// The tenant.
    pub tenant: TenantId,
    /// Everything together.
    pub total: Counts,
    /// By collection.
    pub collections: Vec<(CollectionId, Counts)>,
    /// Ages of what is in memory.
    pub ages: Ages,
    /// Bytes of the tables by which answers are known to be current; they are no part of the memory for answers.
    pub stamp_bytes: u64,
    /// What the disk tier holds of it, as far as that is known yet.
    pub disk: crate::cache::disk::GroupUsage,
}

/// How old the answers in memory are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ages {
    /// The oldest, milliseconds.
    pub oldest_ms: i64,
    /// The mean, milliseconds.
    pub mean_ms: i64,
}

/// Gathers [`Ages`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AgeSum {
    oldest_ms: i64,
    sum_ms: i64,
    count: i64,
}

impl AgeSum {
    pub(crate) fn add(&mut self, age_ms: i64) {
        let age_ms = age_ms.max(0);
        self.oldest_ms = self.oldest_ms.max(age_ms);
        self.sum_ms = self.sum_ms.saturating_add(age_ms);
        self.count += 1;
    }

    pub(crate) fn ages(self) -> Ages {
        Ages { oldest_ms: self.oldest_ms, mean_ms: self.sum_ms.checked_div(self.count).unwrap_or(0) }
    }
}

/// The whole report.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Everything together.
    pub total: Counts,
    /// Bytes memory may hold.
    pub memory_bytes_max: u64,
    /// Bytes memory holds.
    pub memory_bytes: u64,
    /// Answers in memory.
    pub memory_entries: u64,
    /// Bytes one tenant may hold at present.
    pub share_bytes_max: u64,
    /// Loads under way.
    pub loads: u64,
    /// The disk tier.
    pub disk: crate::cache::disk::DiskStats,
    /// Compression since start, by coding, in the order of [`crate::cache::compress::Encoding::CODED`].
    pub compressed: [crate::cache::entry::Compressed; 4],
    /// How hard each coding tries at present.
    pub levels: crate::cache::compress::Levels,
    /// Bytes of the tables by which answers are known to be current.
    pub stamp_bytes: u64,
    /// By tenant.
    pub tenants: Vec<TenantReport>,
    /// What the cache changed about itself lately, newest last.
    pub decisions: Vec<crate::cache::adaptive::Decision>,
    /// How often it did so since start.
    pub decided: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_differences_add_up() {
        let counters = TenantCounters::default();
        let posts = CollectionId::parse("posts").unwrap();
        let before = counters.of(&posts).read();
        for _ in 0..3 {
            Counters::bump(&counters.of(&posts).l1_hits);
        }
        Counters::bump(&counters.of(&posts).misses);
        let after = counters.of(&posts).read();
        assert_eq!(after.since(&before).l1_hits, 3);
        assert!((after.hit_rate() - 0.75).abs() < 1e-9);
        assert_eq!(Counts::default().hit_rate(), 0.0);
        assert_eq!(counters.read().len(), 1);
    }
}
