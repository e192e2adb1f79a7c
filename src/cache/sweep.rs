//! Clearing the disk tier of answers that nobody can be given any more: expired ones, those of an earlier schema, and what an
//! earlier history of the file or an earlier generation left.
//!
//! Keeps true: such answers count against their tenant's part of the disk for a bounded time only; passes are rare and go in
//! small steps on the disk thread. What is judged here is only ever removed, never served.
//! Does not do: judging by writes or purges; what they void expires, or is met by its next reader.

use crate::cache::Shared;
use crate::cache::disk::IsDead;
use crate::cache::envelope::Beginning;
use crate::cache::persist;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// How often expired answers are looked for, milliseconds.
const SWEEP_EVERY_MS: i64 = 300_000;
/// The same where much is known to have died at once, or where room is missing.
const SWEEP_SOONEST_MS: i64 = 15_000;

/// When the disk is looked through.
#[derive(Debug)]
pub(crate) struct Sweeping {
    wanted: AtomicBool,
    /// Touched by upkeep only.
    last_ms: AtomicI64,
}

impl Default for Sweeping {
    fn default() -> Self {
        Self { wanted: AtomicBool::new(false), last_ms: AtomicI64::new(i64::MIN) }
    }
}

impl Sweeping {
    /// Something died, or may have: do not wait for the next round of all.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    fn is_due(&self, now_ms: i64) -> bool {
        let since = now_ms.saturating_sub(self.last_ms.load(Ordering::Relaxed));
        let wanted = since >= SWEEP_SOONEST_MS && self.wanted.load(Ordering::Relaxed);
        // A clock that went back begins anew.
        let due = wanted || !(0..SWEEP_EVERY_MS).contains(&since);
        if due {
            self.wanted.store(false, Ordering::Relaxed);
            self.last_ms.store(now_ms, Ordering::Relaxed);
        }
        due
    }
}

impl Shared {
    /// Has the disk looked through where it is time.
    pub(crate) fn sweep_disk(self: &Arc<Self>, now_ms: i64) {
        if !self.sweeping.is_due(now_ms) {
            return;
        }
        // The disk must not keep alive the cache that owns it.
        let shared = Arc::downgrade(self);
        let dead: IsDead =
            Arc::new(move |key, beginning| shared.upgrade().is_some_and(|shared| shared.is_dead(key, beginning)));
        self.disk.sweep(dead);
    }

    /// Whether an answer on disk serves nobody for certain.
    fn is_dead(&self, key: &[u8], beginning: &[u8]) -> bool {
        let Some((tenant, generation)) = persist::answer_place(key) else { return false };
        let Some(found) = Beginning::read(beginning) else { return true };
        if self.clock.now_ms().saturating_sub(found.created_ms) >= found.ttl_ms {
            return true;
        }
        // Of a tenant that nobody has asked for, nothing but time is known.
        let Some(part) = self.parts.read().get(&tenant).cloned() else { return false };
        part.disk.get().is_some_and(|disk| disk.generation != generation)
            || part.seed.is_some_and(|seed| seed.lineage != found.lineage)
            || found.at < part.positions.schema_position()
    }
}
