//! Between memory and disk: what is written when, under which key, and what must hold before it is believed again.
//!
//! Keeps true: an answer from disk is used only if it is whole, was filed under exactly this key, continues the same
//! history of the file, was written by this very build of the program, is current by the file's own positions, and the file still holds the very transaction up to which
//! the disk has seen it, so one that went back, or back and on again, is noticed. Purges outlive a restart or take the whole disk tier with them.
//! Does not do: disk I/O (`disk`), encoding (`envelope`).

use crate::cache::Shared;
use crate::cache::disk::{DiskRead, DiskState, GroupUsage};
use crate::cache::entry::{self, Entry};
use crate::cache::envelope::Envelope;
use crate::cache::key::KeyParts;
use crate::cache::memory::Held;
use crate::cache::mutation::Mutation;
use crate::cache::purge;
use crate::cache::stamp::{Mark, PURGE_SLOTS, Stamp};
use crate::cache::stats::{AgeSum, Counters, TenantReport};
use crate::cache::tenant::{DiskPart, High, Origin, Part, Request, SeedFacts};
use crate::cache::warm;
use crate::kernel::ident::TenantId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// First byte of each keyspace; answers, bookkeeping and the application's values never meet.
const ANSWERS: u8 = b'r';
const TENANTS: u8 = b'm';
const HIGHS: u8 = b'h';
const WARM: u8 = b'w';

/// The part of the disk tier's bytes that one tenant may have while others are active, as a divisor.
const DISK_SHARES: u64 = 4;

/// 3: a purge raises two slots. What was purged by one slot alone would not be known any more.
const META_VERSION: u8 = 3;
const META_HEAD: usize = 1 + 8 + 16 + 8 + 8;

/// Where an answer on disk claims to come from.
#[derive(Clone, Copy)]
struct Origins {
    seed: SeedFacts,
    epoch: u64,
}

/// What the disk tier remembers about a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Meta {
    generation: u64,
    lineage: [u8; 16],
    /// Which build of the program wrote the answers.
    build: u64,
    purges: u64,
    purged: Vec<u64>,
}

impl Meta {
    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(META_HEAD + self.purged.len() * 8);
        out.push(META_VERSION);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.lineage);
        out.extend_from_slice(&self.build.to_le_bytes());
        out.extend_from_slice(&self.purges.to_le_bytes());
        for slot in &self.purged {
            out.extend_from_slice(&slot.to_le_bytes());
        }
        Bytes::from(out)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, table) = bytes.split_at_checked(META_HEAD)?;
        if head.first() != Some(&META_VERSION) {
            return None;
        }
        let number = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
        let purged: Vec<u64> =
            table.chunks_exact(8).filter_map(|slot| Some(u64::from_le_bytes(slot.try_into().ok()?))).collect();
        if !(purged.is_empty() || purged.len() == PURGE_SLOTS) || purged.len() * 8 != table.len() {
            return None;
        }
        let lineage = head.get(9..25)?.try_into().ok()?;
        Some(Self { generation: number(1)?, lineage, build: number(25)?, purges: number(33)?, purged })
    }
}

/// Which purges a new one was counted together with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Those that the disk keeps: they were read before.
    WithKept,
    /// Those of this process alone; the disk could not be asked.
    Alone,
}

impl Shared {
    /// Reads an answer from disk; `None` for anything but a whole, matching, current one.
    pub(crate) async fn read_disk(&self, part: &Part, request: Request<'_>) -> Option<Arc<Held>> {
        let seed = part.seed?;
        let epoch = self.disk.epoch();
        let generation = self.disk_part(part, seed).await?.generation;
        let key = answer_key(&part.tenant, generation, request.key.digest());
        let DiskRead::Found(bytes) = self.disk.get(key.clone()).await else { return None };
        let found = self.judge(part, request, &bytes, Origins { seed, epoch });
        if found.is_none() && !part.is_retired() {
            // It will not become right again; its place is for others, and by then perhaps for another of the same key.
            self.disk.remove_this(key, bytes);
        }
        found
    }

