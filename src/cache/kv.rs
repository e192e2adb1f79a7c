//! The cache as applications use it: a tenant's own key-value store with time to live, counters, and locks.
//!
//! Keeps true: a tenant sees its own keys only, and none of the response cache's; memory is bounded per tenant by
//! evicting what was used longest ago. Values survive an orderly stop; after a crash the store is empty rather than old.
//! Does not do: durability. What must not be lost belongs in a collection.
//!
//! Cache-aside is `get`, then on a miss load and [`SetIf::Absent`] with a TTL; write-through is writing the record and
//! `set` in one handler, `set` last. Work that must run once takes a lock and passes the lease's fence to whatever it
//! writes to, which refuses a fence lower than the last it saw.

mod core;
mod saved;

pub use core::{Bounds, Lease, SetIf, TenantStore};

use crate::cache::Cache;
use crate::cache::disk::{DiskCache, DiskRead, DiskState, NoDisk};
use crate::kernel::clock::Clock;
use crate::kernel::error::{Code, Fault};
use crate::kernel::ident::TenantId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a start waits for the disk tier to open: a second at most, because values are not worth more.
const OPENING_WAIT: Duration = Duration::from_millis(5);
const OPENING_WAITS_MAX: usize = 200;

/// Why the store refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The key is empty, too long or has control characters.
    #[error("the key is not allowed")]
    KeyInvalid,
    /// The value is larger than a value may be.
    #[error("the value has {bytes} bytes, at most {bytes_max} are kept")]
    ValueTooLarge {
        /// What was offered.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// The TTL or lease is out of bounds.
    #[error("a time of {ms} ms is out of bounds")]
    TimeInvalid {
        /// What was asked for.
        ms: i64,
    },
    /// The value to increment is no whole number, or would not fit 64 bits.
    #[error("the value is no whole number of 64 bits")]
    NotANumber,
    /// Somebody else holds the lock.
    #[error("the lock is held for another {remaining_ms} ms")]
    LockHeld {
        /// Until the lease ends.
        remaining_ms: i64,
    },
    /// The lease has ended, or was never this caller's.
    #[error("the lease is over")]
    LeaseOver,
    /// The tenant holds as many locks as it may.
    #[error("too many locks are held")]
    TooManyLocks,
}

impl Fault for KvError {
    fn code(&self) -> Code {
        match self {
            Self::KeyInvalid | Self::TimeInvalid { .. } | Self::NotANumber => Code::ParameterInvalid,
            Self::ValueTooLarge { .. } => Code::BodyTooLarge,
            Self::LockHeld { .. } | Self::LeaseOver => Code::Conflict,
            Self::TooManyLocks => Code::QuotaExceeded,
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::KeyInvalid => "A key is 1 to 250 characters without control characters.".into(),
            Self::ValueTooLarge { bytes_max, .. } => format!("A value may have at most {bytes_max} bytes.").into(),
            Self::TimeInvalid { .. } => "A TTL is 1 ms to 30 days, a lease 1 ms to 1 hour.".into(),
            Self::NotANumber => "Only a whole number of 64 bits can be incremented.".into(),
            Self::LockHeld { remaining_ms } => format!("The lock is held for another {remaining_ms} ms.").into(),
            Self::LeaseOver => "The lease has ended or belongs to somebody else.".into(),
            Self::TooManyLocks => "The tenant holds too many locks.".into(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::LockHeld { remaining_ms } => u32::try_from((remaining_ms + 999) / 1_000).ok(),
            _ => None,
        }
    }
}

/// The stores of all tenants. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Kv(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    disk: Arc<dyn DiskCache>,
    bounds: Bounds,
    /// Locked for a look-up; each store has a lock of its own, held for one operation that touches memory only.
    tenants: Mutex<HashMap<TenantId, Arc<Mutex<TenantStore>>>>,
}

/// The store of one tenant; it reaches no other.
#[derive(Debug, Clone)]
pub struct TenantKv {
    clock: Arc<dyn Clock>,
    store: Arc<Mutex<TenantStore>>,
}

impl Cache {
    /// Application stores that keep their values over an orderly stop in this cache's disk tier.
    pub fn kv(&self, bounds: Bounds) -> Kv {
        let (clock, disk) = (Arc::clone(&self.0.clock), Arc::clone(&self.0.disk));
        Kv(Arc::new(Inner { clock, disk, bounds, tenants: Mutex::default() }))
    }
}

