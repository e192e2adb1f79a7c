//! The cache as applications use it: a tenant's own key-value store with time to live, counters, and locks.
//!
//! Keeps true: a tenant sees its own keys only, and none of the response cache's; memory is bounded per tenant and over
//! all tenants, by evicting what was used longest ago ([`room`]). Values survive an orderly stop; after a crash the store
//! is empty rather than old. Locks are lost at every stop.
//! Does not do: durability. What must not be lost belongs in a collection.
//!
//! Cache-aside is `get`, then on a miss load and [`SetIf::Absent`] with a TTL; write-through is writing the record and
//! `set` in one handler, `set` last. Work that must run once takes a lock and passes the lease's fence to whatever it
//! writes to, which refuses a fence lower than the last it saw.

mod core;
mod room;
mod saved;

pub use core::{Bounds, KeyPage, Lease, SetIf, TenantStore, Usage};
use core::{KEY_BYTES_MAX, LEASE_MS_MAX, TTL_MS_MAX};

use crate::cache::Cache;
use crate::cache::disk::{DiskCache, DiskRead, DiskState, NoDisk};
use crate::kernel::clock::Clock;
use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use bytes::Bytes;
use room::{Room, Shelf};
use std::borrow::Cow;
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
    /// The name of a lock, or the token, is empty, too long or has control characters.
    #[error("the {0} of the lock is not allowed")]
    LockInvalid(&'static str),
    /// The value is larger than a value may be.
    #[error("the value has {bytes} bytes, at most {bytes_max} are kept")]
    ValueTooLarge {
        /// What was offered.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// The time to live is out of bounds.
    #[error("a time to live of {ms} ms is out of bounds")]
    TtlInvalid {
        /// What was asked for.
        ms: i64,
    },
    /// The lease is out of bounds.
    #[error("a lease of {ms} ms is out of bounds")]
    LeaseInvalid {
        /// What was asked for.
        ms: i64,
    },
    /// The value to increment is no whole number of 64 bits.
    #[error("the value is no whole number of 64 bits")]
    NotANumber,
    /// The sum would not fit 64 bits.
    #[error("{present} and {delta} are more than 64 bits hold")]
    Overflow {
        /// The value as it is.
        present: i64,
        /// What was to be added.
        delta: i64,
    },
    /// Somebody else holds the lock.
    #[error("the lock is held for another {remaining_ms} ms")]
    LockHeld {
        /// Until the lease ends.
        remaining_ms: i64,
    },
    /// The lease has ended, or was never this caller's.
    #[error("the lease is over")]
    LeaseOver,
    /// The tenant, or the node, holds as many locks as it may.
    #[error("too many locks are held")]
    TooManyLocks,
}

impl Fault for KvError {
    fn code(&self) -> Code {
        match self {
            Self::KeyInvalid
            | Self::LockInvalid(_)
            | Self::TtlInvalid { .. }
            | Self::LeaseInvalid { .. }
            | Self::NotANumber
            | Self::Overflow { .. } => Code::ParameterInvalid,
            Self::ValueTooLarge { .. } => Code::BodyTooLarge,
            Self::LockHeld { .. } | Self::LeaseOver => Code::Conflict,
            Self::TooManyLocks => Code::QuotaExceeded,
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::KeyInvalid => {
                format!("A key has 1 to {KEY_BYTES_MAX} bytes and no control characters; choose a shorter one.").into()
            }
            Self::LockInvalid("token") => format!(
                "A token has 1 to {KEY_BYTES_MAX} bytes and no control characters; send the one that taking the lock answered."
            )
            .into(),
            Self::LockInvalid(what) => {
                format!("The {what} of a lock has 1 to {KEY_BYTES_MAX} bytes and no control characters.").into()
            }
            Self::ValueTooLarge { bytes, bytes_max } => {
                format!("The value has {bytes} bytes; at most {bytes_max} are kept, fewer where a tenant has less room.")
                    .into()
            }
            Self::TtlInvalid { ms } => format!(
                "ttlMs is {ms}; it is 1 to {TTL_MS_MAX} (30 days) in milliseconds, and left out for no end."
            )
            .into(),
            Self::LeaseInvalid { ms } => {
                format!("leaseMs is {ms}; it is 1 to {LEASE_MS_MAX} (1 hour) in milliseconds, and 30000 if left out.").into()
            }
            Self::NotANumber => {
                "What the key has is no whole number of 64 bits; set a whole number before incrementing it.".into()
            }
            Self::Overflow { present, delta } => {
                format!("The value is {present}; with {delta} it would leave the {} to {} that 64 bits hold.", i64::MIN, i64::MAX).into()
            }
            Self::LockHeld { remaining_ms } => format!("The lock is held for another {remaining_ms} ms.").into(),
            Self::LeaseOver => {
                "The lease has ended or the token is somebody else's; take the lock anew before going on.".into()
            }
            Self::TooManyLocks => "Too many locks are held; give back those that are no longer needed.".into(),
        }
    }

    fn details(&self) -> Vec<Detail> {
        let field = match self {
            Self::KeyInvalid => "key",
            Self::LockInvalid(what) => what,
            Self::ValueTooLarge { .. } => "value",
            Self::TtlInvalid { .. } => "ttlMs",
            Self::LeaseInvalid { .. } => "leaseMs",
            Self::NotANumber | Self::Overflow { .. } => "increment",
            Self::LockHeld { .. } | Self::LeaseOver | Self::TooManyLocks => return Vec::new(),
        };
        vec![Detail::new(field, "validation_invalid_value", self.public())]
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
    room: Room,
}

/// How much application stores may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvOptions {
    /// What one tenant may hold.
    pub tenant: Bounds,
    /// Bytes of all tenants together.
    pub bytes_max: usize,
}

impl Default for KvOptions {
    fn default() -> Self {
        Self { tenant: Bounds::default(), bytes_max: limits::VALUES_BYTES_MAX }
    }
}

/// The store of one tenant; it reaches no other.
#[derive(Debug, Clone)]
pub struct TenantKv {
    inner: Arc<Inner>,
    shelf: Arc<Shelf>,
}

/// Several operations of one moment: deletes, then sets, then gets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Batch<'batch> {
    /// Keys to delete.
    pub delete: &'batch [&'batch str],
    /// Keys to set, with milliseconds to live.
    pub set: &'batch [(&'batch str, Bytes, Option<i64>)],
    /// Keys to get.
    pub get: &'batch [&'batch str],
}

