//! Reading through the coherent cache: the same questions as [`super::read`], answered from memory or disk where nothing
//! that the answer depends on has moved.
//!
//! Keeps true: the key holds everything that shapes the bytes (statement, values, page, and of the caller what the rule
//! reads); what a rule decides without data is decided before the cache is asked. Does not do: freshness (the cache
//! compares positions), HTTP.

use super::keeping::Keeping;
use super::plans::Access;
use super::read::{self, GetTask, ListRequest, View};
use super::replay::Replay;
use super::{Answer, PageLinks, RecordError, Scope, hint};
use crate::cache::key::{CallerClass, Category, Key, Sub};
use crate::cache::stamp::{Dependencies, Generation, Seed, Touched};
use crate::cache::{self, Began, Cache, Request, TenantCache, entry::Loaded};
use crate::kernel::ident::{CollectionId, RecordId, TenantId};
use crate::query::request::{Place, RequestContext, RequestPath};
use crate::schema::cache_policy::Tier;
use crate::schema::{Collection, Schema};
use crate::store::{LogOp, Reader, StoreError, TenantDb};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
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
    async fn of(&self, tenant: &TenantDb) -> TenantCache {
        let known = self.attached.read().get(tenant.id()).is_some_and(|cell| cell.initialized());
        if !known {
            let cell = Arc::clone(self.attached.write().entry(tenant.id().clone()).or_default());
            cell.get_or_init(|| self.attach(tenant)).await;
        }
        self.cache.tenant(tenant.id())
    }

    async fn attach(&self, tenant: &TenantDb) {
        match tenant.read(seed).await {
            Ok(seed) => self.cache.attach(tenant.id(), &seed),
            // Memory serves all the same; the disk does not.
            Err(error) => tracing::warn!(tenant.id = %tenant.id(), %error, "the cache could not read positions"),
        }
    }
}

/// What the file says about positions.
fn seed(reader: &Reader<'_>) -> Result<Seed, StoreError> {
    let lsn = reader.lsn();
    let generations = reader
        .generations()?
        .into_iter()
        .map(|found| Generation::of_row(found.collection, &found.partition, found.lsn))
        .collect();
    let mut tail_after = (lsn - TAIL_LEN).max(0);
    let mut tail = Vec::new();
    for tx in reader.changes(tail_after, usize::try_from(TAIL_LEN).unwrap_or(0))? {
        if tx.frame.ops.iter().any(|op| matches!(op, LogOp::Schema(_))) || tail.len() > TAIL_TOUCHES_MAX {
            tail_after = tx.lsn;
            tail.clear();
            continue;
        }
        tail.extend(tx.frame.ops.iter().filter_map(|op| touched(op, tx.lsn)));
    }
    let lineage = reader.lineage()?.0;
    Ok(Seed { lineage, lsn, schema_lsn: tail_after, generations, unlisted_lsn: 0, tail, tail_after })
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

/// Lists records; see [`read::list`].
pub async fn list(
    scope: &Scope,
    collection: &str,
    request: &ListRequest,
    freshness: Freshness,
) -> Result<Served, RecordError> {
    // Before the schema is read: a rule that changes in between makes the answer look old.
    let cache = opened(scope).await;
    let schema = scope.tenant.schema();
    let task = read::plan_list(scope, &schema, collection, request)?;
    let (run, planned, planned_by) = (scope.clone(), task.clone(), Arc::clone(&schema));
    let load = async move || {
        let reading = run.clone();
        let task = planned.clone();
        let read =
            move |reader: &Reader<'_>| Loading::new(reader, &planned_by, read::load_list(reader, &reading, &task)?);
        let loaded = run.tenant.read(read).await;
        loaded.map_err(|error| hint::explain_cost(error, planned.collection(), planned.query()))
    };
    let Some(cache) = cache.filter(|_| is_kept(task.access(), task.keeping())) else {
        return load().await.map(|loading| made(loading.answer));
    };
    let partition = task.partition(&scope.request);
    let question = Question {
        category: task.category(),
        sub: Sub::Word(if task.walks() { "walk" } else { "page" }),
        bytes: task.cache_key(&scope.request),
        schema,
        dependencies: task.keeping().of_list(task.collection(), partition.as_ref()),
        record: None,
    };
    let answer = ask(scope, cache, task.collection(), task.keeping(), question, freshness, load).await?;
    let links = if task.walks() { links_of(answer.body()) } else { PageLinks::default() };
    Ok(served(scope, answer, task.keeping(), links, || Arc::clone(&task.keeping().list_tag)))
}

/// Reads one record; see [`read::get`].
pub async fn get(
    scope: &Scope,
    collection: &str,
    id: &str,
    view: &View,
    freshness: Freshness,
) -> Result<Served, RecordError> {
    let cache = opened(scope).await;
    let schema = scope.tenant.schema();
    let task = read::plan_get(scope, &schema, collection, id, view)?;
    let (run, planned, planned_by) = (scope.clone(), task.clone(), Arc::clone(&schema));
    let load = async move || {
        let reading = run.clone();
        let read =
            move |reader: &Reader<'_>| Loading::new(reader, &planned_by, read::load_get(reader, &reading, &planned)?);
        run.tenant.read(read).await
    };
    let Some(cache) = cache.filter(|_| is_kept(task.access(), task.keeping())) else {
        return load().await.map(|loading| made(loading.answer));
    };
    let question = Question::of_record(scope, &task, schema);
    let answer = ask(scope, cache, task.collection(), task.keeping(), question, freshness, load).await?;
    Ok(served(scope, answer, task.keeping(), PageLinks::default(), || task.keeping().tag_of(task.id())))
}

/// The tenant's cache, and where the tenant stands now.
struct Opened {
    cache: TenantCache,
    began: Began,
}

async fn opened(scope: &Scope) -> Option<Opened> {
    let cache = scope.tools.cache.as_ref().filter(|_| !scope.tenant.id().is_control())?.of(&scope.tenant).await;
    let began = cache.begin();
    Some(Opened { cache, began })
}

fn is_kept(access: Access, keeping: &Keeping) -> bool {
    access == Access::Checked && keeping.policy.tier != Tier::Off
}

/// What a load brings back.
struct Loading {
    answer: Answer,
    /// The position of the snapshot.
    lsn: i64,
    /// The snapshot had another schema than the plan: rules, and with them who may share the answer, may differ.
    moved: bool,
}

impl Loading {
    fn new(reader: &Reader<'_>, planned_by: &Arc<Schema>, answer: Answer) -> Result<Self, RecordError> {
        Ok(Self { answer, lsn: reader.lsn(), moved: !Arc::ptr_eq(reader.schema(), planned_by) })
    }
}

struct Question<'task> {
    category: Category,
    sub: Sub,
    bytes: Vec<u8>,
    /// The schema by which everything above was decided.
    schema: Arc<Schema>,
    dependencies: Dependencies,
    /// The record that is read alone.
    record: Option<&'task RecordId>,
}

