//! L1: answers in memory, weighted by bytes, with a share for every tenant.
//!
//! Keeps true: no tenant holds more than its share while others want room, so none can evict all others; the bytes of a
//! tenant are counted by the entries themselves, from making to dropping, so the count cannot drift.
//! Does not do: freshness, loading.

use crate::cache::entry::{Coding, Entry};
use crate::cache::key::Key;
use crate::cache::stamp::Proof;
use crate::cache::stats::Counters;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

/// Few shards: each holds an equal part of the capacity, and an entry must fit its shard (quick_cache issue 26).
const SHARDS: usize = 4;
/// Below this capacity one shard is better than four small ones.
const SHARDED_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Weight of a typical entry, from which the number of ghost keys follows.
const TYPICAL_ENTRY_BYTES: u64 = 4 * 1024;
/// Entries looked at per insertion when a tenant is over its share.
const TRIM_STEPS_MAX: usize = 64;

/// Where an answer is in memory: the tenant's incarnation and the key's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    /// The incarnation of the tenant's file.
    pub(crate) incarnation: u64,
    /// The digest of the key.
    pub(crate) digest: [u8; 32],
}

/// One answer together with its evidence and its bookkeeping.
///
/// In this order in memory, and so are [`Proof`] and [`Entry`]: what every hit looks at comes first and lies together.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Held {
    pub(crate) proof: Proof,
    /// Hits since the last round of maintenance.
    pub(crate) hits: AtomicU32,
    pub(crate) counters: Arc<Counters>,
    pub(crate) entry: Entry,
    pub(crate) coding: Arc<Coding>,
    pub(crate) key: Key,
    pub(crate) dependencies: crate::cache::stamp::Dependencies,
    pub(crate) replay: Option<Arc<[u8]>>,
    pub(crate) uses_disk: bool,
    /// The highest log position whose writes may show in the body.
    pub(crate) reach: i64,
    /// Asked for since it was made: worth a place on disk.
    pub(crate) wanted: AtomicBool,
    /// Found out of date or past its time, and counted so.
    pub(crate) outdated: AtomicBool,
    /// Whether it was counted that the disk had no share left for it.
    pub(crate) refused: AtomicBool,
    /// Which disk store has it; 0 is none.
    pub(crate) persisted: AtomicU64,
    /// The position up to which the disk store's copy is known to be right.
    pub(crate) persisted_at: AtomicI64,
    pub(crate) account: Arc<Account>,
    apart: bool,
    weight: u64,
}

/// What one incarnation of a tenant holds in memory.
#[derive(Debug, Default)]
pub(crate) struct Account {
    bytes: AtomicU64,
    /// Keys in order of insertion, for trimming. Locked on insertion only, for a few queue operations.
    order: Mutex<VecDeque<[u8; 32]>>,
}

impl Account {
    /// Bytes alive now.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What a [`Held`] is made of.
pub(crate) struct HeldParts {
    pub(crate) entry: Entry,
    pub(crate) proof: Proof,
    pub(crate) key: Key,
    pub(crate) dependencies: crate::cache::stamp::Dependencies,
    pub(crate) replay: Option<Arc<[u8]>>,
    pub(crate) uses_disk: bool,
    pub(crate) reach: i64,
    pub(crate) persisted: u64,
    pub(crate) apart: bool,
    pub(crate) counters: Arc<Counters>,
    pub(crate) account: Arc<Account>,
    pub(crate) coding: Arc<Coding>,
}

impl Held {
    /// Weighs and counts the answer.
    pub(crate) fn new(parts: HeldParts) -> Arc<Self> {
        let replay = parts.replay.as_ref().map_or(0, |replay| replay.len());
        let dependencies = parts.dependencies.as_slice().len() * 96;
        let weight = (parts.entry.weight() + parts.proof.weight() + size_of::<Self>() + replay + dependencies) as u64;
        parts.account.bytes.fetch_add(weight, Ordering::Relaxed);
        parts.counters.bytes.fetch_add(weight, Ordering::Relaxed);
        parts.counters.entries.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            persisted_at: AtomicI64::new(parts.proof.at()),
            entry: parts.entry,
            proof: parts.proof,
            key: parts.key,
            dependencies: parts.dependencies,
            replay: parts.replay,
            uses_disk: parts.uses_disk,
            reach: parts.reach,
            hits: AtomicU32::new(0),
            wanted: AtomicBool::new(false),
            outdated: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            persisted: AtomicU64::new(parts.persisted),
            counters: parts.counters,
            account: parts.account,
            coding: parts.coding,
            apart: parts.apart,
            weight,
        })
    }

    /// Whether it is for the caller who loaded it alone.
    pub(crate) fn is_apart(&self) -> bool {
        self.apart
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.weight, Ordering::Relaxed);
        self.counters.bytes.fetch_sub(self.weight, Ordering::Relaxed);
        self.counters.entries.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
struct ByWeight;

impl Weighter<Slot, Arc<Held>> for ByWeight {
    fn weight(&self, _slot: &Slot, held: &Arc<Held>) -> u64 {
        held.weight
    }
}

