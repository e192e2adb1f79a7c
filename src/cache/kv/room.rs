//! The memory that the stores of all tenants share, and who gives way when it is full.
//!
//! Keeps true: after an operation all stores together hold at most the node's bytes; what each holds is counted from its
//! first byte to its drop, so the count cannot drift. Values of the tenant that was used longest ago give way first, those
//! of the one that asks last; locks never do. Nobody holds a handle of a store that was let go as empty.
//! Does not do: what a tenant may hold by itself; that is `core`.

use super::core::{Bounds, TenantStore, Usage};
use super::{KvOptions, KvStats};
use crate::kernel::ident::TenantId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Share of the room that is freed beyond what is needed, so that a full node does not look for room at every operation.
const SLACK: usize = 16;

/// Every tenant's store and the bytes they share.
#[derive(Debug)]
pub(super) struct Room {
    options: KvOptions,
    held: Arc<AtomicUsize>,
    /// Rises with every look-up; tells which store was used longest ago.
    turn: AtomicU64,
    /// Evictions of stores that are gone.
    evictions: AtomicU64,
    /// Locked for a look-up, or to list the stores. Each store has a lock of its own, held for one operation that touches
    /// memory only and wants no other lock.
    shelves: Mutex<HashMap<TenantId, Arc<Shelf>>>,
}

/// One tenant's store.
#[derive(Debug)]
pub(super) struct Shelf {
    store: Mutex<TenantStore>,
    used: AtomicU64,
    held: Arc<AtomicUsize>,
}

impl Shelf {
    /// Runs one operation and counts what it added or took.
    pub(super) fn with<T>(&self, operation: impl FnOnce(&mut TenantStore) -> T) -> T {
        let mut store = self.store.lock();
        let before = store.usage().bytes;
        let done = operation(&mut store);
        let after = store.usage().bytes;
        if after >= before {
            self.held.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.held.fetch_sub(before - after, Ordering::Relaxed);
        }
        done
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.held.fetch_sub(self.store.get_mut().usage().bytes, Ordering::Relaxed);
    }
}

impl Room {
    pub(super) fn new(options: KvOptions) -> Self {
        Self {
            options,
            held: Arc::default(),
            turn: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            shelves: Mutex::default(),
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.options.tenant
    }

    /// The store of `tenant`, which is now the one used last.
    pub(super) fn shelf(&self, tenant: &TenantId) -> Arc<Shelf> {
        let mut shelves = self.shelves.lock();
        let made = || self.new_shelf(TenantStore::new(self.options.tenant));
        let shelf = shelves.entry(tenant.clone()).or_insert_with(made);
        shelf.used.store(self.next_turn(), Ordering::Relaxed);
        Arc::clone(shelf)
    }

    /// Takes a store as it was saved.
    pub(super) fn put_back(&self, tenant: TenantId, store: TenantStore, now_ms: i64) {
        let shelf = self.new_shelf(store);
        self.shelves.lock().insert(tenant, Arc::clone(&shelf));
        self.make_room(&shelf, now_ms);
    }

    pub(super) fn forget(&self, tenant: &TenantId) {
        if let Some(shelf) = self.shelves.lock().remove(tenant) {
            self.evictions.fetch_add(shelf.with(|store| store.usage().evictions), Ordering::Relaxed);
        }
    }

    /// Every store.
    pub(super) fn all(&self) -> Vec<(TenantId, Arc<Shelf>)> {
        self.shelves.lock().iter().map(|(tenant, shelf)| (tenant.clone(), Arc::clone(shelf))).collect()
    }

    /// Whether the stores hold more than they may together.
    pub(super) fn is_over(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.options.bytes_max
    }

    /// Brings the stores back within their bytes; `asking` gives way last.
    pub(super) fn make_room(&self, asking: &Arc<Shelf>, now_ms: i64) {
        if !self.is_over() {
            return;
        }
        let mut shelves: Vec<Arc<Shelf>> = self.shelves.lock().values().cloned().collect();
        shelves.sort_by_key(|shelf| (Arc::ptr_eq(shelf, asking), shelf.used.load(Ordering::Relaxed)));
        let aim = self.options.bytes_max - self.options.bytes_max / SLACK;
        for shelf in shelves {
            let surplus = self.held.load(Ordering::Relaxed).saturating_sub(aim);
            if surplus == 0 {
                return;
            }
            shelf.with(|store| store.give_up(surplus, now_ms));
        }
    }

    /// Lets go of what is over, and of stores that hold nothing and that nobody has a handle of.
    pub(super) fn tidy(&self, now_ms: i64) {
        for (tenant, shelf) in self.all() {
            if shelf.with(|store| store.tidy(now_ms)) {
                continue;
            }
            let mut shelves = self.shelves.lock();
            // Handles are made under this lock: the map's and our own are all there are, or somebody is about to use it.
            let idle = Arc::strong_count(&shelf) == 2 && shelf.with(|store| !store.tidy(now_ms));
            if idle && shelves.get(&tenant).is_some_and(|present| Arc::ptr_eq(present, &shelf)) {
                shelves.remove(&tenant);
                self.evictions.fetch_add(shelf.with(|store| store.usage().evictions), Ordering::Relaxed);
            }
        }
    }

    pub(super) fn usage_of(&self, tenant: &TenantId) -> Usage {
        let shelf = self.shelves.lock().get(tenant).cloned();
        shelf.map_or_else(Usage::default, |shelf| shelf.with(|store| store.usage()))
    }

    pub(super) fn stats(&self) -> KvStats {
        let all = self.all();
        let mut usage = Usage { evictions: self.evictions.load(Ordering::Relaxed), ..Usage::default() };
        for (_, shelf) in &all {
            let one = shelf.with(|store| store.usage());
            usage.keys += one.keys;
            usage.bytes += one.bytes;
            usage.locks += one.locks;
            usage.evictions += one.evictions;
        }
        KvStats { usage, bytes_max: self.options.bytes_max, tenants: all.len() }
    }

    fn new_shelf(&self, store: TenantStore) -> Arc<Shelf> {
        let (used, held) = (AtomicU64::new(self.next_turn()), Arc::clone(&self.held));
        held.fetch_add(store.usage().bytes, Ordering::Relaxed);
        Arc::new(Shelf { store: Mutex::new(store), used, held })
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}