impl<'task> Question<'task> {
    fn of_record(scope: &Scope, task: &'task GetTask, schema: Arc<Schema>) -> Self {
        Self {
            category: Category::Record,
            sub: Sub::Record(task.id().clone()),
            bytes: task.cache_key(&scope.request),
            schema,
            dependencies: task.keeping().of_record(task.collection(), task.id()),
            record: Some(task.id()),
        }
    }
}

/// A write that may be kept as it was answered: where the tenant stood before it began.
pub(super) struct Through(Opened);

impl Through {
    /// Call it before the write is queued; `None` where there is no cache.
    pub(super) async fn begin(scope: &Scope) -> Option<Self> {
        opened(scope).await.map(Self)
    }

    /// Keeps what the writer of position `lsn` was answered as what a read of the record would answer, if the two are the
    /// same for this caller: the view rule shows every record, and nothing of the request is read.
    ///
    /// `answer` must have been made inside that transaction after its last change, under `schema`.
    pub(super) fn keep(self, scope: &Scope, schema: &Arc<Schema>, written: &Written<'_>) {
        let Opened { cache, began } = self.0;
        let planned = read::plan_get(scope, schema, written.collection.as_str(), written.id.as_str(), written.view);
        let Ok(task) = planned else { return };
        let (keeping, policy) = (task.keeping(), &task.keeping().policy);
        let same = task.work().unruled && keeping.anonymous && policy.key_parts.is_empty();
        if !same || !is_kept(task.access(), keeping) || policy.write_through == Some(false) {
            return;
        }
        let question = Question::of_record(scope, &task, Arc::clone(schema));
        let key = key_of(scope, cache.tenant(), task.collection(), keeping, &question);
        if policy.write_through.is_none() && !cache.knows(&key) {
            return;
        }
        let replay = (!key.depends_on_identity())
            .then(|| Replay::of(&task.collection().id, question.record, &scope.request))
            .flatten();
        let dependencies = &question.dependencies;
        let request = Request { began, key: &key, dependencies, policy, replay: replay.as_ref() };
        let loaded = Loaded::digested(written.answer.body.clone(), written.answer.etag, written.lsn);
        cache.write_through(request, loaded, written.lsn);
    }
}

