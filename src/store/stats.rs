//! Cheap counters of the store and their snapshot for metrics.
//!
//! Keeps true: counting never blocks and never allocates; a snapshot is not atomic across counters.
//! Does not do: names and units of exported metrics; `telemetry` declares those.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($field:ident: $doc:literal,)*) => {
        /// Totals since the start of the process, all tenants together.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct StoreStats {
            $(#[doc = $doc] pub $field: u64,)*
            /// Tenants with an open handle.
            pub open_tenants: u64,
            /// Tenants waiting for a writer thread.
            pub writer_backlog: u64,
        }

        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $field: AtomicU64,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> StoreStats {
                StoreStats {
                    $($field: self.$field.load(Ordering::Relaxed),)*
                    open_tenants: 0,
                    writer_backlog: 0,
                }
            }
        }
    };
}

counters! {
    opens: "Handles opened.",
    closes: "Handles closed.",
    commits: "Group commits.",
    commit_failures: "Group commits that failed.",
    commit_micros: "Microseconds spent in COMMIT.",
    requests_committed: "Requests that were part of a successful group.",
    requests_undone: "Requests that were rolled back alone.",
    requests_refused: "Requests refused because a queue was full.",
    group_len_max: "Largest group so far.",
    panics: "Requests or observers that panicked.",
    panic_checks: "Tenants found sound after a panic.",
    panic_checks_failed: "Tenants found damaged, or not to be checked, after a panic.",
    reads_inline: "Reads answered on the calling thread.",
    reads_pooled: "Reads answered on the blocking pool.",
    reads_too_expensive: "Reads that used up their budget.",
    reads_cancelled: "Reads stopped because nobody waited for them any more.",
    snapshots_renewed: "Read snapshots begun.",
    checkpoints: "Checkpoints run.",
    wal_frames_max: "Largest write-ahead log seen, frames.",
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn raise(counter: &AtomicU64, value: u64) {
        counter.fetch_max(value, Ordering::Relaxed);
    }
}

/// The state of one open tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantStats {
    /// Requests waiting for the writer.
    pub queue_len: usize,
    /// Read connections that exist.
    pub readers: u32,
    /// Read connections in use.
    pub readers_busy: u32,
    /// Bytes of the write-ahead log on disk.
    pub wal_bytes: u64,
    /// Log position.
    pub position: i64,
}
