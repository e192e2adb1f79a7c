//! Reading through the cache of one tenant: memory, then disk, then one load that everybody shares.
//!
//! Keeps true: a load carries the stamp its request began with (and so one from before its snapshot); a waiter takes a result
//! only if it serves the moment the waiter arrived; errors are never kept; no lock is held across an await.
//! Does not do: building keys, choosing dependencies, rules.

use crate::cache::compress::Encoding;
use crate::cache::disk::GroupUsage;
use crate::cache::entry::{Coding, Entry, Loaded};
use crate::cache::flight::{FlightKey, Seat};
use crate::cache::key::Key;
use crate::cache::memory::{Account, Held, HeldParts, Slot};
use crate::cache::mutation::Mutation;
use crate::cache::purge;
use crate::cache::stamp::{Dependencies, Lineage, Mark, Positions, Seed, Stamp};
use crate::cache::stats::{AgeSum, Counters, Counts, TenantCounters, TenantReport};
use crate::cache::{CommitSummary, Shared};
use crate::kernel::ident::TenantId;
use crate::schema::cache_policy::{Policy, Tier};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Times a reader waits for somebody else's load before it loads for itself.
const WAITS_MAX: usize = 3;

/// One incarnation of one tenant's file, as the cache sees it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) tenant: TenantId,
    pub(crate) incarnation: u64,
    pub(crate) positions: Arc<Positions>,
    pub(crate) seed: Option<SeedFacts>,
    /// What the file said stands at earlier positions.
    pub(crate) marks: Box<[Mark]>,
    /// The last commit that was observed, or where the file stood at its opening. Locked by a commit and by writing an
    /// answer to disk, for one assignment.
    pub(crate) head: Mutex<Mark>,
    /// The last commit that was observed while the file was not described: before it was, or since it was closed. Locked
    /// for one assignment.
    late: Mutex<Option<Mark>>,
    pub(crate) account: Arc<Account>,
    coding: Arc<Coding>,
    pub(crate) counters: TenantCounters,
    /// The disk tier's side of this tenant, read from disk on first use.
    pub(crate) disk: tokio::sync::OnceCell<DiskPart>,
    /// The disk tier must not be used for this tenant any more.
    pub(crate) disk_distrusted: AtomicBool,
    retired: AtomicBool,
    closed: AtomicBool,
}

/// What the seed said about the file as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeedFacts {
    pub(crate) lineage: Lineage,
}

/// Where a tenant's answers are on disk.
#[derive(Debug)]
pub(crate) struct DiskPart {
    pub(crate) generation: u64,
    /// What of this tenant stands on disk. Held while a write is queued, so that order is kept.
    pub(crate) high: Mutex<High>,
}

/// What the disk store knows of a tenant besides its answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct High {
    /// The highest log position written to disk with an answer.
    pub(crate) lsn: i64,
    /// Which store has been told of the tenant.
    pub(crate) epoch: u64,
}

