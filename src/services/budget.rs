//! How much each tenant may do, and how much it does.
//!
//! Keeps true: every budget that refuses says which, how much of how much, and when to come back; counting takes no lock
//! that two tenants share for longer than a look-up; superusers are counted and never refused, so that a tenant at its
//! bound can be helped. Windows are fixed minutes and days of the clock. Does not do: limits by address or account.

use crate::kernel::error::{Code, Fault};
use crate::kernel::ident::TenantId;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
const SHARDS: usize = 64;

macro_rules! budgets {
    ($($field:ident, $wire:literal, $doc:literal;)*) => {
        /// What one tenant may do; `None` is the node's default, 0 no limit.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct TenantLimits {
            $(#[doc = $doc] #[serde(rename = $wire, skip_serializing_if = "Option::is_none")] pub $field: Option<u64>,)*
        }

        impl TenantLimits {
            /// The names of all budgets, as they are on the wire.
            pub const NAMES: &'static [&'static str] = &[$($wire),*];

            /// These limits, and `defaults` where they say nothing.
            #[must_use]
            pub fn or(self, defaults: Self) -> Self {
                Self { $($field: self.$field.or(defaults.$field),)* }
            }

            /// The limit called `name` on the wire.
            pub fn get(&self, name: &str) -> Option<u64> {
                match name { $($wire => self.$field,)* _ => None }
            }

            /// Sets the limit called `name` on the wire; `false` if there is none.
            pub fn set(&mut self, name: &str, value: Option<u64>) -> bool {
                match name { $($wire => self.$field = value,)* _ => return false }
                true
            }
        }
    };
}

budgets! {
    requests_per_minute, "requestsPerMinute", "Requests per minute.";
    requests_per_day, "requestsPerDay", "Requests per day (UTC).";
    writes_per_minute, "writesPerMinute", "Records created, changed or deleted per minute.";
    read_steps_per_minute, "readStepsPerMinute", "Steps of SQLite's virtual machine per minute: a handful per row looked at.";
    storage_bytes, "storageBytes", "Bytes of database, log and files; writes are refused past it, reads and deletions are not.";
    concurrent_requests, "concurrentRequests", "Requests being answered at the same moment; what memory answers at once is refused past it and never counts itself.";
    connections, "connections", "Open connections; each counts for the tenant it asked last.";
}

/// A budget that is used up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the budget {budget} of the tenant is used up")]
pub struct BudgetError {
    /// Its name on the wire.
    pub budget: &'static str,
    /// The limit.
    pub limit: u64,
    /// What was used of it.
    pub used: u64,
    /// Seconds after which there is more; 0 if waiting does not help.
    pub retry_after_s: u32,
}

impl Fault for BudgetError {
    fn code(&self) -> Code {
        match self.budget {
            "storageBytes" => Code::StorageFull,
            "concurrentRequests" | "connections" => Code::Busy,
            _ => Code::QuotaExceeded,
        }
    }

    fn public(&self) -> Cow<'_, str> {
        let Self { budget, limit, used, retry_after_s } = self;
        let advice = match retry_after_s {
            0 => "delete something or ask for more".to_owned(),
            seconds => format!("try again in {seconds} s"),
        };
        Cow::Owned(format!("The tenant's budget {budget} is used up: {used} of {limit}; {advice}."))
    }

    fn retry_after_s(&self) -> Option<u32> {
        Some(self.retry_after_s).filter(|seconds| *seconds > 0)
    }
}

/// What was used in the present window of a fixed length.
#[derive(Debug, Default)]
struct Window {
    began: AtomicI64,
    used: AtomicU64,
}

impl Window {
    /// Adds, and returns what is used with it. Two threads at the turn of a window may lose a count, never add one.
    fn add(&self, amount: u64, length_ms: i64, now_ms: i64) -> u64 {
        let window = now_ms.div_euclid(length_ms);
        let began = self.began.load(Ordering::Relaxed);
        if began != window && self.began.compare_exchange(began, window, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.used.store(0, Ordering::Relaxed);
        }
        self.used.fetch_add(amount, Ordering::Relaxed) + amount
    }

    fn used(&self, length_ms: i64, now_ms: i64) -> u64 {
        let present = self.began.load(Ordering::Relaxed) == now_ms.div_euclid(length_ms);
        if present { self.used.load(Ordering::Relaxed) } else { 0 }
    }
}

