//! Clearing the disk tier of answers that nobody can be given any more: expired ones, those of an earlier schema, and what an
//! earlier history of the file or an earlier generation left.
//!
//! Keeps true: such answers count against their tenant's part of the disk for a bounded time only; a pass begins 15 s after the
//! last one at the earliest, and at the latest after 5 min; missing room alone brings one only where the last one removed
//! something. It goes in small steps on the disk thread. What is judged here is only ever removed, never served.
//! Does not do: judging by writes or purges; what they void expires, or is met by its next reader.

use crate::cache::Shared;
use crate::cache::disk::IsDead;
use crate::cache::envelope::Beginning;
use crate::cache::persist;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// How often expired answers are looked for, milliseconds.
const SWEEP_EVERY_MS: i64 = 300_000;
/// The same where much is known to have died at once, or where room is missing and passes find something.
const SWEEP_SOONEST_MS: i64 = 15_000;

/// When the disk is looked through.
#[derive(Debug)]
pub(crate) struct Sweeping {
    wanted: AtomicBool,
    crowded: AtomicBool,
    /// Touched by upkeep only, as is the next.
    last_ms: AtomicI64,
    /// How much had been removed when the last pass was asked for.
    swept_before: AtomicU64,
}

impl Default for Sweeping {
    fn default() -> Self {
        Self {
            wanted: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            last_ms: AtomicI64::new(i64::MIN),
            swept_before: AtomicU64::new(0),
        }
    }
}

impl Sweeping {
    /// Something died, or may have: do not wait for the next round of all.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// An answer found no room. Looking again helps only where the last look did: what is left may all be alive.
    pub(crate) fn want_room(&self) {
        self.crowded.store(true, Ordering::Relaxed);
    }

    /// Whether a pass is to begin; `swept` is what all passes have removed so far.
    fn is_due(&self, now_ms: i64, swept: u64) -> bool {
        let since = now_ms.saturating_sub(self.last_ms.load(Ordering::Relaxed));
        let found = swept != self.swept_before.load(Ordering::Relaxed);
        let crowded = found && self.crowded.load(Ordering::Relaxed);
        let wanted = since >= SWEEP_SOONEST_MS && (crowded || self.wanted.load(Ordering::Relaxed));
        // A clock that went back begins anew.
        let due = wanted || !(0..SWEEP_EVERY_MS).contains(&since);
        if due {
            self.wanted.store(false, Ordering::Relaxed);
            self.crowded.store(false, Ordering::Relaxed);
            self.swept_before.store(swept, Ordering::Relaxed);
            self.last_ms.store(now_ms, Ordering::Relaxed);
        }
        due
    }
}

impl Shared {
    /// Has the disk looked through where it is time.
    pub(crate) fn sweep_disk(self: &Arc<Self>, now_ms: i64) {
        if !self.sweeping.is_due(now_ms, self.disk.stats().swept) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// With one tenant past its part of the disk, all of it was read every 15 seconds.
    #[test]
    fn missing_room_brings_a_pass_only_where_the_last_one_found_something() {
        let sweeping = Sweeping::default();
        assert!(sweeping.is_due(0, 0), "the first one");
        sweeping.want_room();
        for now_ms in (0..SWEEP_EVERY_MS).step_by(1_000) {
            assert!(!sweeping.is_due(now_ms, 0), "{now_ms}: the last one removed nothing");
        }
        assert!(!sweeping.is_due(SWEEP_SOONEST_MS - 1, 3), "too soon");
        assert!(sweeping.is_due(SWEEP_SOONEST_MS, 3), "it went on and removed something");
        sweeping.want_room();
        assert!(!sweeping.is_due(2 * SWEEP_SOONEST_MS, 3), "and this one did not");
        sweeping.want();
        assert!(sweeping.is_due(2 * SWEEP_SOONEST_MS, 3), "what died is looked for whatever was found");
        assert!(!sweeping.is_due(3 * SWEEP_SOONEST_MS, 4), "nobody wants one");
        assert!(sweeping.is_due(2 * SWEEP_SOONEST_MS + SWEEP_EVERY_MS, 4), "now and then everything is looked through");
    }
}