impl Part {
    pub(crate) fn new(
        tenant: TenantId,
        incarnation: u64,
        positions: Arc<Positions>,
        coding: Arc<Coding>,
        seed: Option<&Seed>,
    ) -> Self {
        Self {
            tenant,
            incarnation,
            positions,
            seed: seed.map(|seed| SeedFacts { lineage: seed.lineage }),
            marks: seed.map(|seed| seed.marks.clone().into_boxed_slice()).unwrap_or_default(),
            head: Mutex::new(seed.map_or(Mark::START, Seed::head)),
            late: Mutex::default(),
            account: Arc::default(),
            coding,
            counters: TenantCounters::default(),
            disk: tokio::sync::OnceCell::new(),
            disk_distrusted: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether this part already stands where `seed` stands, so that nothing needs to be thrown away.
    pub(crate) fn continues(&self, seed: &Seed, mutation: Option<Mutation>) -> bool {
        let seen = self.positions.position();
        let same = self.seed.is_some_and(|facts| facts.lineage == seed.lineage);
        let trusting = mutation == Some(Mutation::ClosedFileUnchecked);
        // While it was closed, another state of the file may have been put in its place, and even come as far.
        let unbroken = if self.closed.load(Ordering::Acquire) && !trusting {
            let same_mark = *self.head.lock() == seed.head() || mutation == Some(Mutation::ClosedFileMarkIgnored);
            seen == seed.lsn && same_mark
        } else {
            seen >= seed.lsn
        };
        if same && unbroken {
            self.closed.store(false, Ordering::Release);
        }
        same && unbroken
    }

    /// Takes note of a commit.
    pub(crate) fn observe(&self, commit: &CommitSummary<'_>) {
        self.positions.on_commit(commit.lsn, commit.schema_changed, commit.touches);
        let mark = Mark { lsn: commit.lsn, stamp: commit.mark };
        if self.seed.is_none() || self.closed.load(Ordering::Acquire) {
            let mut late = self.late.lock();
            *late = Some(late.filter(|late| late.lsn > mark.lsn).unwrap_or(mark));
        }
        let mut head = self.head.lock();
        if mark.lsn > head.lsn {
            *head = mark;
        }
    }

    /// The last commit that a description of the file may not know of.
    pub(crate) fn late(&self) -> Option<Mark> {
        *self.late.lock()
    }

    pub(crate) fn close(&self) {
        if self.seed.is_some() && !self.closed.swap(true, Ordering::AcqRel) {
            *self.late.lock() = None;
        }
    }

    /// Whether nothing would be lost with it: closed or never attached, nothing kept, and no handle but the table's.
    pub(crate) fn is_idle(self: &Arc<Self>) -> bool {
        let unused = self.seed.is_none() || self.closed.load(Ordering::Acquire);
        unused && self.account.bytes() == 0 && Arc::strong_count(self) == 1
    }

    /// From now on, handles to this part only load.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(crate) fn report(&self, ages: &HashMap<TenantId, AgeSum>, disk: GroupUsage) -> TenantReport {
        let collections = self.counters.read();
        let mut total = Counts::default();
        for (_, counts) in &collections {
            total.add(counts);
        }
        let ages = ages.get(&self.tenant).copied().unwrap_or_default().ages();
        let stamp_bytes = self.positions.weight() as u64;
        TenantReport { tenant: self.tenant.clone(), total, collections, ages, stamp_bytes, disk }
    }
}

/// Where an answer came from, in the words of `X-Cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Memory.
    Memory,
    /// Disk.
    Disk,
    /// It had to be loaded.
    Miss,
    /// It was loaded because policy or request said so.
    Bypass,
}

impl Source {
    /// The word in `X-Cache`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "l1",
            Self::Disk => "l2",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// Where one incarnation of a tenant stood when a request began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Began {
    stamp: Stamp,
    incarnation: u64,
}

/// One read. Begin first, then read the schema, then build key and dependencies from it: a rule that changes in
/// between then makes the answer look old, instead of filing it where the old rule would.
#[derive(Debug, Clone, Copy)]
pub struct Request<'request> {
    /// Where the tenant stood before anything of this request was looked up: [`TenantCache::begin`].
    pub began: Began,
    /// Where the answer is filed.
    pub key: &'request Key,
    /// What it depends on: everything the plan, the rules and the expands touch.
    pub dependencies: &'request Dependencies,
    /// How it is kept.
    pub policy: &'request Policy,
    /// What warming and verifying need to ask again; opaque to the cache.
    pub replay: Option<&'request Arc<[u8]>>,
}

/// An answer. Holding one keeps its bytes alive; cloning copies none.
#[derive(Debug, Clone)]
pub struct Answer {
    held: Arc<Held>,
    source: Source,
}

impl Answer {
    /// The body as it is.
    pub fn body(&self) -> &Bytes {
        self.held.entry.body()
    }

    /// The entry: entity tag, media type, tags, times.
    pub fn entry(&self) -> &Entry {
        &self.held.entry
    }

    /// The body in `encoding`, compressed on first use and kept; `None` where it is to be sent as it is.
    pub fn coded(&self, encoding: Encoding) -> Option<Bytes> {
        let Held { entry, coding, .. } = &*self.held;
        entry.coded(encoding, || coding.tuning.load().levels, &coding.meters)
    }

    /// Where it came from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Where it is filed.
    pub fn key(&self) -> &Key {
        &self.held.key
    }

    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.held
    }
}

/// Where the answer of one key is in memory. It looks as [`TenantCache::get`] does, and touches nothing but the answer.
#[derive(Debug, Clone)]
pub struct Place {
    cache: TenantCache,
    slot: Slot,
}

