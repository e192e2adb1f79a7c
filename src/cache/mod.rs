//! L2 engine: the coherent cache. Encoded answers in memory and on disk, served only while nothing they depend on moved.
//!
//! Keeps true: an answer older than the last acknowledged write it depends on is never served, from neither tier, across
//! restarts and restores; no caller receives an answer made for a caller that the rule tells apart; losing the disk
//! tier loses speed only. Time to live bounds how long a thing is kept, nothing else.
//! Does not do: access rules, SQL, HTTP. It imports the kernel alone; `app` feeds it commits through [`Cache::on_commit`].

pub mod adaptive;
pub mod compress;
pub mod disk;
pub mod entry;
pub mod envelope;
mod flight;
pub mod key;
pub mod kv;
mod memory;
pub mod mutation;
mod persist;
pub mod purge;
pub mod stamp;
pub mod stats;
mod sweep;
mod tenant;
mod upkeep;
pub mod verify;
pub mod warm;

pub use tenant::{Answer, Began, Place, Request, Source, TenantCache};

use crate::kernel::clock::{Clock, SystemClock};
use crate::kernel::ident::TenantId;
use adaptive::{Adaptive, Tuning};
use arc_swap::ArcSwap;
use disk::{DiskCache, DiskState, NoDisk, SledTier, SledTierOptions};
use entry::{Coding, CompressionMeters};
use flight::Flights;
use memory::{Held, Memory};
use mutation::Mutation;
use parking_lot::{Mutex, RwLock};
use stamp::{Positions, Seed, Touched};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tenant::Part;
use warm::HotKeys;

/// How the cache is set up.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// Bytes of memory for answers.
    pub memory_bytes_max: u64,
    /// Folder of the disk tier; `None`, or `TENANTRY_DISK_CACHE=off` in the environment, runs without one.
    pub disk_root: Option<PathBuf>,
    /// Bytes the disk tier may take.
    pub disk_bytes_max: u64,
    /// Milliseconds a read from disk may take before the answer is loaded instead.
    pub disk_read_deadline_ms: u64,
    /// Recompute and compare every so many hits; 0 never does.
    pub verify_every: u32,
    /// Let sizes, times and levels follow what is measured.
    pub adaptive: bool,
    /// Where the present comes from.
    pub clock: Arc<dyn Clock>,
    /// Which build of the program asks. What another one left on disk is not believed: it may have answered otherwise.
    pub build: u64,
    /// A deliberate defect, for the simulation only.
    pub mutation: Option<Mutation>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 * 1024 * 1024,
            disk_root: None,
            disk_bytes_max: 512 * 1024 * 1024,
            disk_read_deadline_ms: 25,
            verify_every: 0,
            adaptive: true,
            clock: Arc::new(SystemClock),
            build: THIS_BUILD,
            mutation: None,
        }
    }
}

/// The number that the build script gives the sources of this program.
const THIS_BUILD: u64 = match u64::from_str_radix(env!("TENANTRY_SOURCES"), 16) {
    Ok(number) => number,
    Err(_) => panic!("the build script writes a hexadecimal number"),
};

/// Answers handed to the disk between two looks at its room when the cache closes.
const CLOSE_BATCH_LEN: usize = 256;

/// Page cache of sled: the smallest it works well with, because it takes several times what it is given.
const DISK_MEMORY_BYTES: u64 = 8 * 1024 * 1024;

/// One committed transaction, or group of them, as the cache needs to know it.
#[derive(Debug, Clone)]
pub struct CommitSummary<'commit> {
    /// Whose file.
    pub tenant: &'commit TenantId,
    /// The last log position of the commit.
    pub lsn: i64,
    /// The stamp of the transaction there.
    pub mark: i64,
    /// Whether collections, fields or rules changed.
    pub schema_changed: bool,
    /// Every record that changed.
    pub touches: &'commit [Touched],
}

/// Whether the cache is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Everything works, or what does not is not wanted.
    Ok,
    /// Answers are right, but a tier is missing, and why.
    Degraded(String),
}

/// The cache. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    clock: Arc<dyn Clock>,
    memory: Memory,
    disk: Arc<dyn DiskCache>,
    disk_bytes_max: u64,
    flights: Flights<Arc<Held>>,
    /// Tenants by id. Written when a tenant is first asked for, attached, reset, forgotten or let go; commits and requests
    /// read.
    parts: RwLock<HashMap<TenantId, Arc<Part>>>,
    incarnations: AtomicU64,
    coding: Arc<Coding>,
    /// Touched by maintenance and reports only.
    adaptive: Mutex<Adaptive>,
    /// Touched by maintenance and warming only.
    hot: Mutex<HotKeys>,
    /// When the list of hot keys was last written to disk.
    hot_kept_ms: AtomicI64,
    sweeping: sweep::Sweeping,
    /// What was counted for tenants and files that are gone, so that sums never fall.
    departed: Mutex<stats::Counts>,
    /// Tenants that hold something in memory, as of the last maintenance or insertion of a new one.
    active_tenants: AtomicU64,
    verify_every: u32,
    verify_turn: AtomicU64,
    adapts: bool,
    build: u64,
    mutation: Option<Mutation>,
}

