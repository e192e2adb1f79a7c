//! Freshness: what an answer depends on, where those things stand in the tenant's log, and whether that has moved.
//!
//! Keeps true: a [`Proof`] is current only if no commit after its stamp touched anything it names. Positions are raised
//! before the tenant's own position is published, so whoever has seen position `p` sees every touch up to `p`.
//! Tables are bounded: ids share slots by hash, and a shared slot can only make an answer look older than it is.
//! Does not do: storing answers, time. A stamp is taken before the snapshot opens; the facade sees to that order.

use crate::cache::mutation::Mutation;
use crate::kernel::ident::{CollectionId, RecordId};
use crate::kernel::value::Stored;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Which history of a tenant's file a position belongs to; a restore, clone or rollback starts a new one.
pub type Lineage = [u8; 16];

const RECORD_SLOTS_MAX: usize = 4_096;
const PARTITION_SLOTS_MAX: usize = 1_024;
const SLOTS_MIN: usize = 16;
/// Slots for purged tags, collections and keys of one tenant, made with the first purge; fixed, because the table is
/// persisted as it is.
pub const PURGE_SLOTS: usize = 1_024;

const _: () = assert!(RECORD_SLOTS_MAX.is_power_of_two() && PARTITION_SLOTS_MAX.is_power_of_two());
const _: () = assert!(SLOTS_MIN.is_power_of_two() && PURGE_SLOTS.is_power_of_two());

/// One record changed by one commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Touched {
    /// The collection of the record.
    pub collection: CollectionId,
    /// The record.
    pub record: RecordId,
    /// Old and new value of the collection's declared partition field; empty where none is declared.
    pub partitions: Vec<Stored>,
    /// The log position of the change.
    pub lsn: i64,
}

/// The last log position of a collection, or of one partition of it, as the tenant's file knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The collection.
    pub collection: CollectionId,
    /// The hash of the declared partition field's value; `None` stands for the whole collection.
    pub partition: Option<u64>,
    /// The position of the last commit that touched it.
    pub lsn: i64,
}

impl Generation {
    /// A row as the tenant's file keeps it: the partition in the bytes of [`partition_hash`], empty for the collection.
    pub fn of_row(collection: CollectionId, partition: &[u8], lsn: i64) -> Self {
        Self { collection, partition: (!partition.is_empty()).then(|| partition_hash(partition)), lsn }
    }
}

/// A position together with a stamp of the transaction there; another future of the same file has another stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The position.
    pub lsn: i64,
    /// The stamp.
    pub stamp: i64,
}

impl Mark {
    /// Before the first transaction, where all histories are one.
    pub const START: Self = Self { lsn: 0, stamp: 0 };
}

/// What a tenant's file says about positions when it is opened; the tail spares records from looking changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Seed {
    /// The history this file continues.
    pub lineage: Lineage,
    /// The position of the last committed transaction.
    pub lsn: i64,
    /// Marks of positions up to `lsn`, as many as are known, the last one among them: what stands there, so that a file
    /// that went back and on again is told from one that simply went on.
    pub marks: Vec<Mark>,
    /// The position of the last schema change (or of whatever else makes every older answer void).
    pub schema_lsn: i64,
    /// Last positions of collections and partitions.
    pub generations: Vec<Generation>,
    /// Position to assume for what `generations` does not list: 0 if the list is complete, else `lsn`.
    pub unlisted_lsn: i64,
    /// Every touch of every commit after `tail_after`.
    pub tail: Vec<Touched>,
    /// The position after which `tail` is complete; `lsn` if there is no tail.
    pub tail_after: i64,
}

impl Seed {
    /// Where the file stands; a position without a known mark matches none that is written down.
    pub(crate) fn head(&self) -> Mark {
        let known = self.marks.iter().find(|mark| mark.lsn == self.lsn);
        known.copied().unwrap_or(Mark { lsn: self.lsn, stamp: i64::MIN })
    }

    /// A seed that knows only the present position: every older answer counts as changed.
    pub fn cold(lineage: Lineage, head: Mark) -> Self {
        let lsn = head.lsn;
        Self {
            lineage,
            lsn,
            marks: vec![head],
            schema_lsn: lsn,
            generations: Vec::new(),
            unlisted_lsn: lsn,
            tail: Vec::new(),
            tail_after: lsn,
        }
    }
}

/// One thing that an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dependency {
    /// A single record, by the hash of its id.
    Record(CollectionId, u64),
    /// Any record of a collection.
    Collection(CollectionId),
    /// Any record of a collection whose declared partition field has this value, by the value's hash.
    Partition(CollectionId, u64),
}