    /// Whether the disk has an answer under the full text of a key that would be given to whoever asks.
    pub(crate) async fn has_on_disk(&self, part: &Part, parts: &KeyParts, digest: &[u8; 32]) -> bool {
        let Some(seed) = part.seed else { return false };
        let Some(disk) = self.disk_part(part, seed).await else { return false };
        let DiskRead::Found(bytes) = self.disk.get(answer_key(&part.tenant, disk.generation, digest)).await else {
            return false;
        };
        self.open_envelope(&bytes, seed).is_some_and(|found| {
            let marks = purge::marks_of(parts, digest, &found.tags, &found.dependencies);
            let stamp = Stamp { at: found.at, purges: found.purges };
            part.positions.prove(stamp, &found.dependencies, marks).is_current()
        })
    }

    /// What is in `bytes`, if it is whole, of this history of the file, and its time is not over.
    fn open_envelope(&self, bytes: &Bytes, seed: SeedFacts) -> Option<Envelope> {
        let envelope = Envelope::decode(bytes, self.mutation)?;
        // A second witness beside the marks: what was filed under another lineage never belongs here.
        let same_history = envelope.lineage == seed.lineage || self.mutation == Some(Mutation::RollbackUnnoticed);
        let over = entry::is_expired(envelope.created_ms, envelope.ttl_ms, self.clock.now_ms());
        (same_history && !over).then_some(envelope)
    }

    /// The answer in `bytes`, if it is whole, the one that was asked for, and current.
    fn judge(
        &self,
        part: &Part,
        request: Request<'_>,
        bytes: &Bytes,
        Origins { seed, epoch }: Origins,
    ) -> Option<Arc<Held>> {
        let envelope = self.open_envelope(bytes, seed)?;
        let same_key = envelope.key == request.key.to_string() || self.mutation == Some(Mutation::EnvelopeKeyUnchecked);
        if !same_key {
            return None;
        }
        let stamp = Stamp { at: envelope.at, purges: envelope.purges };
        let Envelope { body, etag, content_type, tags, created_ms, ttl_ms, dependencies, .. } = envelope;
        let entry = Entry::new(body, etag, content_type, tags, created_ms, ttl_ms);
        let held =
            part.hold(request, entry, dependencies, Origin { stamp, reach: stamp.at, persisted: epoch, apart: false });
        let current = held.proof.is_current() || self.mutation == Some(Mutation::DiskUnchecked);
        (current && !part.is_retired()).then_some(held)
    }

    /// Queues an answer for the disk, once. Never waits; what does not fit is not written. `false`: there was no room.
    pub(crate) fn persist(&self, held: &Held) -> bool {
        held.persisted.load(Ordering::Acquire) == self.disk.epoch() || self.write(held)
    }

    /// As [`Self::persist`], before the process ends: an answer about a record is written again if it was found right
    /// beyond the position noted with it, which a file that is opened anew may not be able to tell.
    pub(crate) fn persist_last(&self, held: &Held) -> bool {
        let behind = held.proof.at() > held.persisted_at.load(Ordering::Acquire);
        if behind && held.dependencies.name_records() { self.write(held) } else { self.persist(held) }
    }

    fn write(&self, held: &Held) -> bool {
        if !held.uses_disk {
            return true;
        }
        let epoch = self.disk.epoch();
        let Some(part) = self.parts.read().get(held.key.tenant()).cloned() else { return true };
        let Some((seed, disk)) = part.seed.zip(part.disk.get()) else { return true };
        let distrusted = part.disk_distrusted.load(Ordering::Acquire);
        if distrusted || part.is_retired() || !Arc::ptr_eq(&part.account, &held.account) {
            return true;
        }
        let key = answer_key(&part.tenant, disk.generation, held.key.digest());
        if !self.has_disk_share(&part.tenant) {
            self.refuse(held, key);
            return true;
        }
        let envelope = envelope_of(held, seed);
        let written_at = envelope.at;
        let (at, head) = (written_at.max(held.reach), *part.head.lock());
        if at > head.lsn && self.mutation != Some(Mutation::UnheardCommitPersisted) {
            // Read from a commit of which the cache has not heard yet; the next round knows more.
            return true;
        }
        let mut high = disk.high.lock();
        if high.epoch != epoch {
            // The store was replaced by an empty one, which knows nothing of the tenant yet.
            if !self.disk.put(meta_key(&part.tenant), self.meta_of(&part, seed, disk.generation).encode()) {
                return false;
            }
            *high = High { lsn: i64::MIN, epoch };
        }
        let (envelope, mut put) = (Bytes::from(envelope.encode()), true);
        if self.mutation == Some(Mutation::HighMarkAfterAnswer) {
            put = self.disk.put(key.clone(), envelope.clone());
        }
        // The mark goes first: an answer on disk must never be newer than what a rolled-back file is compared with.
        if at > high.lsn {
            if !self.disk.put(high_key(&part.tenant), mark_bytes(head)) {
                return false;
            }
            high.lsn = head.lsn;
        }
        if self.mutation != Some(Mutation::HighMarkAfterAnswer) {
            put = self.disk.put(key, envelope);
        }
        if put {
            held.persisted_at.store(written_at, Ordering::Release);
            held.persisted.store(epoch, Ordering::Release);
        }
        put
    }