impl Cache {
    /// Opens the cache. The disk tier opens in the background; until it is ready, or if it never is, memory serves.
    pub fn open(options: CacheOptions) -> Self {
        let off = std::env::var_os("TENANTRY_DISK_CACHE").is_some_and(|value| value == "off");
        let disk: Arc<dyn DiskCache> = match options.disk_root.clone().filter(|_| !off) {
            Some(root) => Arc::new(SledTier::start(SledTierOptions {
                root,
                bytes_max: options.disk_bytes_max,
                memory_bytes: DISK_MEMORY_BYTES,
                read_deadline: Duration::from_millis(options.disk_read_deadline_ms),
                group_of: persist::group_of,
            })),
            None => Arc::new(NoDisk),
        };
        Self::with_disk(options, disk)
    }

    /// Opens the cache over a disk tier of the caller's.
    pub fn with_disk(options: CacheOptions, disk: Arc<dyn DiskCache>) -> Self {
        let tuning = Tuning::starting(options.memory_bytes_max);
        Self(Arc::new(Shared {
            disk_bytes_max: options.disk_bytes_max,
            hot_kept_ms: AtomicI64::new(options.clock.now_ms()),
            sweeping: sweep::Sweeping::default(),
            departed: Mutex::default(),
            clock: options.clock,
            memory: Memory::new(options.memory_bytes_max),
            disk,
            flights: Flights::default(),
            parts: RwLock::default(),
            incarnations: AtomicU64::new(1),
            adaptive: Mutex::new(Adaptive::new(tuning.clone())),
            coding: Arc::new(Coding { tuning: ArcSwap::from_pointee(tuning), meters: CompressionMeters::default() }),
            hot: Mutex::default(),
            active_tenants: AtomicU64::new(1),
            verify_every: options.verify_every,
            verify_turn: AtomicU64::new(0),
            adapts: options.adaptive,
            build: options.build,
            mutation: options.mutation,
        }))
    }

    /// The cache of one tenant; the handle reaches no other tenant's answers.
    pub fn tenant(&self, tenant: &TenantId) -> TenantCache {
        if let Some(part) = self.0.parts.read().get(tenant) {
            return TenantCache::new(&self.0, part);
        }
        let mut parts = self.0.parts.write();
        let part = parts.entry(tenant.clone()).or_insert_with(|| self.0.new_part(tenant, None));
        TenantCache::new(&self.0, part)
    }

    /// The highest position that the disk tier has seen of this tenant; its mark is worth having in the seed.
    pub async fn disk_position(&self, tenant: &TenantId) -> Option<i64> {
        self.0.read_high(tenant).await.ok().flatten().map(|high| high.lsn)
    }

    /// Tells what the tenant's file says about positions, after opening it. Until then memory serves, the disk does not.
    ///
    /// Commits are noted from the moment somebody has a handle of the tenant, so take one ([`Self::tenant`]) before the file
    /// is read for `seed` and keep it until this returns. What cannot be told apart counts as changed.
    pub fn attach(&self, tenant: &TenantId, seed: &Seed) {
        let fresh = self.0.new_part(tenant, Some(seed));
        let mut parts = self.0.parts.write();
        let Some(present) = parts.get(tenant) else {
            parts.insert(tenant.clone(), fresh);
            return;
        };
        if present.continues(seed, self.0.mutation) {
            return;
        }
        self.0.depart(present);
        // Commits seen before the seed arrived are in no seed; with them the past is unknown, the future is not.
        let next = match present.late() {
            Some(late) if late.lsn > seed.lsn && self.0.mutation != Some(Mutation::LateCommitsForgotten) => {
                self.0.new_part(tenant, Some(&Seed::cold(seed.lineage, late)))
            }
            _ => fresh,
        };
        parts.insert(tenant.clone(), next);
    }

    /// The tenant's file was replaced (restore, import, clone over it): nothing known about it holds any more.
    pub fn reset(&self, tenant: &TenantId, seed: &Seed) {
        let next = self.0.new_part(tenant, Some(seed));
        if let Some(old) = self.0.parts.write().insert(tenant.clone(), next) {
            self.0.depart(&old);
        }
        self.sweep_retired();
    }