/// Everything that an answer depends on, besides the schema and the history of the file, which are always included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependencies(Vec<Dependency>);

impl Dependencies {
    /// Depends on nothing but schema and history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one record.
    #[must_use]
    pub fn record(mut self, collection: &CollectionId, record: &RecordId) -> Self {
        self.add(Dependency::Record(collection.clone(), record_hash(record.as_str())));
        self
    }

    /// Adds a whole collection.
    #[must_use]
    pub fn collection(mut self, collection: &CollectionId) -> Self {
        self.add(Dependency::Collection(collection.clone()));
        self
    }

    /// Adds one declared partition of a collection.
    #[must_use]
    pub fn partition(mut self, collection: &CollectionId, value: &Stored) -> Self {
        self.add(Dependency::Partition(collection.clone(), value_hash(value)));
        self
    }

    /// Adds one more, once.
    pub fn add(&mut self, dependency: Dependency) {
        if !self.0.contains(&dependency) {
            self.0.push(dependency);
        }
    }

    /// Whether single records are among them.
    pub fn name_records(&self) -> bool {
        self.0.iter().any(|one| matches!(one, Dependency::Record(..)))
    }

    /// The list.
    pub fn as_slice(&self) -> &[Dependency] {
        &self.0
    }
}

impl FromIterator<Dependency> for Dependencies {
    fn from_iter<T: IntoIterator<Item = Dependency>>(items: T) -> Self {
        let mut all = Self::default();
        for item in items {
            all.add(item);
        }
        all
    }
}

/// Where the tenant stood before a load began: log position and purge counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The log position.
    pub at: i64,
    /// The purge counter.
    pub purges: u64,
}

/// The positions of one tenant in one incarnation of its file. Shared by all threads; readers take no lock.
#[derive(Debug)]
pub struct Positions {
    /// What unlisted collections start from, and what records and partitions cannot be older than.
    bases: Bases,
    position: AtomicI64,
    schema: AtomicI64,
    purges: AtomicU64,
    purged: OnceLock<Box<[AtomicU64]>>,
    collections: ArcSwap<HashMap<CollectionId, Arc<CollectionPositions>>>,
    /// Held by whoever raises positions (the tenant's one writer, an attach, a purge); never by a reader.
    raising: Mutex<()>,
    mutation: Option<Mutation>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bases {
    unlisted: i64,
    records: i64,
}

#[derive(Debug)]
struct CollectionPositions {
    position: AtomicI64,
    records: Slots,
    partitions: Slots,
}

impl CollectionPositions {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.records.weight() + self.partitions.weight()
    }
}

impl Positions {
    /// A tenant of which nothing is known yet; in-memory answers are already exact, answers from disk are not usable.
    pub fn unseeded(mutation: Option<Mutation>) -> Self {
        Self {
            bases: Bases::default(),
            position: AtomicI64::new(0),
            schema: AtomicI64::new(0),
            purges: AtomicU64::new(0),
            purged: OnceLock::new(),
            collections: ArcSwap::default(),
            raising: Mutex::new(()),
            mutation,
        }
    }

    /// A tenant whose file says `seed`.
    pub fn seeded(seed: &Seed, mutation: Option<Mutation>) -> Self {
        let mut positions = Self::unseeded(mutation);
        positions.position = AtomicI64::new(seed.lsn);
        if mutation == Some(Mutation::RestartForgetsPositions) {
            return positions;
        }
        let whole = mutation == Some(Mutation::TailTakenForWhole);
        positions.bases = Bases { unlisted: seed.unlisted_lsn, records: if whole { 0 } else { seed.tail_after } };
        positions.schema = AtomicI64::new(seed.schema_lsn);
        let mut lasts: HashMap<&CollectionId, i64> = HashMap::new();
        for generation in &seed.generations {
            let last = lasts.entry(&generation.collection).or_default();
            *last = generation.lsn.max(*last);
        }
        // Whole collections first: their position bounds what their records start from.
        for (collection, lsn) in lasts {
            positions.ensure(collection, lsn);
        }
        for generation in &seed.generations {
            if let Some(hash) = generation.partition {
                positions.ensure(&generation.collection, 0).partitions.raise(hash, generation.lsn);
            }
        }
        for touched in &seed.tail {
            positions.touch(touched);
        }
        positions
    }