/// What one tenant does; shared by everybody who counts for it.
#[derive(Debug, Default)]
pub struct TenantUsage {
    requests: Window,
    requests_today: Window,
    writes: Window,
    read_steps: Window,
    requests_total: AtomicU64,
    writes_total: AtomicU64,
    rows_total: AtomicU64,
    read_steps_total: AtomicU64,
    refused_total: AtomicU64,
    storage_bytes: AtomicU64,
    in_flight: AtomicI64,
    connections: AtomicI64,
    /// Whether something was written since `take_changed` was last asked.
    changed: AtomicBool,
}

/// A tenant's usage at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageReport {
    /// Requests in this minute.
    pub requests_per_minute: u64,
    /// Requests today.
    pub requests_per_day: u64,
    /// Records changed in this minute.
    pub writes_per_minute: u64,
    /// Steps of SQLite in this minute.
    pub read_steps_per_minute: u64,
    /// Bytes of database, log and files when last measured.
    pub storage_bytes: u64,
    /// Requests being answered now.
    pub concurrent_requests: u64,
    /// Connections that are open now and asked this tenant last.
    pub connections: u64,
    /// Requests since the node started.
    pub requests: u64,
    /// Records changed since the node started.
    pub writes: u64,
    /// Rows that statements gave since the node started.
    pub rows: u64,
    /// Steps of SQLite since the node started.
    pub read_steps: u64,
    /// Requests refused by a budget since the node started.
    pub refused: u64,
}

/// One request at a tenant; counted as under way until it is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<TenantUsage>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One open connection; counted at its tenant until it is dropped.
#[derive(Debug)]
pub struct Connected(Arc<TenantUsage>);

impl Connected {
    /// Whether it counts for the tenant of `usage`.
    pub fn is_at(&self, usage: &Arc<TenantUsage>) -> bool {
        Arc::ptr_eq(&self.0, usage)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request is about to do, as far as budgets care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Anything that stores nothing.
    Read,
    /// Storing more.
    Write,
    /// Removing; allowed when storage is full.
    Delete,
}

/// What limits are to whoever is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Past them they are refused.
    Bound,
    /// They are counted and admitted.
    Exempt,
}

impl TenantUsage {
    /// Counts a request at `now_ms` and says whether `limits` admit it.
    pub fn admit(
        self: &Arc<Self>,
        limits: &TenantLimits,
        intent: Intent,
        standing: Standing,
        now_ms: i64,
    ) -> Result<UnderWay, BudgetError> {
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        let under_way = UnderWay(Arc::clone(self));
        self.count_request(limits, intent, standing, now_ms, in_flight)?;
        Ok(under_way)
    }

    /// The same for a read that its thread answers before it does anything else: it is refused where as many others as may
    /// be are under way, and never counts as one of them.
    pub fn admit_at_once(&self, limits: &TenantLimits, standing: Standing, now_ms: i64) -> Result<(), BudgetError> {
        let in_flight = self.in_flight.load(Ordering::Relaxed) + 1;
        self.count_request(limits, Intent::Read, standing, now_ms, in_flight)
    }

