//! Accounts and sessions that were read lately, kept in memory so that a request's token costs no read.
//!
//! Keeps true: a record that a commit touched is gone from here before that commit is acknowledged, so a revoked session,
//! a rotated token key or a deleted account is refused on the very next request; a record read before such a commit is
//! not kept after it; whoever found a record can tell later, without a lock, whether it may have left since. Losable at any moment. Bound: [`limits::KNOWN_ACCOUNTS_MAX`] records.
//! Does not do: deciding on tokens; remembering what is not there (a flood of made-up ids must not push out real ones), but
//! for one thing, that an account which is there has no suspension.

use crate::kernel::ident::{CollectionId, RecordId, TenantId};
use crate::kernel::limits;
use crate::query::request::AuthRecord;
use crate::store::{Commit, CommitObserver};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SHARDS: usize = 64;

/// Names one record of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) tenant: TenantId,
    pub(super) collection: CollectionId,
    pub(super) record: RecordId,
}

/// The moment of a miss; what is read after it may be kept unless a commit came between.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket(u64);

/// The moment at which a record was found; [`Known::stands`] tells whether it is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    shard: usize,
    taken: u64,
}

/// The records; shared by every worker and the commit observer, one short lock per shard.
#[derive(Debug)]
pub struct Known {
    shards: Vec<Place>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Place {
    /// Counts records that left or were replaced. Raised under the shard's lock, read without it.
    taken: AtomicU64,
    shard: Mutex<Shard>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Counts what was taken out; a ticket of an older count does not put anything in.
    generation: u64,
    /// `None` stands for a record that is known not to be there.
    records: HashMap<Key, Option<Arc<AuthRecord>>>,
}

impl Default for Known {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Place::default()).collect(), hasher: RandomState::new() }
    }
}

impl Known {
    fn index(&self, key: &Key) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits choose a shard")]
        let hash = self.hasher.hash_one(key) as usize;
        hash % SHARDS
    }

    fn place(&self, index: usize) -> &Place {
        self.shards.get(index).expect("invariant: the index is below the number of shards")
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.place(self.index(key)).shard
    }

    /// The record, or the ticket with which to keep it once it is read.
    pub(super) fn find(&self, key: &Key) -> Result<Option<Arc<AuthRecord>>, Ticket> {
        let shard = self.shard(key).lock();
        shard.records.get(key).cloned().ok_or(Ticket(shard.generation))
    }

    /// The record, and by what to tell later whether it is still here.
    pub(super) fn find_seen(&self, key: &Key) -> Option<(Option<Arc<AuthRecord>>, Seen)> {
        let index = self.index(key);
        let place = self.place(index);
        let shard = place.shard.lock();
        let record = shard.records.get(key).cloned()?;
        // Under the lock, so that the count is that of the moment of finding.
        Some((record, Seen { shard: index, taken: place.taken.load(Ordering::Acquire) }))
    }

    /// Whether no record of that shard has left since: one load, no lock. `false` proves nothing; ask again.
    pub(super) fn stands(&self, seen: Seen) -> bool {
        self.place(seen.shard).taken.load(Ordering::Acquire) == seen.taken
    }

    /// A ticket of now.
    pub(super) fn ticket(&self, key: &Key) -> Ticket {
        Ticket(self.shard(key).lock().generation)
    }

    /// Keeps `record`, unless something was taken out of its shard since `ticket`.
    pub(super) fn keep(&self, key: Key, ticket: Ticket, record: Option<Arc<AuthRecord>>) {
        let place = self.place(self.index(&key));
        let mut shard = place.shard.lock();
        if shard.generation != ticket.0 {
            return;
        }
        let mut left = None;
        if shard.records.len() >= limits::KNOWN_ACCOUNTS_MAX / SHARDS
            && let Some(any) = shard.records.keys().next().cloned()
        {
            left = shard.records.remove(&any);
        }
        if shard.records.insert(key, record).or(left).is_some() {
            place.taken.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Forgets everything of `tenant`; for whoever replaces or removes a tenant's file.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        for place in &self.shards {
            let mut shard = place.shard.lock();
            shard.generation += 1;
            shard.records.retain(|key, _| &key.tenant != tenant);
            place.taken.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn forget(&self, key: &Key) {
        let place = self.place(self.index(key));
        let mut shard = place.shard.lock();
        shard.generation += 1;
        // Only what was here can have been seen here; so a flood of other writes leaves those who were seen alone.
        if shard.records.remove(key).is_some() {
            place.taken.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl CommitObserver for Known {
    fn committed(&self, tenant: &TenantId, commit: &Commit) {
        if commit.schema_changed {
            self.forget_tenant(tenant);
        }
        for touch in &commit.touches {
            self.forget(&Key {
                tenant: tenant.clone(),
                collection: touch.collection.clone(),
                record: touch.record.clone(),
            });
        }
    }
}