/// What a batch did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchDone {
    /// Keys that were there to be deleted.
    pub deleted: usize,
    /// What was asked for, in that order.
    pub found: Vec<Option<Bytes>>,
}

/// What all stores hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvStats {
    /// Everything together.
    pub usage: Usage,
    /// Bytes all tenants may hold.
    pub bytes_max: usize,
    /// Tenants with a store.
    pub tenants: usize,
}

impl Cache {
    /// Application stores that keep their values over an orderly stop in this cache's disk tier.
    pub fn kv(&self, options: KvOptions) -> Kv {
        let (clock, disk) = (Arc::clone(&self.0.clock), Arc::clone(&self.0.disk));
        Kv(Arc::new(Inner { clock, disk, room: Room::new(options) }))
    }
}

impl Kv {
    /// Stores that keep nothing over a stop.
    pub fn in_memory(options: KvOptions, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { clock, disk: Arc::new(NoDisk), room: Room::new(options) }))
    }

    /// The store of `tenant`.
    pub fn tenant(&self, tenant: &TenantId) -> TenantKv {
        TenantKv { inner: Arc::clone(&self.0), shelf: self.0.room.shelf(tenant) }
    }

    /// The tenant is gone.
    pub fn forget(&self, tenant: &TenantId) {
        self.0.room.forget(tenant);
    }

    /// One round of upkeep: what is over goes, and so do stores with nothing in them.
    pub fn maintain(&self) {
        self.0.room.tidy(self.0.clock.now_ms());
    }

    /// What all stores hold.
    pub fn stats(&self) -> KvStats {
        self.0.room.stats()
    }

    /// What `tenant` holds; asking makes no store.
    pub fn usage_of(&self, tenant: &TenantId) -> Usage {
        self.0.room.usage_of(tenant)
    }

    /// What one tenant may hold.
    pub fn bounds(&self) -> Bounds {
        self.0.room.bounds()
    }

    /// Takes up what an orderly stop saved, once: call it before serving. What was saved is deleted before it is used,
    /// so that values which changed since can never come back.
    #[expect(clippy::disallowed_methods, reason = "the disk tier says nothing when it has opened")]
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
            let mut store = TenantStore::new(self.0.room.bounds());
            for block in 0..blocks {
                let key = saved::block_key(&tenant, block);
                if let DiskRead::Found(bytes) = self.0.disk.get(key.clone()).await {
                    count += saved::load_block(&bytes, &mut store, now_ms);
                }
                self.0.disk.remove(key);
            }
            self.0.room.put_back(tenant, store, now_ms);
        }
        count
    }

    /// Saves everything for the next start: call it when nobody writes any more, before the cache closes. Blocks, for a
    /// bounded time, while the disk has no room for more.
    pub fn save(&self) {
        let now_ms = self.0.clock.now_ms();
        let (mut manifest, mut patient) = (Vec::new(), true);
        for (tenant, shelf) in self.0.room.all() {
            let blocks = shelf.with(|store| saved::blocks(store, now_ms));
            let mut whole = true;
            for (number, block) in (0..).zip(&blocks) {
                whole = whole && self.put(saved::block_key(&tenant, number), block, &mut patient);
            }
            if whole {
                manifest.push((tenant, u32::try_from(blocks.len()).unwrap_or(0)));
            }
        }
        // Last: without it nothing above is ever read.
        self.put(saved::manifest_key(), &saved::manifest(&manifest), &mut patient);
    }

    /// Puts now or once there is room; a disk that makes none is not waited for again.
    fn put(&self, key: Vec<u8>, value: &Bytes, patient: &mut bool) -> bool {
        if self.0.disk.put(key.clone(), value.clone()) {
            return true;
        }
        *patient = *patient && self.0.disk.await_room();
        *patient && self.0.disk.put(key, value.clone())
    }
}