impl Place {
    /// The answer, if it is there, current at `now_ms`, and its turn to be verified has not come.
    pub fn find(&self, now_ms: i64) -> Option<Answer> {
        if self.cache.may_pass_unverified() { self.cache.get_at(&self.slot, now_ms) } else { None }
    }
}

/// The cache of one tenant. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TenantCache {
    pub(crate) shared: Arc<Shared>,
    pub(crate) part: Arc<Part>,
}

impl TenantCache {
    pub(crate) fn new(shared: &Arc<Shared>, part: &Arc<Part>) -> Self {
        Self { shared: Arc::clone(shared), part: Arc::clone(part) }
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.part.tenant
    }

    /// Whether `other` is the cache of the same incarnation of the same tenant, and still in use.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.part, &other.part) && !self.part.is_retired()
    }

    /// Where the tenant stands now. Call it before reading the schema, and once per request.
    pub fn begin(&self) -> Began {
        Began { stamp: self.stamp(), incarnation: self.part.incarnation }
    }

    /// Whether a request that began at `began` may still be answered by what is kept here.
    fn is_open_to(&self, began: Began) -> bool {
        let same = began.incarnation == self.part.incarnation || self.mutated(Mutation::OlderIncarnationServes);
        same && !self.is_retired()
    }

    fn is_retired(&self) -> bool {
        self.part.is_retired() && !self.mutated(Mutation::RetiredPartServes)
    }

    /// Whether an answer is for the caller who loaded it alone.
    fn is_apart(&self, held: &Held) -> bool {
        held.is_apart() && !self.mutated(Mutation::ApartAnswersShared)
    }

    fn stamp(&self) -> Stamp {
        self.part.positions.stamp()
    }

    /// Finds a current answer in memory. Takes no lock that a writer holds, copies nothing.
    pub fn get(&self, key: &Key) -> Option<Answer> {
        self.get_at(&self.slot(key), self.shared.clock.now_ms())
    }

    fn get_at(&self, slot: &Slot, now_ms: i64) -> Option<Answer> {
        let InMemory::Current(held) = self.look_up(slot, now_ms) else { return None };
        Counters::bump(&held.counters.l1_hits);
        Some(self.answer(held, Source::Memory))
    }

    /// Where the answer of `key` is in memory while it is there, for whoever asks again and again.
    pub fn place(&self, key: &Key) -> Place {
        Place { cache: self.clone(), slot: self.slot(key) }
    }

    /// Answers from memory, from disk, or by `load`, which runs once per key at a time and is shared by all who wait.
    ///
    /// `load` must open its snapshot inside the future it returns, never before. If that snapshot has another schema than
    /// the one the key was made by, it must fail, or mark its answer [`Loaded::apart`]. Its errors go to whoever ran it;
    /// those who waited try for themselves.
    pub async fn get_or_load<E, F, Fut>(&self, request: Request<'_>, load: F) -> Result<Answer, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded, E>>,
    {
        if request.policy.tier == Tier::Off || !self.is_open_to(request.began) {
            return self.load_past(request, load).await;
        }
        if let Some(answer) = self.get(request.key) {
            if self.verify_is_due() {
                return self.verify_hit(request, answer, load).await;
            }
            return Ok(answer);
        }
        for _ in 0..WAITS_MAX {
            match self.shared.flights.join(self.flight_key(request.key)) {
                Seat::Lead(lead) => {
                    let (held, source) = self.find_or_load(request, load).await?;
                    // An answer that must not be shared leaves the waiters to load for themselves.
                    if self.is_apart(&held) {
                        drop(lead);
                    } else {
                        lead.land(Arc::clone(&held));
                    }
                    return Ok(self.answer(held, source));
                }
                Seat::Wait(waiter) => {
                    if let Some(held) = waiter.result().await
                        && (held.proof.serves(request.began.stamp) || self.mutated(Mutation::WaiterTakesOlderLoad))
                    {
                        Counters::bump(&held.counters.misses);
                        Counters::bump(&held.counters.joined);
                        return Ok(self.answer(held, Source::Miss));
                    }
                }
            }
        }
        // The others' loads kept failing or being overtaken by writes; a load of one's own always serves.
        let held = self.load_and_keep(request, load).await?;
        Ok(self.answer(held, Source::Miss))
    }

    /// Loads although the cache may have an answer, and keeps the new one (`Cache-Control: no-cache` of the allowed).
    pub async fn reload<E, F, Fut>(&self, request: Request<'_>, load: F) -> Result<Answer, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded, E>>,
    {
        Counters::bump(&self.counters(request.key).bypasses);
        if request.policy.tier == Tier::Off || !self.is_open_to(request.began) {
            let held = self.load(request, load).await?;
            return Ok(self.answer(held, Source::Bypass));
        }
        let held = self.load(request, load).await?;
        self.keep(request.policy, &held);
        Ok(self.answer(held, Source::Bypass))
    }

    /// Whether memory has an answer under `key`, current or not; somebody has asked for it then.
    pub fn knows(&self, key: &Key) -> bool {
        self.shared.memory.peek(&self.slot(key)).is_some()
    }

    /// Write-through: keeps the answer that the writer of log position `lsn` made from what it wrote.
    ///
    /// `loaded` must be what a read at exactly `lsn` would give; later writes void it as any other.
    pub fn write_through(&self, request: Request<'_>, loaded: Loaded, lsn: i64) {
        if request.policy.tier == Tier::Off || !self.is_open_to(request.began) {
            return;
        }
        let now = self.stamp();
        // Purges count from the beginning of the request: one in between was meant for this answer too.
        let at = if self.mutated(Mutation::WriteThroughAtPresent) { now.at } else { lsn };
        let late = self.mutated(Mutation::WriteThroughPurgesAtPresent);
        let purges = if late { now.purges } else { request.began.stamp.purges };
        let held = self.hold(request, loaded, Stamp { at, purges });
        // Overtaken already; what is there may be newer.
        if held.proof.is_current() {
            self.keep(request.policy, &held);
        }
    }

    /// Disk, then load; in memory first, because somebody may have landed since the caller looked.
    async fn find_or_load<E, F, Fut>(&self, request: Request<'_>, load: F) -> Result<(Arc<Held>, Source), E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded, E>>,
    {
        let outdated = match self.look_up(&self.slot(request.key), self.shared.clock.now_ms()) {
            InMemory::Current(held) => {
                Counters::bump(&held.counters.l1_hits);
                return Ok((held, Source::Memory));
            }
            InMemory::Outdated => true,
            InMemory::Absent => false,
        };
        // Disk gets what memory had: where that is out of date, disk has nothing newer.
        if request.policy.tier.uses_disk()
            && !outdated
            && let Some(held) = self.shared.read_disk(&self.part, request).await
        {
            Counters::bump(&held.counters.l2_hits);
            if request.policy.tier.uses_memory() {
                self.keep_in_memory(&held);
            }
            return Ok((held, Source::Disk));
        }
        Ok((self.load_and_keep(request, load).await?, Source::Miss))
    }

    async fn load_and_keep<E, F, Fut>(&self, request: Request<'_>, load: F) -> Result<Arc<Held>, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded, E>>,
    {
        let held = self.load(request, load).await?;
        Counters::bump(&held.counters.misses);
        self.keep(request.policy, &held);
        Ok(held)
    }

    async fn load_past<E, F, Fut>(&self, request: Request<'_>, load: F) -> Result<Answer, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded, E>>,
    {
        Counters::bump(&self.counters(request.key).bypasses);
        let held = self.load(request, load).await?;
        Ok(self.answer(held, Source::Bypass))
    }

    pub(crate) async fn load<E, F, Fut>(&self, request: Request<'_>, load: F) -> Result<Arc<Held>, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded, E>>,
    {
        let loaded = load().await?;
        // The stamp is from before the load, and so from before its snapshot: a write in between makes the answer look
        // old, never new.
        let stamp = if self.mutated(Mutation::StampAfterSnapshot) { self.stamp() } else { request.began.stamp };
        Ok(self.hold(request, loaded, stamp))
    }

    fn hold(&self, request: Request<'_>, loaded: Loaded, stamp: Stamp) -> Arc<Held> {
        let (mut tags, lsn, apart) = (loaded.tags, loaded.lsn, loaded.apart);
        tags.extend(request.policy.tags.iter().cloned());
        if !self.mutated(Mutation::EventsUnmarked) {
            tags.extend(request.policy.events.iter().map(|event| purge::event_tag(event)));
        }
        let ttl_ms = self.shared.coding.tuning.load().ttl_ms(request.policy);
        let entry = Entry::new(loaded.body, loaded.etag, loaded.content_type, tags, self.shared.clock.now_ms(), ttl_ms);
        let dependencies = request.dependencies.clone();
        self.part.hold(request, entry, dependencies, Origin { stamp, reach: lsn.max(stamp.at), persisted: 0, apart })
    }

    fn keep(&self, policy: &Policy, held: &Arc<Held>) {
        if self.is_retired() || self.is_apart(held) {
            return;
        }
        if policy.tier.uses_memory() {
            self.keep_in_memory(held);
        } else {
            self.shared.persist(held);
        }
    }

    fn keep_in_memory(&self, held: &Arc<Held>) {
        let slot = self.slot(&held.key);
        for left in self.shared.memory.insert(slot, Arc::clone(held), self.shared.share_max()) {
            // What was asked for at least twice is worth finding again on disk.
            let wanted = left.hits.load(Ordering::Relaxed) > 0 || left.wanted.load(Ordering::Relaxed);
            if wanted && left.proof.is_current() {
                self.shared.persist(&left);
            }
        }
    }

    /// What memory has at `slot`. What is out of date stays until another takes its place, and counts once.
    fn look_up(&self, slot: &Slot, now_ms: i64) -> InMemory {
        if self.is_retired() {
            return InMemory::Absent;
        }
        let Some(held) = self.shared.memory.find(slot) else { return InMemory::Absent };
        let counter = if held.entry.is_expired(now_ms) {
            &held.counters.expired
        } else if !held.proof.is_current() && !self.mutated(Mutation::MemoryUnchecked) {
            &held.counters.stale
        } else {
            held.hits.fetch_add(1, Ordering::Relaxed);
            return InMemory::Current(held);
        };
        if !held.outdated.swap(true, Ordering::Relaxed) {
            Counters::bump(counter);
        }
        InMemory::Outdated
    }

    pub(crate) fn answer(&self, held: Arc<Held>, source: Source) -> Answer {
        Answer { held, source }
    }

    pub(crate) fn counters(&self, key: &Key) -> Arc<Counters> {
        self.part.counters.of(key.resource())
    }

    pub(crate) fn slot(&self, key: &Key) -> Slot {
        Slot { incarnation: self.part.incarnation, digest: *key.digest() }
    }

    pub(crate) fn mutated(&self, mutation: Mutation) -> bool {
        self.shared.mutation == Some(mutation)
    }

    fn flight_key(&self, key: &Key) -> FlightKey {
        (self.part.incarnation, *key.digest())
    }
}

/// What memory has under a key.
enum InMemory {
    /// An answer that serves.
    Current(Arc<Held>),
    /// One that something it depends on has overtaken, or whose time is over.
    Outdated,
    /// None.
    Absent,
}

/// Where an answer comes from.
pub(crate) struct Origin {
    pub(crate) stamp: Stamp,
    /// The highest log position whose writes may show in the body.
    pub(crate) reach: i64,
    /// Which disk store has it; 0 is none.
    pub(crate) persisted: u64,
    /// For the caller who loaded it alone.
    pub(crate) apart: bool,
}

impl Part {
    /// Ties an entry to this part's positions and accounts.
    pub(crate) fn hold(
        &self,
        request: Request<'_>,
        entry: Entry,
        dependencies: Dependencies,
        origin: Origin,
    ) -> Arc<Held> {
        let marks = purge::marks(request.key, entry.tags(), &dependencies);
        Held::new(HeldParts {
            proof: self.positions.prove(origin.stamp, &dependencies, marks),
            entry,
            key: request.key.clone(),
            dependencies,
            replay: request.replay.cloned(),
            uses_disk: request.policy.tier.uses_disk(),
            reach: origin.reach,
            persisted: origin.persisted,
            apart: origin.apart,
            counters: self.counters.of(request.key.resource()),
            account: Arc::clone(&self.account),
            coding: Arc::clone(&self.coding),
        })
    }
}
