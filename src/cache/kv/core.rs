//! One tenant's key-value store: pure, time is a parameter.
//!
//! Keeps true: bytes and keys stay within the bounds, by evicting what was used longest ago, never a lock; an expired
//! value is never seen; fences only rise, across restarts too, as long as the wall clock does not go back.
//! Does not do: locking, disk.

use super::KvError;
use crate::kernel::limits;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Longest key, bytes.
pub(super) const KEY_BYTES_MAX: usize = 250;
pub(super) const TTL_MS_MAX: i64 = 30 * 24 * 3_600 * 1_000;
pub(super) const LEASE_MS_MAX: i64 = 3_600 * 1_000;
/// What a key costs besides its own and its value's bytes.
const OVERHEAD_BYTES: usize = 128;

/// What one tenant may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Keys.
    pub keys_max: usize,
    /// Bytes of keys, values and locks, overhead included.
    pub bytes_max: usize,
    /// Bytes of one value.
    pub value_bytes_max: usize,
    /// Locks held at the same time.
    pub locks_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            keys_max: limits::VALUES_PER_TENANT_MAX,
            bytes_max: limits::VALUES_TENANT_BYTES_MAX,
            value_bytes_max: limits::VALUE_BYTES_MAX,
            locks_max: limits::LOCKS_PER_TENANT_MAX,
        }
    }
}

/// What one tenant holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Keys.
    pub keys: usize,
    /// Bytes of keys, values and locks, overhead included.
    pub bytes: usize,
    /// Locks, those that have ended but were not looked at since included.
    pub locks: usize,
    /// Values that left for lack of room.
    pub evictions: u64,
}

/// When a value is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetIf {
    /// In any case.
    #[default]
    Always,
    /// Only if the key is not there.
    Absent,
    /// Only if it is.
    Present,
}

/// A lock that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Rises with every grant of any lock; whoever is written to refuses one lower than the last it saw.
    pub fence: u64,
    /// When it ends, milliseconds since the Unix epoch.
    pub expires_ms: i64,
}

/// Some of a tenant's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// In order.
    pub keys: Vec<Arc<str>>,
    /// Whether more follow.
    pub more: bool,
}

#[derive(Debug, Clone)]
struct Value {
    bytes: Bytes,
    expires_ms: Option<i64>,
    used: u64,
}

#[derive(Debug, Clone)]
struct Held {
    token: Box<str>,
    lease: Lease,
}

/// One tenant's values and locks.
#[derive(Debug)]
pub struct TenantStore {
    bounds: Bounds,
    values: HashMap<Arc<str>, Value>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, Arc<str>>,
    uses: u64,
    bytes: usize,
    evictions: u64,
    locks: HashMap<Box<str>, Held>,
    fence: u64,
}