impl TenantKv {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.run(|store, now_ms| store.get(key, now_ms))
    }

    /// The value of `key` and the milliseconds it has left, `None` for ever, as of one moment.
    pub fn find(&self, key: &str) -> Option<(Bytes, Option<i64>)> {
        self.run(|store, now_ms| store.get(key, now_ms).zip(store.ttl_ms(key, now_ms)))
    }

    /// Sets `key`, if `when` holds; says whether it did.
    pub fn set(&self, key: &str, value: Bytes, ttl_ms: Option<i64>, when: SetIf) -> Result<bool, KvError> {
        self.run(|store, now_ms| store.set(key, value, ttl_ms, when, now_ms))
    }

    /// Deletes, sets and gets in one moment: all or, if one value is refused, nothing; the place of that value is told.
    pub fn batch(&self, batch: Batch<'_>) -> Result<BatchDone, (usize, KvError)> {
        self.run(|store, now_ms| {
            for (place, (key, value, ttl_ms)) in batch.set.iter().enumerate() {
                store.check(key, value, *ttl_ms).map_err(|refused| (place, refused))?;
            }
            let deleted = batch.delete.iter().filter(|key| store.delete(key, now_ms)).count();
            for (place, (key, value, ttl_ms)) in batch.set.iter().enumerate() {
                let set = store.set(key, value.clone(), *ttl_ms, SetIf::Always, now_ms);
                set.map_err(|refused| (place, refused))?;
            }
            let found = batch.get.iter().map(|key| store.get(key, now_ms)).collect();
            Ok(BatchDone { deleted, found })
        })
    }

    /// Deletes `key`; says whether it was there.
    pub fn delete(&self, key: &str) -> bool {
        self.run(|store, now_ms| store.delete(key, now_ms))
    }

    /// Adds `delta` to the whole number at `key`, which counts as 0 where absent; an existing TTL stays.
    pub fn increment(&self, key: &str, delta: i64, ttl_ms: Option<i64>) -> Result<i64, KvError> {
        self.run(|store, now_ms| store.increment(key, delta, ttl_ms, now_ms))
    }

    /// Keys that begin with `prefix`, in order, behind `after`, `len_max` at most.
    pub fn keys(&self, prefix: &str, after: &str, len_max: usize) -> KeyPage {
        self.run(|store, now_ms| store.keys(prefix, after, len_max, now_ms))
    }

    /// The lease of the lock `name`, if somebody holds it; without the token, which is its holder's alone.
    pub fn lease(&self, name: &str) -> Option<Lease> {
        self.run(|store, now_ms| store.lease(name, now_ms))
    }

    /// Takes the lock `name` for `lease_ms` under `token`, a secret the caller draws.
    pub fn acquire(&self, name: &str, token: &str, lease_ms: i64) -> Result<Lease, KvError> {
        let (lease, more) = self.run(|store, now_ms| {
            let before = store.usage().locks;
            let lease = store.acquire(name, token, lease_ms, now_ms);
            (lease, store.usage().locks > before)
        });
        // Locks never give way: where even all values made no room, a new one is refused.
        if more && lease.is_ok() && self.inner.room.is_over() {
            self.run(|store, now_ms| store.release(name, token, now_ms))?;
            return Err(KvError::TooManyLocks);
        }
        lease
    }

    /// Prolongs a lease that has not ended.
    pub fn renew(&self, name: &str, token: &str, lease_ms: i64) -> Result<Lease, KvError> {
        self.run(|store, now_ms| store.renew(name, token, lease_ms, now_ms))
    }

    /// Gives a lock back.
    pub fn release(&self, name: &str, token: &str) -> Result<(), KvError> {
        self.run(|store, now_ms| store.release(name, token, now_ms))
    }

    /// One operation, and room for what it added.
    fn run<T>(&self, operation: impl FnOnce(&mut TenantStore, i64) -> T) -> T {
        let now_ms = self.inner.clock.now_ms();
        let done = self.shelf.with(|store| operation(store, now_ms));
        self.inner.room.make_room(&self.shelf, now_ms);
        done
    }
}

#[cfg(test)]
mod tests;
