//! The cache as record reads use it: which tenants it has been told about, and what a read through it answers.
//!
//! Keeps true: a tenant's file is described to the cache before the first read of it goes there.
//! Does not do: reading ([`super::prepared`]), freshness (the cache compares positions), HTTP.

use super::prepared;
use super::read::{ListRequest, View};
use super::{Answer, PageLinks, RecordError, Scope};
use crate::cache::stamp::{Generation, Mark, Seed, Touched};
use crate::cache::{self, Cache, TenantCache};
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::store::{LogOp, LoggedTx, Reader, StoreError, TenantDb};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Transactions at the end of the log by which records are told from records that did not change.
const TAIL_LEN: i64 = 128;
/// Changed records of the tail at most.
const TAIL_TOUCHES_MAX: usize = 20_000;

/// The cache as record reads use it: which tenants it has been told about.
#[derive(Debug)]
pub struct RecordCache {
    cache: Cache,
    /// Tenants whose file has been, or is being, described to the cache. Bound: the open tenants, as of the last sweep.
    /// Every read looks; written when a tenant is opened, closed or deleted.
    attached: RwLock<HashMap<TenantId, Arc<OnceCell<()>>>>,
}

/// An answer with what a transport needs to send it well.
#[derive(Debug)]
pub struct Served {
    /// The bytes.
    pub body: ServedBody,
    /// Where a walk by cursor goes on.
    pub links: PageLinks,
    /// `Cache-Control`.
    pub cache_control: Arc<str>,
    /// `Cache-Tag`; empty for answers that depend on who asks.
    pub cache_tag: Option<Arc<str>>,
    /// Further names for `Vary`: headers that a rule or the policy looks at.
    pub vary: Option<Arc<str>>,
}

/// Bytes from the cache, with their compressed forms, or bytes made for this request alone.
#[derive(Debug)]
pub enum ServedBody {
    /// Through the cache.
    Kept(cache::Answer),
    /// Past it.
    Made(Answer),
}

/// Whether a caller wants the cache left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever is current.
    Current,
    /// Read again (`Cache-Control: no-cache` of a caller who may ask for it).
    Reload,
}

impl RecordCache {
    /// Reads through `cache`.
    pub fn new(cache: Cache) -> Self {
        Self { cache, attached: RwLock::default() }
    }

    /// The cache itself.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The tenant is gone.
    pub fn forget(&self, tenant: &TenantId) {
        self.attached.write().remove(tenant);
        self.cache.forget(tenant);
    }

    /// Closes the books on tenants whose handle is not among `open`: what is kept stays, what cost memory for nothing
    /// goes, and the next reader has the file described again.
    pub fn detach_closed(&self, open: &HashSet<TenantId>) {
        // Under the lock, so that no tenant is described between leaving the list and being detached.
        self.attached.write().retain(|tenant, _| {
            let stays = open.contains(tenant);
            if !stays {
                self.cache.detach(tenant);
            }
            stays
        });
    }

    /// The tenant's part. The first caller describes the file to the cache, which is one short read, and whoever comes
    /// meanwhile waits: what they loaded before would be thrown away.
    pub(super) async fn of(&self, tenant: &TenantDb) -> TenantCache {
        let known = self.attached.read().get(tenant.id()).is_some_and(|cell| cell.initialized());
        if !known {
            let cell = Arc::clone(self.attached.write().entry(tenant.id().clone()).or_default());
            cell.get_or_init(|| self.attach(tenant)).await;
        }
        self.cache.tenant(tenant.id())
    }

    async fn attach(&self, tenant: &TenantDb) {
        // From here on commits are noted; those before are in the file when it is read.
        let _noting = self.cache.tenant(tenant.id());
        // What the disk tier last saw of this file, so that the file can be asked whether that still stands there.
        let seen = self.cache.disk_position(tenant.id()).await;
        match tenant.read(move |reader| seed(reader, seen)).await {
            Ok(seed) => self.cache.attach(tenant.id(), &seed),
            // Memory serves all the same; the disk does not.
            Err(error) => tracing::warn!(tenant.id = %tenant.id(), %error, "the cache could not read positions"),
        }
    }
}