    /// Notes, once, that an answer finds no room beside its tenant's others. What it would have replaced is older and goes,
    /// unless that is its own copy.
    fn refuse(&self, held: &Held, key: Vec<u8>) {
        if held.refused.swap(true, Ordering::Relaxed) {
            return;
        }
        Counters::bump(&held.counters.disk_refused);
        self.sweeping.want_room();
        if held.persisted.load(Ordering::Acquire) != self.disk.epoch() {
            self.disk.remove(key);
        }
    }

    /// Whether a tenant may have more on disk: alone everything, beside others a quarter.
    fn has_disk_share(&self, tenant: &TenantId) -> bool {
        let alone = self.active_tenants.load(Ordering::Relaxed) <= 1;
        alone || self.disk_usage(tenant).bytes < self.disk_bytes_max / DISK_SHARES
    }

    pub(crate) fn disk_usage(&self, tenant: &TenantId) -> GroupUsage {
        self.disk.usage(&tenant_key(ANSWERS, tenant))
    }

    /// What is told of a part.
    pub(crate) fn report(&self, part: &Part, ages: &HashMap<TenantId, AgeSum>) -> TenantReport {
        part.report(ages, self.disk_usage(&part.tenant))
    }

    /// Makes the tenant's purges outlive a restart; where that is not certain, the disk tier is emptied instead.
    ///
    /// `counted` is what [`Self::prepare_purge`] said before the purge.
    pub(crate) async fn persist_purges(&self, part: &Part, counted: Counted) {
        if self.disk.stats().state == DiskState::Off || self.mutation == Some(Mutation::PurgeNotKept) {
            return;
        }
        let seed = part.seed.filter(|_| !part.disk_distrusted.load(Ordering::Acquire));
        let Some(seed) = seed else { return self.disown(part).await };
        let mut anew = false;
        let opened = part.disk.get_or_try_init(|| {
            anew = true;
            self.begin_generation(part, seed, None)
        });
        let Ok(disk) = opened.await else {
            part.disk_distrusted.store(true, Ordering::Release);
            return self.disown(part).await;
        };
        if counted == Counted::Alone && !anew && self.mutation != Some(Mutation::PurgeOrderIgnored) {
            // Opened by somebody else since: kept purges and this one have no order. Whatever was read there meanwhile may
            // be what was to be forgotten.
            part.positions.void_all();
            return self.distrust(part);
        }
        let meta = self.meta_of(part, seed, disk.generation);
        if !self.disk.put_surely(meta_key(&part.tenant), meta.encode()).await {
            self.distrust(part);
        }
    }

    /// Opens the tenant's side of the disk ahead of a purge, so that kept and new purges are counted in one sequence.
    pub(crate) async fn prepare_purge(&self, part: &Part) -> Counted {
        let opened = match part.seed {
            Some(seed) => self.disk_part(part, seed).await,
            None => None,
        };
        if opened.is_some() { Counted::WithKept } else { Counted::Alone }
    }

    /// Writes the list of hot keys, an empty one too where that may be: what a deleted tenant asked for stays nowhere.
    pub(crate) fn persist_hot(&self) {
        let hot = {
            let hot = self.hot.lock();
            hot.may_replace().then(|| hot.ranked(self.clock.now_ms()))
        };
        if let Some(hot) = hot {
            self.disk.put(vec![WARM], warm::encode(&hot));
        }
    }

    /// Reads the list of hot keys that an earlier process wrote; `None` if the disk does not answer.
    pub(crate) async fn read_hot(&self) -> Option<Vec<warm::HotKey>> {
        match self.disk.get(vec![WARM]).await {
            DiskRead::Found(bytes) => Some(warm::decode(&bytes)),
            DiskRead::Absent => Some(Vec::new()),
            DiskRead::Failed => None,
        }
    }