    fn count_request(
        &self,
        limits: &TenantLimits,
        intent: Intent,
        standing: Standing,
        now_ms: i64,
        in_flight: i64,
    ) -> Result<(), BudgetError> {
        self.requests_total.fetch_add(1, Ordering::Relaxed);
        let minute = self.requests.add(1, MINUTE_MS, now_ms);
        let today = self.requests_today.add(1, DAY_MS, now_ms);
        if standing == Standing::Exempt || *limits == TenantLimits::default() {
            return Ok(());
        }
        let (to_minute, to_day) = (until_next(MINUTE_MS, now_ms), until_next(DAY_MS, now_ms));
        let in_flight = u64::try_from(in_flight).unwrap_or(0);
        let steps = self.read_steps.used(MINUTE_MS, now_ms);
        let writes = match intent {
            Intent::Read => 0,
            Intent::Write | Intent::Delete => self.writes.used(MINUTE_MS, now_ms).saturating_add(1),
        };
        let bytes = if intent == Intent::Write { self.storage_bytes.load(Ordering::Relaxed) } else { 0 };
        // The request itself is within what it fills: a limit of 10 admits ten. Steps and bytes are paid afterwards, so
        // one request may overdraw them.
        let asked = [
            ("concurrentRequests", limits.concurrent_requests, in_flight, 1),
            ("requestsPerMinute", limits.requests_per_minute, minute, to_minute),
            ("requestsPerDay", limits.requests_per_day, today, to_day),
            ("readStepsPerMinute", limits.read_steps_per_minute, steps, to_minute),
            ("writesPerMinute", limits.writes_per_minute, writes, to_minute),
            ("storageBytes", limits.storage_bytes, bytes, 0),
        ];
        let over = asked.into_iter().find_map(|(budget, limit, used, retry_after_s)| {
            let limit = limit.filter(|limit| *limit > 0 && used > *limit)?;
            let overdrawn = matches!(budget, "readStepsPerMinute" | "storageBytes");
            Some(BudgetError { budget, limit, used: if overdrawn { used } else { limit }, retry_after_s })
        });
        match over {
            None => Ok(()),
            Some(error) => {
                self.refused_total.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Counts a connection and says whether `limits` admit it.
    pub fn connect(self: &Arc<Self>, limits: &TenantLimits, standing: Standing) -> Result<Connected, BudgetError> {
        let open = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let connected = Connected(Arc::clone(self));
        let open = u64::try_from(open).unwrap_or(0);
        match limits.connections.filter(|limit| standing == Standing::Bound && *limit > 0 && open > *limit) {
            None => Ok(connected),
            Some(limit) => {
                self.refused_total.fetch_add(1, Ordering::Relaxed);
                Err(BudgetError { budget: "connections", limit, used: limit, retry_after_s: 1 })
            }
        }
    }

    /// Notes `records` changed at `now_ms`.
    pub fn count_writes(&self, records: u64, now_ms: i64) {
        self.writes.add(records, MINUTE_MS, now_ms);
        self.writes_total.fetch_add(records, Ordering::Relaxed);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Notes that what lies on disk changed without a record changing.
    pub fn note_changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Whether something was written since this was last asked.
    pub fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// Notes what a statement read at `now_ms`.
    pub fn count_read(&self, rows: u64, steps: u64, now_ms: i64) {
        self.read_steps.add(steps, MINUTE_MS, now_ms);
        self.rows_total.fetch_add(rows, Ordering::Relaxed);
        self.read_steps_total.fetch_add(steps, Ordering::Relaxed);
    }

    /// Notes the bytes on disk.
    pub fn measure_storage(&self, bytes: u64) {
        self.storage_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The usage at `now_ms`.
    pub fn report(&self, now_ms: i64) -> UsageReport {
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UsageReport {
            requests_per_minute: self.requests.used(MINUTE_MS, now_ms),
            requests_per_day: self.requests_today.used(DAY_MS, now_ms),
            writes_per_minute: self.writes.used(MINUTE_MS, now_ms),
            read_steps_per_minute: self.read_steps.used(MINUTE_MS, now_ms),
            storage_bytes: total(&self.storage_bytes),
            concurrent_requests: u64::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or(0),
            connections: u64::try_from(self.connections.load(Ordering::Relaxed)).unwrap_or(0),
            requests: total(&self.requests_total),
            writes: total(&self.writes_total),
            rows: total(&self.rows_total),
            read_steps: total(&self.read_steps_total),
            refused: total(&self.refused_total),
        }
    }
}

fn until_next(length_ms: i64, now_ms: i64) -> u32 {
    let left_ms = length_ms - now_ms.rem_euclid(length_ms);
    u32::try_from((left_ms + 999) / 1_000).unwrap_or(u32::MAX).max(1)
}

/// The usage of every tenant that was asked anything since the start: about 200 bytes each, gone with the tenant.
pub struct Budgets {
    defaults: TenantLimits,
    shards: Vec<RwLock<HashMap<TenantId, Arc<TenantUsage>>>>,
    hasher: RandomState,
}

impl fmt::Debug for Budgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budgets").field("defaults", &self.defaults).finish_non_exhaustive()
    }
}

impl Budgets {
    /// Nobody has used anything yet.
    pub fn new(defaults: TenantLimits) -> Self {
        Self { defaults, shards: (0..SHARDS).map(|_| RwLock::default()).collect(), hasher: RandomState::new() }
    }

    /// What a tenant may do that has no limits of its own.
    pub const fn defaults(&self) -> TenantLimits {
        self.defaults
    }

    /// The usage of `tenant`.
    pub fn usage(&self, tenant: &TenantId) -> Arc<TenantUsage> {
        let shard = self.shard(tenant);
        if let Some(usage) = shard.read().get(tenant) {
            return Arc::clone(usage);
        }
        Arc::clone(shard.write().entry(tenant.clone()).or_default())
    }

    /// Forgets a tenant that is gone.
    pub fn forget(&self, tenant: &TenantId) {
        self.shard(tenant).write().remove(tenant);
    }

    fn shard(&self, tenant: &TenantId) -> &RwLock<HashMap<TenantId, Arc<TenantUsage>>> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits choose a shard")]
        let at = self.hasher.hash_one(tenant) as usize % SHARDS;
        self.shards.get(at).expect("invariant: the index is below the number of shards")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(name: &str, limit: u64) -> TenantLimits {
        let mut limits = TenantLimits::default();
        assert!(limits.set(name, Some(limit)));
        limits
    }

    #[test]
    fn a_budget_refuses_what_is_past_it_and_comes_back() {
        let usage = Arc::new(TenantUsage::default());
        let limits = limits("requestsPerMinute", 3);
        for _ in 0..3 {
            usage.admit(&limits, Intent::Read, Standing::Bound, 10_000).unwrap();
        }
        let refused = usage.admit(&limits, Intent::Read, Standing::Bound, 10_000).unwrap_err();
        assert_eq!(
            (refused.budget, refused.limit, refused.used, refused.retry_after_s),
            ("requestsPerMinute", 3, 3, 50)
        );
        assert_eq!(refused.code(), Code::QuotaExceeded);
        usage.admit(&limits, Intent::Read, Standing::Exempt, 10_000).expect("superusers are admitted");
        usage.admit(&limits, Intent::Read, Standing::Bound, 60_000).expect("a new minute");
        assert_eq!(usage.report(60_000).refused, 1);
        assert_eq!(usage.report(60_000).requests, 6);
    }

    #[test]
    fn work_is_paid_afterwards() {
        let usage = Arc::new(TenantUsage::default());
        let limits = limits("readStepsPerMinute", 1_000);
        usage.count_read(10, 5_000, 0);
        let refused = usage.admit(&limits, Intent::Read, Standing::Bound, 1).unwrap_err();
        assert_eq!((refused.budget, refused.retry_after_s), ("readStepsPerMinute", 60));
        usage.admit(&limits, Intent::Read, Standing::Bound, 60_000).unwrap();
    }

    #[test]
    fn full_storage_refuses_writes_and_nothing_else() {
        let usage = Arc::new(TenantUsage::default());
        let limits = limits("storageBytes", 1_000);
        usage.measure_storage(2_000);
        usage.admit(&limits, Intent::Read, Standing::Bound, 0).unwrap();
        usage.admit(&limits, Intent::Delete, Standing::Bound, 0).unwrap();
        let refused = usage.admit(&limits, Intent::Write, Standing::Bound, 0).unwrap_err();
        assert_eq!((refused.code(), refused.retry_after_s()), (Code::StorageFull, None));
        assert!(refused.public().contains("2000 of 1000"));
    }

    #[test]
    fn requests_under_way_are_counted_until_they_end() {
        let usage = Arc::new(TenantUsage::default());
        let limits = limits("concurrentRequests", 2);
        let first = usage.admit(&limits, Intent::Read, Standing::Bound, 0).unwrap();
        let _second = usage.admit(&limits, Intent::Read, Standing::Bound, 0).unwrap();
        let refused = usage.admit(&limits, Intent::Read, Standing::Bound, 0).unwrap_err();
        assert_eq!((refused.code(), refused.used), (Code::Busy, 2));
        // What memory answers at once is no exception, but it is never one of those under way.
        let refused = usage.admit_at_once(&limits, Standing::Bound, 0).unwrap_err();
        assert_eq!((refused.code(), refused.used), (Code::Busy, 2));
        drop(first);
        for _ in 0..3 {
            usage.admit_at_once(&limits, Standing::Bound, 0).unwrap();
        }
        assert_eq!(usage.report(0).concurrent_requests, 1);
        usage.admit(&limits, Intent::Read, Standing::Bound, 0).unwrap();
        assert_eq!(usage.report(0).concurrent_requests, 1);
    }

    #[test]
    fn connections_are_counted_until_they_end_and_superusers_are_admitted() {
        let usage = Arc::new(TenantUsage::default());
        let limits = limits("connections", 1);
        let first = usage.connect(&limits, Standing::Bound).unwrap();
        let refused = usage.connect(&limits, Standing::Bound).unwrap_err();
        assert_eq!((refused.code(), refused.budget, refused.limit), (Code::Busy, "connections", 1));
        drop(usage.connect(&limits, Standing::Exempt).expect("superusers are admitted"));
        assert!(first.is_at(&usage) && usage.report(0).connections == 1);
        drop(first);
        usage.connect(&limits, Standing::Bound).unwrap();
        assert_eq!((usage.report(0).connections, usage.report(0).refused), (0, 1));
    }

    #[test]
    fn own_limits_win_over_the_nodes_and_zero_is_none() {
        let own = limits("requestsPerMinute", 0).or(limits("requestsPerMinute", 5));
        let usage = Arc::new(TenantUsage::default());
        (0..100).for_each(|_| drop(usage.admit(&own, Intent::Read, Standing::Bound, 0).unwrap()));
    }
}