    /// The position of the last commit that was observed.
    pub fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// The position of the last schema change: whatever was right before it alone serves nobody.
    pub(crate) fn schema_position(&self) -> i64 {
        self.schema.load(Ordering::Acquire)
    }

    /// Where the tenant stands now; take it before the snapshot opens.
    pub fn stamp(&self) -> Stamp {
        Stamp { at: self.position(), purges: self.purges.load(Ordering::Acquire) }
    }

    /// Takes note of a commit. Called after COMMIT and before the acknowledgement.
    pub fn on_commit(&self, last_lsn: i64, schema_changed: bool, touches: &[Touched]) {
        let _raising = self.raising.lock();
        if self.mutation == Some(Mutation::PositionPublishedFirst) {
            self.position.fetch_max(last_lsn, Ordering::AcqRel);
            std::thread::yield_now();
        }
        for touched in touches {
            self.touch(touched);
        }
        if schema_changed && self.mutation != Some(Mutation::SchemaChangeIgnored) {
            self.schema.fetch_max(last_lsn, Ordering::AcqRel);
        }
        // Published last: see the header.
        self.position.fetch_max(last_lsn, Ordering::AcqRel);
    }

    /// Makes every answer void that was stamped before now.
    pub fn void_all(&self) {
        let _raising = self.raising.lock();
        let next = self.purges.load(Ordering::Acquire) + 1;
        for slot in self.purge_slots() {
            slot.store(next, Ordering::Release);
        }
        self.purges.store(next, Ordering::Release);
    }

    /// Makes every answer void that carries `mark` and was stamped before now.
    pub fn void_mark(&self, mark: u64) {
        let _raising = self.raising.lock();
        let next = self.purges.load(Ordering::Acquire) + 1;
        let slots = self.purge_slots();
        for place in purge_places(mark, slots.len()) {
            if let Some(slot) = slots.get(place) {
                slot.store(next, Ordering::Release);
            }
        }
        self.purges.store(next, Ordering::Release);
    }

    /// The purge counter and table, for the disk tier to keep.
    pub fn purge_table(&self) -> (u64, Vec<u64>) {
        let _raising = self.raising.lock();
        (
            self.purges.load(Ordering::Acquire),
            self.purge_slots().iter().map(|slot| slot.load(Ordering::Acquire)).collect(),
        )
    }

    /// Continues a purge table that the disk tier kept.
    pub fn adopt_purge_table(&self, purges: u64, table: &[u64]) {
        let _raising = self.raising.lock();
        for (slot, kept) in self.purge_slots().iter().zip(table) {
            slot.fetch_max(*kept, Ordering::AcqRel);
        }
        self.purges.fetch_max(purges, Ordering::AcqRel);
    }

    /// Bytes these tables occupy.
    pub fn weight(&self) -> usize {
        let purged = self.purged.get().map_or(0, |slots| slots.len() * size_of::<AtomicU64>());
        let collections = self.collections.load();
        let tables = collections.iter().map(|(id, one)| id.as_str().len() + one.weight()).sum::<usize>();
        size_of::<Self>() + purged + tables
    }

    /// Ties `dependencies` and `marks` to this tenant's positions.
    pub fn prove(self: &Arc<Self>, stamp: Stamp, dependencies: &Dependencies, marks: Box<[u64]>) -> Proof {
        let watched = dependencies
            .as_slice()
            .iter()
            .map(|dependency| match dependency {
                Dependency::Record(id, hash) => Watch::Record(self.find_or_make(id), *hash),
                Dependency::Collection(id) => Watch::Collection(self.find_or_make(id)),
                Dependency::Partition(id, hash) => Watch::Partition(self.find_or_make(id), *hash),
            })
            .collect();
        Proof {
            positions: Arc::clone(self),
            at: AtomicI64::new(stamp.at),
            purges: AtomicU64::new(stamp.purges),
            watched,
            marks,
        }
    }

    fn find_or_make(&self, id: &CollectionId) -> Arc<CollectionPositions> {
        if let Some(found) = self.collections.load().get(id) {
            return Arc::clone(found);
        }
        let _raising = self.raising.lock();
        self.ensure(id, self.bases.unlisted)
    }