/// What a write made of one record.
pub(super) struct Written<'write> {
    pub(super) collection: &'write CollectionId,
    pub(super) id: &'write RecordId,
    pub(super) view: &'write View,
    pub(super) answer: &'write Answer,
    pub(super) lsn: i64,
}

async fn ask<F>(
    scope: &Scope,
    Opened { cache, began }: Opened,
    collection: &Collection,
    keeping: &Keeping,
    question: Question<'_>,
    freshness: Freshness,
    load: F,
) -> Result<cache::Answer, RecordError>
where
    F: AsyncFnOnce() -> Result<Loading, RecordError>,
{
    let key = key_of(scope, cache.tenant(), collection, keeping, &question);
    let hit = if freshness == Freshness::Current { cache.get(&key) } else { None };
    if let Some(answer) = hit.clone().filter(|_| !cache.verify_is_due()) {
        return Ok(answer);
    }
    // Noted on a miss only: a hit has its note already.
    let replayable = !key.depends_on_identity() && keeping.policy.key_parts.is_empty();
    let replay = replayable.then(|| Replay::of(&collection.id, question.record, &scope.request)).flatten();
    let (dependencies, policy) = (&question.dependencies, &keeping.policy);
    let request = Request { began, key: &key, dependencies, policy, replay: replay.as_ref() };
    let load = || async {
        let loading = load().await?;
        let Answer { body, etag, .. } = loading.answer;
        Ok(Loaded { apart: loading.moved, ..Loaded::digested(body, etag, loading.lsn) })
    };
    match (freshness, hit) {
        (Freshness::Current, Some(hit)) => cache.verify_hit(request, hit, load).await,
        (Freshness::Current, None) => cache.get_or_load(request, load).await,
        (Freshness::Reload, _) => cache.reload(request, load).await,
    }
}

/// Where the answer to `question` is filed for this caller.
fn key_of(
    scope: &Scope,
    tenant: &TenantId,
    collection: &Collection,
    keeping: &Keeping,
    question: &Question<'_>,
) -> Key {
    let schema = question.schema.version().to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![&question.bytes, &schema];
    let extra: Vec<_> = keeping.policy.key_parts.iter().map(|path| extra_part(&scope.request, path)).collect();
    parts.extend(extra.iter().map(Vec::as_slice));
    let caller = if depends_on_caller(scope, keeping) { CallerClass::superuser() } else { CallerClass::everyone() };
    Key::new(tenant, question.category, &collection.id, question.sub.clone(), &parts, &caller)
}

/// Whether the answer may differ for somebody else: the plan reads the caller, or was made for more than a stranger.
fn depends_on_caller(scope: &Scope, keeping: &Keeping) -> bool {
    !keeping.anonymous || scope.principal.auth().is_some()
}

/// The value of a request path by which the policy keeps answers apart; one that is not there counts as empty.
fn extra_part(request: &RequestContext, path: &str) -> Vec<u8> {
    let place = match path.strip_prefix("@request.").and_then(|rest| rest.split_once('.')) {
        Some(("headers", name)) => Some(Place::Header(Arc::from(name))),
        Some(("query", name)) => Some(Place::Query(Arc::from(name))),
        Some(("auth", "id")) => Some(Place::AuthId),
        Some(("auth", "collectionName")) => Some(Place::AuthCollectionName),
        _ => None,
    };
    place.map(|place| format!("{:?}", request.look_up(&RequestPath::value(place))).into_bytes()).unwrap_or_default()
}

fn served(
    scope: &Scope,
    answer: cache::Answer,
    keeping: &Keeping,
    links: PageLinks,
    tag: impl FnOnce() -> Arc<str>,
) -> Served {
    let private = depends_on_caller(scope, keeping);
    let [public, own] = &keeping.control;
    Served {
        body: ServedBody::Kept(answer),
        links,
        cache_control: Arc::clone(if private { own } else { public }),
        cache_tag: (!private).then(tag),
    }
}

/// An answer that is not kept says so to others too.
fn made(answer: Answer) -> Served {
    let links = answer.links.clone();
    Served { body: ServedBody::Made(answer), links, cache_control: Arc::from("private, no-cache"), cache_tag: None }
}

/// The cursors at the end of a page; the body is the only thing that is kept.
fn links_of(body: &[u8]) -> PageLinks {
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

impl GetTask {
    fn access(&self) -> Access {
        self.work().access
    }

    fn keeping(&self) -> &Keeping {
        &self.work().keeping
    }
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