/// Collects what is evicted, so that it is dropped, or written to disk, outside the shard's lock.
#[derive(Debug, Clone)]
struct Collect;

impl Lifecycle<Slot, Arc<Held>> for Collect {
    type RequestState = Vec<Arc<Held>>;

    fn on_evict(&self, evicted: &mut Vec<Arc<Held>>, _slot: Slot, held: Arc<Held>) {
        Counters::bump(&held.counters.evictions);
        evicted.push(held);
    }
}

/// The memory tier.
#[derive(Debug)]
pub(crate) struct Memory {
    cache: Cache<Slot, Arc<Held>, ByWeight, DefaultHashBuilder, Collect>,
}

impl Memory {
    /// A tier of `bytes_max`.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let shards = if bytes_max < SHARDED_BYTES_MIN { 1 } else { SHARDS };
        let estimated = usize::try_from(bytes_max / TYPICAL_ENTRY_BYTES).unwrap_or(usize::MAX).max(64);
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(estimated)
            .weight_capacity(bytes_max)
            .build()
            .expect("invariant: both capacities are set");
        Self { cache: Cache::with_options(options, ByWeight, DefaultHashBuilder::default(), Collect) }
    }

    /// Finds an answer, current or not.
    pub(crate) fn find(&self, slot: &Slot) -> Option<Arc<Held>> {
        self.cache.get(slot)
    }

    /// Looks without counting as a use.
    pub(crate) fn peek(&self, slot: &Slot) -> Option<Arc<Held>> {
        self.cache.peek(slot)
    }

    /// Keeps an answer; returns what had to leave for it.
    pub(crate) fn insert(&self, slot: Slot, held: Arc<Held>, share_max: u64) -> Vec<Arc<Held>> {
        let mut left = Vec::new();
        // Silently refused by quick_cache otherwise, and half a shard for one answer is too much anyway.
        if held.weight > self.cache.shard_capacity() / 2 {
            Counters::bump(&held.counters.rejected);
            self.cache.remove(&slot);
            return left;
        }
        let account = Arc::clone(&held.account);
        self.cache.insert_with_lifecycle(slot, held, &mut left);
        self.note_order(&account, slot);
        if account.bytes() > share_max {
            self.trim(&account, slot, share_max, &mut left);
        }
        left
    }

    /// Forgets the answer at `slot` if it is still `held`.
    pub(crate) fn remove_this(&self, slot: &Slot, held: &Arc<Held>) {
        self.cache.remove_if(slot, |present| Arc::ptr_eq(present, held));
    }

    /// Forgets every answer for which `keep` is false.
    pub(crate) fn retain(&self, keep: impl Fn(&Slot, &Arc<Held>) -> bool) {
        self.cache.retain(keep);
    }

    /// Every answer; not a snapshot, an answer that moves meanwhile may be missed.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Slot, Arc<Held>)> + '_ {
        self.cache.iter()
    }

    /// Changes the capacity.
    pub(crate) fn resize(&self, bytes_max: u64) {
        self.cache.set_capacity(bytes_max);
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.cache.capacity()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    pub(crate) fn len(&self) -> usize {
        self.cache.len()
    }

    fn note_order(&self, account: &Account, slot: Slot) {
        let mut order = account.order.lock();
        order.push_back(slot.digest);
        // Replaced and evicted answers leave their keys behind; sweep when they outnumber the living.
        if order.len() > 4_096 && order.len() > self.cache.len().saturating_mul(2) {
            let mut seen = std::collections::HashSet::with_capacity(order.len() / 2);
            let incarnation = slot.incarnation;
            order.retain(|digest| {
                self.cache.contains_key(&Slot { incarnation, digest: *digest }) && seen.insert(*digest)
            });
        }
    }

    /// Second chance, oldest first: what was hit since the last look goes to the back, the rest leaves.
    fn trim(&self, account: &Account, newest: Slot, share_max: u64, left: &mut Vec<Arc<Held>>) {
        // What is in `left` is on its way out but still counted.
        let mut freed: u64 =
            left.iter().filter(|held| std::ptr::eq(&*held.account, account)).map(|held| held.weight).sum();
        for step in 0..TRIM_STEPS_MAX {
            if account.bytes().saturating_sub(freed) <= share_max {
                return;
            }
            let Some(digest) = account.order.lock().pop_front() else { return };
            let slot = Slot { incarnation: newest.incarnation, digest };
            let Some(held) = self.cache.peek(&slot) else { continue };
            let spared = step < TRIM_STEPS_MAX / 2 && held.hits.load(Ordering::Relaxed) > 0;
            if slot == newest || spared {
                held.hits.store(0, Ordering::Relaxed);
                account.order.lock().push_back(digest);
                continue;
            }
            Counters::bump(&held.counters.trims);
            self.cache.remove(&slot);
            freed += held.weight;
            left.push(held);
        }
    }
}

/// The bytes one tenant may hold: everything while it is alone, an equal part when few are active, never below a quarter.
pub(crate) fn share_max(bytes_max: u64, active_tenants: usize) -> u64 {
    bytes_max / (active_tenants as u64).clamp(1, 4)
}