    /// The tenant was closed: its positions cannot move until it is attached again.
    pub fn detach(&self, tenant: &TenantId) {
        let mut parts = self.0.parts.write();
        if let Some(part) = parts.get(tenant) {
            part.close();
            if part.is_idle() {
                self.0.depart(part);
                parts.remove(tenant);
            }
        }
    }

    /// The tenant is gone, with everything kept for it.
    pub fn forget(&self, tenant: &TenantId) {
        if let Some(part) = self.0.parts.write().remove(tenant) {
            self.0.depart(&part);
        }
        self.0.hot.lock().forget(tenant);
        self.sweep_retired();
    }

    /// Takes note of a commit: called after COMMIT and before the acknowledgement, on the tenant's writer. Never blocks
    /// on anything but another commit of the same tenant. A tenant that nobody has asked for has nothing to void, and
    /// whoever describes its file later reads this commit there.
    pub fn on_commit(&self, commit: &CommitSummary<'_>) {
        // Under the read lock, so that an attach cannot slip between finding the part and moving its positions.
        if let Some(part) = self.0.parts.read().get(commit.tenant) {
            part.observe(commit);
            if commit.schema_changed {
                self.0.sweeping.want();
            }
        }
    }

    /// Whether the cache is well.
    pub fn health(&self) -> Health {
        match self.0.disk.stats().state {
            DiskState::Degraded(why) => Health::Degraded(why),
            DiskState::Ready | DiskState::Opening | DiskState::Off => Health::Ok,
        }
    }

    /// What the cache did and holds.
    pub fn stats(&self) -> stats::Report {
        let now_ms = self.0.clock.now_ms();
        let mut ages: HashMap<TenantId, stats::AgeSum> = HashMap::new();
        for (_, held) in self.0.memory.all() {
            ages.entry(held.key.tenant().clone()).or_default().add(now_ms - held.entry.created_ms());
        }
        let parts: Vec<Arc<Part>> = self.0.parts.read().values().cloned().collect();
        let mut tenants: Vec<_> = parts.iter().map(|part| self.0.report(part, &ages)).collect();
        tenants.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        let mut total = *self.0.departed.lock();
        for tenant in &tenants {
            total.add(&tenant.total);
        }
        let (decisions, decided) = {
            let adaptive = self.0.adaptive.lock();
            (adaptive.log().to_vec(), adaptive.decided())
        };
        stats::Report {
            total,
            memory_bytes_max: self.0.memory.bytes_max(),
            memory_bytes: self.0.memory.bytes(),
            memory_entries: self.0.memory.len() as u64,
            share_bytes_max: self.0.share_max(),
            loads: self.0.flights.len() as u64,
            disk: self.0.disk.stats(),
            compressed: self.0.coding.meters.read(),
            levels: self.0.coding.tuning.load().levels,
            stamp_bytes: tenants.iter().map(|tenant| tenant.stamp_bytes).sum(),
            tenants,
            decisions,
            decided,
        }
    }

    /// Writes what memory holds to disk and stops the disk tier. Memory goes on serving. Blocks, for a bounded time.
    pub fn close(&self) {
        // The list of what was hot goes first: it is small, and worth most.
        self.0.persist_hot();
        for (number, (_, held)) in self.0.memory.all().enumerate() {
            // Memory holds more answers than the disk's queue: without waiting, most of them would be dropped.
            if number % CLOSE_BATCH_LEN == 0 && !self.0.disk.await_room() {
                break;
            }
            if held.proof.is_current() {
                self.0.persist_last(&held);
            }
        }
        self.0.disk.close();
    }

    fn sweep_retired(&self) {
        let live: std::collections::HashSet<u64> = self.0.parts.read().values().map(|part| part.incarnation).collect();
        self.0.memory.retain(|slot, _| live.contains(&slot.incarnation));
    }
}

impl Shared {
    fn new_part(&self, tenant: &TenantId, seed: Option<&Seed>) -> Arc<Part> {
        let positions = match seed {
            Some(seed) => Positions::seeded(seed, self.mutation),
            None => Positions::unseeded(self.mutation),
        };
        let incarnation = self.incarnations.fetch_add(1, Ordering::Relaxed);
        let coding = Arc::clone(&self.coding);
        Arc::new(Part::new(tenant.clone(), incarnation, Arc::new(positions), coding, seed))
    }

    /// Ends a part: its handles only load from now on, and what it counted stays in the sums.
    fn depart(&self, part: &Part) {
        part.retire();
        let mut departed = self.departed.lock();
        for (_, mut counts) in part.counters.read() {
            (counts.bytes, counts.entries) = (0, 0);
            departed.add(&counts);
        }
    }

    fn share_max(&self) -> u64 {
        let active = usize::try_from(self.active_tenants.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        memory::share_max(self.memory.bytes_max(), active)
    }
}

#[cfg(test)]
mod tests;