/// What the file says about positions; `seen` is what the disk tier last saw of it.
pub(super) fn seed(reader: &Reader<'_>, seen: Option<i64>) -> Result<Seed, StoreError> {
    let lsn = reader.lsn();
    let generations = reader
        .generations()?
        .into_iter()
        .map(|found| Generation::of_row(found.collection, &found.partition, found.lsn))
        .collect();
    let mut tail = Tail::read(reader, lsn)?;
    for lsn in seen.into_iter().chain([lsn]) {
        tail.marks.extend(reader.mark_at(lsn)?.map(|stamp| Mark { lsn, stamp }));
    }
    let lineage = reader.lineage()?.0;
    // A file from before that position was kept: no change of the schema is known before the tail.
    let schema_lsn = reader.schema_lsn()?.unwrap_or_else(|| tail.after.max(tail.schema_lsn));
    let Tail { after: tail_after, touches: tail, marks, .. } = tail;
    Ok(Seed { lineage, lsn, marks, schema_lsn, generations, unlisted_lsn: 0, tail, tail_after })
}

/// The end of the log, without a gap up to its last transaction.
#[derive(Debug, Default)]
struct Tail {
    /// The position after which nothing is missing.
    after: i64,
    touches: Vec<Touched>,
    marks: Vec<Mark>,
    /// The last change of the schema after `after`; 0 is none.
    schema_lsn: i64,
}

impl Tail {
    /// Reads the last transactions before `lsn`, fewer where they are large or the log was cut among them.
    fn read(reader: &Reader<'_>, lsn: i64) -> Result<Self, StoreError> {
        let mut tail = Self { after: lsn, ..Self::default() };
        reader.newest(lsn, limits::CACHE_TAIL_BYTES_MAX, &mut |tx| {
            tail.add(&tx);
            let full = lsn - tail.after >= TAIL_LEN || tail.touches.len() > TAIL_TOUCHES_MAX;
            if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(tail)
    }

    /// Puts the transaction before those that are here in front of them.
    fn add(&mut self, tx: &LoggedTx) {
        self.after = tx.lsn - 1;
        self.marks.push(Mark { lsn: tx.lsn, stamp: tx.frame.hlc.as_i64() });
        if tx.frame.ops.iter().any(|op| matches!(op, LogOp::Schema(_))) {
            self.schema_lsn = self.schema_lsn.max(tx.lsn);
        }
        self.touches.extend(tx.frame.ops.iter().filter_map(|op| touched(op, tx.lsn)));
    }
}

fn touched(op: &LogOp, lsn: i64) -> Option<Touched> {
    let (collection, record) = match op {
        LogOp::New { collection, record } | LogOp::Undel { collection, record } => (collection, &record.id),
        LogOp::Set { collection, id, .. } | LogOp::Inc { collection, id, .. } => (collection, id),
        LogOp::Del { collection, before } => (collection, &before.id),
        LogOp::Schema(_) => return None,
    };
    Some(Touched { collection: collection.clone(), record: record.clone(), partitions: Vec::new(), lsn })
}

/// Lists records; see [`super::read::list`].
pub async fn list(
    scope: &Scope,
    collection: &str,
    request: &ListRequest,
    freshness: Freshness,
) -> Result<Served, RecordError> {
    prepared::list(scope, collection, request).await?.answer(scope, freshness).await
}

/// Reads one record; see [`super::read::get`].
pub async fn get(
    scope: &Scope,
    collection: &str,
    id: &str,
    view: &View,
    freshness: Freshness,
) -> Result<Served, RecordError> {
    prepared::get(scope, collection, id, view).await?.answer(scope, freshness).await
}

/// The cursors at the end of a page; the body is the only thing that is kept.
pub(super) fn links_of(body: &[u8]) -> PageLinks {
    #[derive(serde::Deserialize)]
    struct Tail {
        #[serde(rename = "nextCursor")]
        next: Option<Arc<str>>,
        #[serde(rename = "prevCursor")]
        prev: Option<Arc<str>>,
    }
    const MARK: &[u8] = b",\"nextCursor\":";
    // The members stand behind `items`, so the last occurrence is theirs.
    let found = body.windows(MARK.len()).rposition(|window| window == MARK);
    let tail = found.and_then(|at| body.get(at + 1..)).map(|tail| [b"{", tail].concat());
    let parsed = tail.and_then(|tail| serde_json::from_slice::<Tail>(&tail).ok());
    parsed.map_or_else(PageLinks::default, |tail| PageLinks { next: tail.next, prev: tail.prev })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_found_behind_the_items() {
        let body = br#"{"page":1,"items":[{"meta":{"a":1,"nextCursor":"inner","prevCursor":null}}],"nextCursor":"n\"x","prevCursor":null}"#;
        let links = links_of(body);
        assert_eq!((links.next.as_deref(), links.prev.as_deref()), (Some("n\"x"), None));
        assert_eq!(links_of(br#"{"items":[]}"#), PageLinks::default());
    }
}