    fn meta_of(&self, part: &Part, seed: SeedFacts, generation: u64) -> Meta {
        let (purges, purged) = part.positions.purge_table();
        Meta { generation, lineage: seed.lineage, build: self.build, purges, purged }
    }

    /// Leaves everything the disk has of a tenant unreachable: a record that cannot be read starts a new generation.
    async fn disown(&self, part: &Part) {
        if !self.disk.put_surely(meta_key(&part.tenant), Bytes::new()).await {
            self.distrust(part);
        }
    }

    fn distrust(&self, part: &Part) {
        part.disk_distrusted.store(true, Ordering::Release);
        self.disk.discard("a purge could not be recorded");
    }

    async fn disk_part<'part>(&self, part: &'part Part, seed: SeedFacts) -> Option<&'part DiskPart> {
        if part.disk_distrusted.load(Ordering::Acquire) {
            return None;
        }
        let opened = part.disk.get_or_try_init(|| self.open_disk_part(part, seed)).await.ok();
        // A purge may have found meanwhile that it cannot be recorded.
        opened.filter(|_| !part.disk_distrusted.load(Ordering::Acquire))
    }

    async fn open_disk_part(&self, part: &Part, seed: SeedFacts) -> Result<DiskPart, ()> {
        let epoch = self.disk.epoch();
        let meta = match self.disk.get(meta_key(&part.tenant)).await {
            DiskRead::Found(bytes) => Meta::decode(&bytes),
            DiskRead::Absent => None,
            DiskRead::Failed => return Err(()),
        };
        // Whatever was written to disk came from a history in which this stood there. A record that is missing, or a mark
        // that the file does not know, proves nothing.
        let high = self.read_high(&part.tenant).await?;
        let known = high.is_some_and(|high| high == Mark::START || part.marks.contains(&high));
        let went_back = !known && self.mutation != Some(Mutation::RollbackUnnoticed);
        if let Some(meta) = &meta {
            let same_history = meta.lineage == seed.lineage || self.mutation == Some(Mutation::RollbackUnnoticed);
            let same_build = meta.build == self.build || self.mutation == Some(Mutation::OtherBuildBelieved);
            if same_history && same_build && !went_back {
                part.positions.adopt_purge_table(meta.purges, &meta.purged);
                let high = Mutex::new(High { lsn: high.map_or(0, |high| high.lsn), epoch });
                return Ok(DiskPart { generation: meta.generation, high });
            }
        }
        self.begin_generation(part, seed, meta.map(|meta| meta.generation)).await
    }

    /// Leaves behind whatever the disk has of the tenant; `last` is the generation it was in, where that is known.
    async fn begin_generation(&self, part: &Part, seed: SeedFacts, last: Option<u64>) -> Result<DiskPart, ()> {
        let epoch = self.disk.epoch();
        // Time makes generations unique even where the record of the last one was lost and its answers were not.
        let now = u64::try_from(self.clock.now_ms()).unwrap_or(0);
        let reused = last.filter(|_| self.mutation == Some(Mutation::GenerationReused));
        let generation = reused.unwrap_or_else(|| last.map_or(now, |last| now.max(last + 1)));
        // With the purges of this process: its answers are stamped by their count.
        let recorded = self.disk.put(meta_key(&part.tenant), self.meta_of(part, seed, generation).encode())
            && self.disk.put(high_key(&part.tenant), mark_bytes(Mark::START));
        let high = Mutex::new(High { lsn: 0, epoch });
        self.sweeping.want();
        if recorded { Ok(DiskPart { generation, high }) } else { Err(()) }
    }
}

impl Shared {
    /// The highest position that the disk has seen of a tenant; `Ok(None)` for none, or none that can be read.
    pub(crate) async fn read_high(&self, tenant: &TenantId) -> Result<Option<Mark>, ()> {
        match self.disk.get(high_key(tenant)).await {
            DiskRead::Found(bytes) => Ok(mark_of(&bytes)),
            DiskRead::Absent => Ok(None),
            DiskRead::Failed => Err(()),
        }
    }
}

