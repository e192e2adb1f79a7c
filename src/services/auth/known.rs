//! Accounts and sessions that were read lately, kept in memory so that a request's token costs no read.
//!
//! Keeps true: a record that a commit touched is gone from here before that commit is acknowledged, so a revoked session,
//! a rotated token key or a deleted account is refused on the very next request; a record read before such a commit is
//! not kept after it. Losable at any moment. Bound: [`limits::KNOWN_ACCOUNTS_MAX`] records.
//! Does not do: deciding on tokens; remembering what is not there (a flood of made-up ids must not push out real ones).

use crate::kernel::ident::{CollectionId, RecordId, TenantId};
use crate::kernel::limits;
use crate::query::request::AuthRecord;
use crate::store::{Commit, CommitObserver};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;

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

/// The records; shared by every worker and the commit observer, one short lock per shard.
#[derive(Debug)]
pub struct Known {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    /// Counts what was taken out; a ticket of an older count does not put anything in.
    generation: u64,
    records: HashMap<Key, Arc<AuthRecord>>,
}

impl Default for Known {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Known {
    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits choose a shard")]
        let at = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards.get(at).expect("invariant: the index is below the number of shards")
    }

    /// The record, or the ticket with which to keep it once it is read.
    pub(super) fn find(&self, key: &Key) -> Result<Arc<AuthRecord>, Ticket> {
        let shard = self.shard(key).lock();
        shard.records.get(key).cloned().ok_or(Ticket(shard.generation))
    }

    /// A ticket of now.
    pub(super) fn ticket(&self, key: &Key) -> Ticket {
        Ticket(self.shard(key).lock().generation)
    }

    /// Keeps `record`, unless something was taken out of its shard since `ticket`.
    pub(super) fn keep(&self, key: Key, ticket: Ticket, record: Arc<AuthRecord>) {
        let mut shard = self.shard(&key).lock();
        if shard.generation != ticket.0 {
            return;
        }
        if shard.records.len() >= limits::KNOWN_ACCOUNTS_MAX / SHARDS
            && let Some(any) = shard.records.keys().next().cloned()
        {
            shard.records.remove(&any);
        }
        shard.records.insert(key, record);
    }

    /// Forgets everything of `tenant`; for whoever replaces or removes a tenant's file.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.generation += 1;
            shard.records.retain(|key, _| &key.tenant != tenant);
        }
    }

    fn forget(&self, key: &Key) {
        let mut shard = self.shard(key).lock();
        shard.generation += 1;
        shard.records.remove(key);
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
