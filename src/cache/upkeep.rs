//! One round of upkeep: what is wanted goes to disk, what is over leaves memory and disk, what is hot is learned, and the cache
//! adapts.
//!
//! Keeps true: a round looks at every answer once and waits for nobody; a tenant's part is let go only while nothing is
//! kept under it and nobody has a handle of it, so no commit that it should have noted can go unseen.
//! Does not do: deciding when; `app` calls it.

use crate::cache::memory::{Held, Slot};
use crate::cache::{Cache, Shared, adaptive, stats};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How often the list of hot keys is written, milliseconds: what a kill may cost of it.
const HOT_KEPT_EVERY_MS: i64 = 60_000;

/// What one pass over memory finds.
#[derive(Default)]
struct Pass {
    /// Incarnations that hold something.
    seen: HashSet<u64>,
    /// Answers with hits since the last pass.
    hot: Vec<(Arc<Held>, u32)>,
    /// Answers that are stale or expired: they would be met by their next reader only, if there is one.
    over: Vec<(Slot, Arc<Held>)>,
    /// The disk had no room: the rest is tried in the next round.
    full: bool,
}

impl Cache {
    /// One round, meant every two seconds.
    pub fn maintain(&self) {
        let now_ms = self.0.clock.now_ms();
        let mut pass = Pass::default();
        for (slot, held) in self.0.memory.all() {
            pass.look_at(&self.0, slot, held, now_ms);
        }
        {
            let mut keys = self.0.hot.lock();
            for (held, hits) in &pass.hot {
                if let Some(replay) = &held.replay {
                    keys.note(&held.key, replay, *hits, now_ms);
                }
            }
        }
        for (slot, held) in &pass.over {
            stats::Counters::bump(&held.counters.swept);
            self.0.memory.remove_this(slot, held);
        }
        self.0.active_tenants.store(pass.seen.len() as u64, Ordering::Relaxed);
        drop(pass);
        self.drop_idle_parts();
        self.keep_hot_list(now_ms);
        self.0.sweep_disk(now_ms);
        self.adapt(now_ms);
    }

    /// Closed tenants, and those that were never attached, once they hold nothing.
    fn drop_idle_parts(&self) {
        if !self.0.parts.read().values().any(|part| part.is_idle()) {
            return;
        }
        self.0.parts.write().retain(|_, part| {
            // Looked at again under the lock under which handles are made.
            let idle = part.is_idle();
            if idle {
                self.0.depart(part);
            }
            !idle
        });
    }

    /// Now and then, so that a process that is killed leaves a list of what was hot as well.
    fn keep_hot_list(&self, now_ms: i64) {
        if now_ms - self.0.hot_kept_ms.load(Ordering::Relaxed) < HOT_KEPT_EVERY_MS {
            return;
        }
        self.0.hot_kept_ms.store(now_ms, Ordering::Relaxed);
        self.0.persist_hot();
    }

    fn adapt(&self, now_ms: i64) {
        if !self.0.adapts {
            return;
        }
        let measured = adaptive::Measured {
            counts: self.stats_total(),
            memory_bytes: self.0.memory.bytes(),
            disk: self.0.disk.stats(),
            compressed: self.0.coding.meters.read(),
        };
        if let Some(next) = self.0.adaptive.lock().step(&measured, now_ms) {
            if next.memory_bytes_max != self.0.memory.bytes_max() {
                self.0.memory.resize(next.memory_bytes_max);
            }
            self.0.coding.tuning.store(Arc::new(next));
        }
    }

    fn stats_total(&self) -> stats::Counts {
        let mut total = *self.0.departed.lock();
        for part in self.0.parts.read().values() {
            for (_, counts) in part.counters.read() {
                total.add(&counts);
            }
        }
        total
    }
}

impl Pass {
    fn look_at(&mut self, shared: &Shared, slot: Slot, held: Arc<Held>, now_ms: i64) {
        self.seen.insert(slot.incarnation);
        let hits = held.hits.swap(0, Ordering::Relaxed);
        if hits > 0 {
            held.wanted.store(true, Ordering::Relaxed);
            // Hot is what was asked for, whether or not a write has aged it since.
            self.hot.push((Arc::clone(&held), hits));
        }
        if held.entry.is_expired(now_ms) || !held.proof.is_current() {
            self.over.push((slot, held));
        } else if !self.full && held.wanted.load(Ordering::Relaxed) {
            // What found no room last time is tried again; where there is none now, the rest need not be tried.
            self.full = !shared.persist(&held);
        }
    }
}

#[cfg(test)]
mod tests;