fn mark_bytes(mark: Mark) -> Bytes {
    Bytes::from([mark.lsn.to_le_bytes(), mark.stamp.to_le_bytes()].concat())
}

fn mark_of(bytes: &[u8]) -> Option<Mark> {
    let (lsn, stamp) = bytes.split_first_chunk::<8>()?;
    Some(Mark { lsn: i64::from_le_bytes(*lsn), stamp: i64::from_le_bytes(stamp.try_into().ok()?) })
}

fn envelope_of(held: &Held, seed: SeedFacts) -> Envelope {
    Envelope {
        key: held.key.to_string(),
        lineage: seed.lineage,
        at: held.proof.at(),
        purges: held.proof.purges(),
        created_ms: held.entry.created_ms(),
        ttl_ms: held.entry.ttl_ms(),
        etag: *held.entry.etag(),
        content_type: Arc::clone(held.entry.content_type()),
        tags: held.entry.tags().to_vec(),
        dependencies: held.dependencies.clone(),
        body: held.entry.body().clone(),
    }
}

/// What is counted together on disk: the answers of one tenant.
pub(crate) fn group_of(key: &[u8]) -> Option<&[u8]> {
    let (&keyspace, rest) = key.split_first()?;
    let len = usize::from(*rest.first()?);
    (keyspace == ANSWERS).then(|| key.get(..2 + len)).flatten()
}

/// The tenant and the generation of an answer's key; `None` for any other key.
pub(crate) fn answer_place(key: &[u8]) -> Option<(TenantId, u64)> {
    let group = group_of(key)?;
    let tenant = TenantId::parse(std::str::from_utf8(group.get(2..)?).ok()?).ok()?;
    let (generation, _) = key.get(group.len()..)?.split_first_chunk::<8>()?;
    Some((tenant, u64::from_be_bytes(*generation)))
}

/// Generation before digest: raising the generation leaves every older answer unreachable, without a scan.
fn answer_key(tenant: &TenantId, generation: u64, digest: &[u8; 32]) -> Vec<u8> {
    let mut key = tenant_key(ANSWERS, tenant);
    key.extend_from_slice(&generation.to_be_bytes());
    key.extend_from_slice(digest);
    key
}

fn meta_key(tenant: &TenantId) -> Vec<u8> {
    tenant_key(TENANTS, tenant)
}

fn high_key(tenant: &TenantId) -> Vec<u8> {
    tenant_key(HIGHS, tenant)
}

fn tenant_key(keyspace: u8, tenant: &TenantId) -> Vec<u8> {
    let text = tenant.as_str();
    let mut key = Vec::with_capacity(text.len() + 48);
    key.push(keyspace);
    // Tenant ids are at most 32 bytes; the length keeps `ab`+`c…` and `a`+`bc…` apart.
    key.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    key.extend_from_slice(text.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_record_of_a_tenant_comes_back_and_noise_does_not(
            (generation, build, purges) in any::<(u64, u64, u64)>(), lineage in any::<[u8; 16]>(), full in any::<bool>(),
            cut in 1_usize..30,
        ) {
            let purged = if full { vec![purges; PURGE_SLOTS] } else { Vec::new() };
            let meta = Meta { generation, lineage, build, purges, purged };
            let bytes = meta.encode();
            prop_assert_eq!(Meta::decode(&bytes), Some(meta));
            prop_assert_eq!(Meta::decode(&bytes[..bytes.len() - cut]), None);
        }
    }

    #[test]
    fn keys_of_tenants_never_overlap() {
        let (a, ab) = (TenantId::parse("a").unwrap(), TenantId::parse("ab").unwrap());
        assert!(!answer_key(&ab, 1, &[0; 32]).starts_with(&meta_key(&a)));
        assert!(!answer_key(&ab, 1, &[0; 32]).starts_with(&tenant_key(ANSWERS, &a)));
        assert_eq!(group_of(&answer_key(&ab, 1, &[0; 32])), Some(&*tenant_key(ANSWERS, &ab)));
        assert_eq!(answer_place(&answer_key(&ab, 7, &[0; 32])), Some((ab, 7)));
        assert_eq!((answer_place(&meta_key(&a)), answer_place(b"r\x01a\0")), (None, None));
        assert_eq!((group_of(&meta_key(&a)), group_of(b"r"), group_of(b"r\xffx")), (None, None, None));
    }
}