impl Kv {
    /// Stores that keep nothing over a stop.
    pub fn in_memory(bounds: Bounds, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { clock, disk: Arc::new(NoDisk), bounds, tenants: Mutex::default() }))
    }

    /// The store of `tenant`.
    pub fn tenant(&self, tenant: &TenantId) -> TenantKv {
        let mut tenants = self.0.tenants.lock();
        let store =
            tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Mutex::new(TenantStore::new(self.0.bounds))));
        TenantKv { clock: Arc::clone(&self.0.clock), store: Arc::clone(store) }
    }

    /// The tenant is gone.
    pub fn forget(&self, tenant: &TenantId) {
        self.0.tenants.lock().remove(tenant);
    }

    /// Takes up what an orderly stop saved, once: call it before serving. What was saved is deleted before it is used,
    /// so that values which changed since can never come back.
    pub async fn restore(&self) -> usize {
        for _ in 0..OPENING_WAITS_MAX {
            if self.0.disk.stats().state != DiskState::Opening {
                break;
            }
            tokio::time::sleep(OPENING_WAIT).await;
        }
        let DiskRead::Found(manifest) = self.0.disk.get(saved::manifest_key()).await else { return 0 };
        if !self.0.disk.put_surely(saved::manifest_key(), Bytes::new()).await {
            return 0;
        }
        let now_ms = self.0.clock.now_ms();
        let mut count = 0;
        for (tenant, blocks) in saved::parse_manifest(&manifest) {
            let mut store = TenantStore::new(self.0.bounds);
            for block in 0..blocks {
                let key = saved::block_key(&tenant, block);
                if let DiskRead::Found(bytes) = self.0.disk.get(key.clone()).await {
                    count += saved::load_block(&bytes, &mut store, now_ms);
                }
                self.0.disk.remove(key);
            }
            self.0.tenants.lock().insert(tenant, Arc::new(Mutex::new(store)));
        }
        count
    }

    /// Saves everything for the next start: call it when nobody writes any more, before the cache closes.
    pub fn save(&self) {
        let now_ms = self.0.clock.now_ms();
        let mut manifest = Vec::new();
        for (tenant, store) in self.0.tenants.lock().iter() {
            let blocks = saved::blocks(&store.lock(), now_ms);
            let mut whole = true;
            for (number, block) in (0..).zip(&blocks) {
                whole &= self.0.disk.put(saved::block_key(tenant, number), block.clone());
            }
            if whole {
                manifest.push((tenant.clone(), u32::try_from(blocks.len()).unwrap_or(0)));
            }
        }
        // Last: without it nothing above is ever read.
        self.0.disk.put(saved::manifest_key(), saved::manifest(&manifest));
    }
}

impl TenantKv {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.store.lock().get(key, self.clock.now_ms())
    }

    /// The values of `keys`, in one moment.
    pub fn get_many(&self, keys: &[&str]) -> Vec<Option<Bytes>> {
        let (mut store, now_ms) = (self.store.lock(), self.clock.now_ms());
        keys.iter().map(|key| store.get(key, now_ms)).collect()
    }

    /// Sets `key`, if `when` holds; says whether it did.
    pub fn set(&self, key: &str, value: Bytes, ttl_ms: Option<i64>, when: SetIf) -> Result<bool, KvError> {
        self.store.lock().set(key, value, ttl_ms, when, self.clock.now_ms())
    }

    /// Sets several keys in one moment: all or, if one is refused, none.
    pub fn set_many(&self, pairs: &[(&str, Bytes, Option<i64>)]) -> Result<(), KvError> {
        let (mut store, now_ms) = (self.store.lock(), self.clock.now_ms());
        pairs.iter().try_for_each(|(key, value, ttl_ms)| store.check(key, value, *ttl_ms))?;
        for (key, value, ttl_ms) in pairs {
            store.set(key, value.clone(), *ttl_ms, SetIf::Always, now_ms)?;
        }
        Ok(())
    }

    /// Deletes `key`; says whether it was there.
    pub fn delete(&self, key: &str) -> bool {
        self.store.lock().delete(key, self.clock.now_ms())
    }

    /// Adds `delta` to the whole number at `key`, which counts as 0 where absent; an existing TTL stays.
    pub fn increment(&self, key: &str, delta: i64, ttl_ms: Option<i64>) -> Result<i64, KvError> {
        self.store.lock().increment(key, delta, ttl_ms, self.clock.now_ms())
    }

    /// Milliseconds `key` has left; `Some(None)` for ever, `None` if it is not there.
    pub fn ttl_ms(&self, key: &str) -> Option<Option<i64>> {
        self.store.lock().ttl_ms(key, self.clock.now_ms())
    }

    /// Takes the lock `name` for `lease_ms` under `token`, a secret the caller draws.
    pub fn acquire(&self, name: &str, token: &str, lease_ms: i64) -> Result<Lease, KvError> {
        self.store.lock().acquire(name, token, lease_ms, self.clock.now_ms())
    }

    /// Prolongs a lease that has not ended.
    pub fn renew(&self, name: &str, token: &str, lease_ms: i64) -> Result<Lease, KvError> {
        self.store.lock().renew(name, token, lease_ms, self.clock.now_ms())
    }

    /// Gives a lock back.
    pub fn release(&self, name: &str, token: &str) -> Result<(), KvError> {
        self.store.lock().release(name, token, self.clock.now_ms())
    }

    /// Keys and bytes held.
    pub fn usage(&self) -> (usize, usize) {
        self.store.lock().usage()
    }
}

#[cfg(test)]
mod tests;