    /// The caller holds `raising` or is the constructor.
    fn ensure(&self, id: &CollectionId, lsn: i64) -> Arc<CollectionPositions> {
        let present = self.collections.load();
        if let Some(found) = present.get(id) {
            return Arc::clone(found);
        }
        let lsn = lsn.max(self.bases.unlisted);
        let made = Arc::new(CollectionPositions {
            position: AtomicI64::new(lsn),
            records: Slots::new(lsn.min(self.bases.records), RECORD_SLOTS_MAX),
            partitions: Slots::new(lsn.min(self.bases.unlisted), PARTITION_SLOTS_MAX),
        });
        let mut next = HashMap::clone(&present);
        next.insert(id.clone(), Arc::clone(&made));
        self.collections.store(Arc::new(next));
        made
    }

    fn touch(&self, touched: &Touched) {
        let collection = match self.collections.load().get(&touched.collection) {
            Some(found) => Arc::clone(found),
            None => self.ensure(&touched.collection, self.bases.unlisted),
        };
        if self.mutation != Some(Mutation::RecordsIgnored) {
            collection.records.raise(record_hash(touched.record.as_str()), touched.lsn);
        }
        if self.mutation != Some(Mutation::PartitionsIgnored) {
            for value in &touched.partitions {
                collection.partitions.raise(value_hash(value), touched.lsn);
            }
        }
        if self.mutation != Some(Mutation::CollectionsIgnored) {
            collection.position.fetch_max(touched.lsn, Ordering::AcqRel);
        }
    }

    fn purge_slots(&self) -> &[AtomicU64] {
        self.purged.get_or_init(|| (0..PURGE_SLOTS).map(|_| AtomicU64::new(0)).collect())
    }

    /// The purge counter at which `mark` was last purged.
    fn purged_at(&self, mark: u64) -> u64 {
        let Some(slots) = self.purged.get() else { return 0 };
        // Its purge raised both; where only one is raised, another mark was purged. An impossible miss reads as "just purged".
        let read = |place: usize| slots.get(place).map_or(u64::MAX, |slot| slot.load(Ordering::Acquire));
        purge_places(mark, slots.len()).map(read).into_iter().min().unwrap_or(u64::MAX)
    }
}

/// The evidence an answer carries that it is still right; what every hit looks at comes first.
#[derive(Debug)]
#[repr(C)]
pub struct Proof {
    positions: Arc<Positions>,
    at: AtomicI64,
    purges: AtomicU64,
    watched: Box<[Watch]>,
    marks: Box<[u64]>,
}

#[derive(Debug)]
enum Watch {
    Record(Arc<CollectionPositions>, u64),
    Collection(Arc<CollectionPositions>),
    Partition(Arc<CollectionPositions>, u64),
}

impl Watch {
    fn position(&self) -> i64 {
        match self {
            Self::Record(collection, hash) => collection.records.get(*hash),
            Self::Collection(collection) => collection.position.load(Ordering::Acquire),
            Self::Partition(collection, hash) => collection.partitions.get(*hash),
        }
    }
}

impl Proof {
    /// The log position up to which the answer is known to be right; it advances as checks succeed.
    pub fn at(&self) -> i64 {
        self.at.load(Ordering::Acquire)
    }

    /// The purge counter up to which the answer is known not to be purged.
    pub fn purges(&self) -> u64 {
        self.purges.load(Ordering::Acquire)
    }

    /// Whether nothing that the answer depends on has moved. Without writes in between: two atomic loads.
    pub fn is_current(&self) -> bool {
        // Read the position first: a success then proves the answer right up to it, and the stamp may advance.
        let now = self.positions.stamp();
        let at = self.at();
        if now.at > at {
            if self.positions.schema.load(Ordering::Acquire) > at || self.watched.iter().any(|one| one.position() > at)
            {
                return false;
            }
            let past = self.positions.mutation == Some(Mutation::ProofAdvancedPastCheck);
            let proven = if past {
                std::thread::yield_now();
                self.positions.position()
            } else {
                now.at
            };
            self.at.fetch_max(proven, Ordering::AcqRel);
        }
        let purges = self.purges();
        if now.purges > purges {
            let voided = self.marks.iter().any(|mark| self.positions.purged_at(*mark) > purges);
            if voided && self.positions.mutation != Some(Mutation::PurgeIgnored) {
                return false;
            }
            self.purges.fetch_max(now.purges, Ordering::AcqRel);
        }
        true
    }

    /// Whether the answer serves a caller that arrived at `arrival`: taken no earlier, or nothing moved since.
    pub fn serves(&self, arrival: Stamp) -> bool {
        (self.at() >= arrival.at && self.purges() >= arrival.purges) || self.is_current()
    }

    /// Bytes this evidence occupies, for weighing.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.watched.len() * size_of::<Watch>() + self.marks.len() * size_of::<u64>()
    }
}