impl TenantStore {
    /// An empty store.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            values: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            evictions: 0,
            locks: HashMap::new(),
            fence: 0,
        }
    }

    /// The value of `key`.
    pub fn get(&mut self, key: &str, now_ms: i64) -> Option<Bytes> {
        self.drop_expired(key, now_ms);
        self.uses += 1;
        let value = self.values.get_mut(key)?;
        if let Some(name) = self.order.remove(&value.used) {
            self.order.insert(self.uses, name);
            value.used = self.uses;
        }
        Some(value.bytes.clone())
    }

    /// Whether `set` would take this.
    pub fn check(&self, key: &str, value: &Bytes, ttl_ms: Option<i64>) -> Result<(), KvError> {
        if !is_name(key) {
            return Err(KvError::KeyInvalid);
        }
        let bytes_max = self.bounds.value_bytes_max;
        if value.len() > bytes_max || cost(key, value) > self.bounds.bytes_max {
            return Err(KvError::ValueTooLarge { bytes: value.len(), bytes_max });
        }
        match ttl_ms {
            Some(ms) if !(1..=TTL_MS_MAX).contains(&ms) => Err(KvError::TtlInvalid { ms }),
            _ => Ok(()),
        }
    }

    /// Sets `key`, if `when` holds; says whether it did.
    pub fn set(
        &mut self,
        key: &str,
        value: Bytes,
        ttl_ms: Option<i64>,
        when: SetIf,
        now_ms: i64,
    ) -> Result<bool, KvError> {
        self.check(key, &value, ttl_ms)?;
        self.drop_expired(key, now_ms);
        let present = self.values.contains_key(key);
        if (when == SetIf::Absent && present) || (when == SetIf::Present && !present) {
            return Ok(false);
        }
        self.put(key, value, ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms)), now_ms);
        Ok(true)
    }

    /// Deletes `key`; says whether it was there.
    pub fn delete(&mut self, key: &str, now_ms: i64) -> bool {
        self.drop_expired(key, now_ms);
        self.take(key).is_some()
    }

    /// Adds `delta` to the whole number at `key`, which counts as 0 where absent; an existing TTL stays.
    pub fn increment(&mut self, key: &str, delta: i64, ttl_ms: Option<i64>, now_ms: i64) -> Result<i64, KvError> {
        self.drop_expired(key, now_ms);
        let (present, expires_ms) = match self.values.get(key) {
            Some(value) => {
                let text = std::str::from_utf8(&value.bytes).map_err(|_| KvError::NotANumber)?;
                (text.parse::<i64>().map_err(|_| KvError::NotANumber)?, value.expires_ms)
            }
            None => (0, ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms))),
        };
        let sum = present.checked_add(delta).ok_or(KvError::Overflow { present, delta })?;
        let value = Bytes::from(sum.to_string());
        self.check(key, &value, ttl_ms)?;
        self.put(key, value, expires_ms, now_ms);
        Ok(sum)
    }

    /// Milliseconds `key` has left; `Some(None)` for ever, `None` if it is not there.
    pub fn ttl_ms(&mut self, key: &str, now_ms: i64) -> Option<Option<i64>> {
        self.drop_expired(key, now_ms);
        self.values.get(key).map(|value| value.expires_ms.map(|at_ms| at_ms - now_ms))
    }

    /// Keys that begin with `prefix`, in order, behind `after`, `len_max` at most; looks at every key of this tenant once.
    pub fn keys(&self, prefix: &str, after: &str, len_max: usize, now_ms: i64) -> KeyPage {
        let live = |value: &Value| value.expires_ms.is_none_or(|at_ms| at_ms > now_ms);
        let wanted = |key: &str| key.starts_with(prefix) && key > after;
        let found = self.values.iter().filter(|(key, value)| wanted(key) && live(value));
        let mut keys: Vec<Arc<str>> = found.map(|(key, _)| Arc::clone(key)).collect();
        keys.sort_unstable();
        let more = keys.len() > len_max;
        keys.truncate(len_max);
        KeyPage { keys, more }
    }

    /// The lease of the lock `name`, if it has not ended.
    pub fn lease(&self, name: &str, now_ms: i64) -> Option<Lease> {
        self.locks.get(name).map(|held| held.lease).filter(|lease| lease.expires_ms > now_ms)
    }

    /// Takes the lock `name`; whoever holds it with the same token prolongs it and keeps the fence.
    pub fn acquire(&mut self, name: &str, token: &str, lease_ms: i64, now_ms: i64) -> Result<Lease, KvError> {
        check_lock(name, token)?;
        let expires_ms = lease_end(lease_ms, now_ms)?;
        if let Some(held) = self.locks.get_mut(name).filter(|held| held.lease.expires_ms > now_ms) {
            if *held.token != *token {
                return Err(KvError::LockHeld { remaining_ms: held.lease.expires_ms - now_ms });
            }
            held.lease.expires_ms = expires_ms;
            return Ok(held.lease);
        }
        self.take_lock(name);
        if self.locks.len() >= self.bounds.locks_max {
            self.drop_ended_locks(now_ms);
            if self.locks.len() >= self.bounds.locks_max {
                return Err(KvError::TooManyLocks);
            }
        }
        let cost = lock_cost(name, token);
        self.make_room_for_bytes(cost, now_ms);
        self.bytes += cost;
        // Time in the upper bits keeps fences rising over restarts that forgot the last one.
        let from_time = u64::try_from(now_ms).unwrap_or(0) << 16;
        self.fence = (self.fence + 1).max(from_time);
        let lease = Lease { fence: self.fence, expires_ms };
        self.locks.insert(Box::from(name), Held { token: Box::from(token), lease });
        Ok(lease)
    }

    /// Prolongs a lease that has not ended.
    pub fn renew(&mut self, name: &str, token: &str, lease_ms: i64, now_ms: i64) -> Result<Lease, KvError> {
        check_lock(name, token)?;
        let expires_ms = lease_end(lease_ms, now_ms)?;
        let held = self.locks.get_mut(name).filter(|held| held.lease.expires_ms > now_ms && *held.token == *token);
        let held = held.ok_or(KvError::LeaseOver)?;
        held.lease.expires_ms = expires_ms;
        Ok(held.lease)
    }

    /// Gives a lock back.
    pub fn release(&mut self, name: &str, token: &str, now_ms: i64) -> Result<(), KvError> {
        check_lock(name, token)?;
        let ours = self.locks.get(name).is_some_and(|held| held.lease.expires_ms > now_ms && *held.token == *token);
        if !ours {
            return Err(KvError::LeaseOver);
        }
        self.take_lock(name);
        Ok(())
    }

    /// What is held.
    pub fn usage(&self) -> Usage {
        let Self { bytes, evictions, .. } = *self;
        Usage { keys: self.values.len(), bytes, locks: self.locks.len(), evictions }
    }

    /// Lets go of values whose time is over and of locks whose lease has ended; whether anything is left.
    pub fn tidy(&mut self, now_ms: i64) -> bool {
        self.drop_all_expired(now_ms);
        self.drop_ended_locks(now_ms);
        !self.values.is_empty() || !self.locks.is_empty()
    }

    /// Gives up at least `bytes` if there is as much: what is over, then the values used longest ago.
    pub fn give_up(&mut self, bytes: usize, now_ms: i64) {
        let aim = self.bytes.saturating_sub(bytes);
        self.tidy(now_ms);
        while self.bytes > aim && self.evict_oldest() {}
    }

    /// Every value that has not expired, the one used longest ago first, with when it expires.
    pub(super) fn entries(&self, now_ms: i64) -> impl Iterator<Item = (&str, &Bytes, Option<i64>)> {
        self.order.values().filter_map(move |key| {
            let value = self.values.get(key)?;
            let live = value.expires_ms.is_none_or(|at_ms| at_ms > now_ms);
            live.then_some((&**key, &value.bytes, value.expires_ms))
        })
    }

    /// Puts a saved value back.
    pub(super) fn put_back(&mut self, key: &str, value: Bytes, expires_ms: Option<i64>, now_ms: i64) -> bool {
        let live = expires_ms.is_none_or(|at_ms| at_ms > now_ms) && self.check(key, &value, None).is_ok();
        if live {
            self.put(key, value, expires_ms, now_ms);
        }
        live
    }

    fn put(&mut self, key: &str, bytes: Bytes, expires_ms: Option<i64>, now_ms: i64) {
        self.take(key);
        let cost = cost(key, &bytes);
        self.make_room(cost, now_ms);
        self.uses += 1;
        let name: Arc<str> = Arc::from(key);
        self.bytes += cost;
        self.order.insert(self.uses, Arc::clone(&name));
        self.values.insert(name, Value { bytes, expires_ms, used: self.uses });
    }

    /// What expired goes first; then what was used longest ago.
    fn make_room(&mut self, cost: usize, now_ms: i64) {
        self.make_room_for_bytes(cost, now_ms);
        while self.values.len() >= self.bounds.keys_max && self.evict_oldest() {}
    }

    fn make_room_for_bytes(&mut self, cost: usize, now_ms: i64) {
        let bytes_max = self.bounds.bytes_max;
        if self.bytes + cost <= bytes_max && self.values.len() < self.bounds.keys_max {
            return;
        }
        self.drop_all_expired(now_ms);
        while self.bytes + cost > bytes_max && self.evict_oldest() {}
    }

    fn evict_oldest(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_first() else { return false };
        self.take(&key);
        self.evictions += 1;
        true
    }

    fn drop_all_expired(&mut self, now_ms: i64) {
        let over = |value: &Value| value.expires_ms.is_some_and(|at_ms| at_ms <= now_ms);
        let expired: Vec<Arc<str>> =
            self.values.iter().filter(|(_, value)| over(value)).map(|(key, _)| Arc::clone(key)).collect();
        for key in expired {
            self.take(&key);
        }
    }

    fn drop_ended_locks(&mut self, now_ms: i64) {
        let mut freed = 0;
        self.locks.retain(|name, held| {
            let lasts = held.lease.expires_ms > now_ms;
            freed += if lasts { 0 } else { lock_cost(name, &held.token) };
            lasts
        });
        self.bytes -= freed;
    }

    fn take_lock(&mut self, name: &str) {
        if let Some(held) = self.locks.remove(name) {
            self.bytes -= lock_cost(name, &held.token);
        }
    }

    fn drop_expired(&mut self, key: &str, now_ms: i64) {
        if self.values.get(key).is_some_and(|value| value.expires_ms.is_some_and(|at_ms| at_ms <= now_ms)) {
            self.take(key);
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let value = self.values.remove(key)?;
        self.order.remove(&value.used);
        self.bytes -= cost(key, &value.bytes);
        Some(value)
    }
}

fn cost(key: &str, value: &Bytes) -> usize {
    key.len() + value.len() + OVERHEAD_BYTES
}

fn is_name(text: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn check_lock(name: &str, token: &str) -> Result<(), KvError> {
    let wrong = [("name", name), ("token", token)].into_iter().find(|(_, text)| !is_name(text));
    wrong.map_or(Ok(()), |(what, _)| Err(KvError::LockInvalid(what)))
}

fn lock_cost(name: &str, token: &str) -> usize {
    name.len() + token.len() + OVERHEAD_BYTES
}

fn lease_end(lease_ms: i64, now_ms: i64) -> Result<i64, KvError> {
    if !(1..=LEASE_MS_MAX).contains(&lease_ms) {
        return Err(KvError::LeaseInvalid { ms: lease_ms });
    }
    Ok(now_ms.saturating_add(lease_ms))
}