/// Last positions by hash, in a table that doubles while ids crowd it; doubling copies each slot to both its heirs.
#[derive(Debug)]
struct Slots {
    table: ArcSwap<Table>,
    len_max: usize,
}

#[derive(Debug)]
struct Table {
    slots: Box<[AtomicI64]>,
    /// Largest position that was copied in when this table was made.
    inherited: i64,
    /// Slots raised above `inherited` since.
    raised: AtomicUsize,
}

impl Slots {
    fn new(base: i64, len_max: usize) -> Self {
        let slots = (0..SLOTS_MIN).map(|_| AtomicI64::new(base)).collect();
        Self { table: ArcSwap::from_pointee(Table { slots, inherited: base, raised: AtomicUsize::new(0) }), len_max }
    }

    fn get(&self, hash: u64) -> i64 {
        let table = self.table.load();
        // An impossible miss reads as "just changed", never as "unchanged".
        table.slots.get(slot_of(hash, table.slots.len())).map_or(i64::MAX, |slot| slot.load(Ordering::Acquire))
    }

    fn weight(&self) -> usize {
        size_of::<Table>() + self.table.load().slots.len() * size_of::<AtomicI64>()
    }

    /// Callers hold the tenant's `raising` lock, so growth and raising never race.
    fn raise(&self, hash: u64, lsn: i64) {
        let table = self.table.load();
        let len = table.slots.len();
        let Some(slot) = table.slots.get(slot_of(hash, len)) else { return };
        let before = slot.fetch_max(lsn, Ordering::AcqRel);
        if before <= table.inherited && lsn > table.inherited {
            let raised = table.raised.fetch_add(1, Ordering::Relaxed) + 1;
            if raised > len / 4 && len < self.len_max {
                self.table.store(Arc::new(Self::doubled(&table)));
            }
        }
    }

    fn doubled(table: &Table) -> Table {
        let old: Vec<i64> = table.slots.iter().map(|slot| slot.load(Ordering::Acquire)).collect();
        let inherited = old.iter().copied().max().unwrap_or(0);
        let slots = old.iter().chain(old.iter()).map(|lsn| AtomicI64::new(*lsn)).collect();
        Table { slots, inherited, raised: AtomicUsize::new(0) }
    }
}

/// The two slots of a mark, so that a purge of one mark takes answers of another along only where both slots are raised.
fn purge_places(mark: u64, len: usize) -> [usize; 2] {
    [slot_of(mark, len), slot_of(mark >> 32, len)]
}

fn slot_of(hash: u64, len: usize) -> usize {
    usize::try_from(hash & 0xffff_ffff).unwrap_or(0) & len.saturating_sub(1)
}

/// The hash by which a record is watched; stable across versions because answers on disk carry it.
pub fn record_hash(id: &str) -> u64 {
    mixed(1, id.as_bytes().iter())
}

/// The hash by which a partition value is watched; equal numbers hash alike whatever their storage class.
pub fn value_hash(value: &Stored) -> u64 {
    match value {
        Stored::Null => mixed(2, [0].iter()),
        Stored::Integer(_) | Stored::Real(_) => {
            // -0.0 and 0.0 are one value to SQLite.
            let number = value.as_number().unwrap_or(0.0) + 0.0;
            mixed(2, [1].iter().chain(&number.to_be_bytes()))
        }
        Stored::Text(text) => mixed(2, [2].iter().chain(text.as_bytes())),
        Stored::Blob(bytes) => mixed(2, [3].iter().chain(bytes.iter())),
    }
}

/// The same hash from the bytes that the tenant's file keeps for a partition: a tag (0 NULL, 1 number, 2 text, 3 blob)
/// and the value, numbers as big-endian doubles.
pub fn partition_hash(bytes: &[u8]) -> u64 {
    const MINUS_ZERO: [u8; 9] = [1, 0x80, 0, 0, 0, 0, 0, 0, 0];
    if bytes == MINUS_ZERO { value_hash(&Stored::Real(0.0)) } else { mixed(2, bytes.iter()) }
}

/// The hash by which a tag, collection or key is purged.
pub fn mark_hash(kind: u8, text: &str) -> u64 {
    mixed(kind, text.as_bytes().iter())
}

/// FNV-1a with a final avalanche (SplitMix64); speed matters, and a forced collision only costs an extra load.
fn mixed<'bytes>(domain: u8, bytes: impl Iterator<Item = &'bytes u8>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in std::iter::once(domain).chain(bytes.copied()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
