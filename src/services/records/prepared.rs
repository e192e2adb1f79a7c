//! A read worked out in advance: planned for one caller at one tenant and filed in the cache, everything but the data.
//!
//! Keeps true: the key holds everything that shapes the bytes (statement, values, page, which cells are guarded by what,
//! and of the caller what the rule reads), so callers of different classes share an answer exactly where the plans of
//! both are the same and read nothing of them; what a rule decides without data is decided before the cache is asked; a position is noted before the schema
//! is compared, so a rule that changes in between makes the answer look old. One that is asked again answers exactly as
//! if it had been worked out anew, or says that it cannot ([`Prepared::is_usable`]).
//! Does not do: knowing whether caller and tenant are still the same; whoever keeps a [`Prepared`] checks that.

use super::cached::{Freshness, Served, ServedBody, links_of};
use super::hint::{self, Question};
use super::keeping::Keeping;
use super::plans::Access;
use super::read::{self, GetTask, ListRequest, ListTask, View};
use super::replay::Replay;
use super::{Answer, PageLinks, RecordError, Scope};
use crate::cache::key::{CallerClass, Category, Key, Sub};
use crate::cache::stamp::Dependencies;
use crate::cache::{self, Began, Request, TenantCache, entry::Loaded};
use crate::kernel::digest::sha256;
use crate::kernel::ident::RecordId;
use crate::query::request::{CallerClass as Class, Place, RequestContext, RequestPath};
use crate::query::resolve::Reach;
use crate::schema::cache_policy::Tier;
use crate::schema::{Collection, Schema};
use crate::store::Reader;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A read that is ready to be answered, any number of times.
#[derive(Debug)]
pub struct Prepared {
    task: Task,
    /// The schema by which everything here was decided.
    schema: Arc<Schema>,
    /// `Cache-Tag`, unless the answer may differ for somebody else.
    tag: Option<Arc<str>>,
    kept: Option<Kept>,
    /// The request as far as the plan may read it.
    request: Arc<RequestContext>,
    /// It was remembered without the headers of its request, so only the plan it was made with can be run.
    remembered: bool,
}

/// Where answers are kept.
#[derive(Debug)]
struct Kept {
    cache: TenantCache,
    key: Key,
    by: Option<KeyValues>,
}

/// By what a policy's `key` keeps an answer apart from others: the paths, and a digest of the values found there. The
/// values themselves may be secrets of a request, and are noted nowhere.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct KeyValues {
    #[serde(rename = "p")]
    paths: Vec<Arc<str>>,
    #[serde(rename = "d")]
    digest: [u8; 32],
}

#[derive(Debug)]
enum Task {
    Get(Box<GetTask>),
    List(Box<ListTask>),
}

/// Works out a list; see [`read::list`].
pub async fn list(scope: &Scope, collection: &str, request: &ListRequest) -> Result<Arc<Prepared>, RecordError> {
    list_by(scope, collection, request, None).await
}

/// The same, filed by the values that were found when the policy's `key` was read before.
pub(super) async fn list_by(
    scope: &Scope,
    collection: &str,
    request: &ListRequest,
    by: Option<&KeyValues>,
) -> Result<Arc<Prepared>, RecordError> {
    let cache = cache_of(scope).await;
    let schema = scope.tenant.schema();
    let task = read::plan_list(scope, &schema, collection, request)?;
    Ok(Prepared::new(scope, cache, schema, Task::List(Box::new(task)), by))
}

/// Works out a read of one record; see [`read::get`].
pub async fn get(scope: &Scope, collection: &str, id: &str, view: &View) -> Result<Arc<Prepared>, RecordError> {
    get_by(scope, collection, id, view, None).await
}

/// The same, filed by the values that were found when the policy's `key` was read before.
pub(super) async fn get_by(
    scope: &Scope,
    collection: &str,
    id: &str,
    view: &View,
    by: Option<&KeyValues>,
) -> Result<Arc<Prepared>, RecordError> {
    let cache = cache_of(scope).await;
    let schema = scope.tenant.schema();
    let task = read::plan_get(scope, &schema, collection, id, view)?;
    Ok(Prepared::new(scope, cache, schema, Task::Get(Box::new(task)), by))
}

pub(super) async fn cache_of(scope: &Scope) -> Option<TenantCache> {
    Some(scope.tools.cache.as_ref().filter(|_| !scope.tenant.id().is_control())?.of(&scope.tenant).await)
}

impl Prepared {
    fn new(
        scope: &Scope,
        cache: Option<TenantCache>,
        schema: Arc<Schema>,
        task: Task,
        by: Option<&KeyValues>,
    ) -> Arc<Self> {
        let keeping = task.keeping();
        // The plan reads the caller, or was made for more than a stranger: other caches, which know no classes, must not
        // hand the answer on, though here it may be a stranger's too.
        let private = !keeping.anonymous || scope.class() != Class::Anonymous;
        let cache = cache.filter(|_| task.access() == Access::Checked && keeping.policy.tier != Tier::Off);
        let kept = cache.map(|cache| {
            let by = by.cloned().or_else(|| KeyValues::of(&scope.request, &keeping.policy.key_parts));
            Kept { key: key(scope, &cache, &schema, &task, by.as_ref()), by, cache }
        });
        let tag = (!private).then(|| task.tag());
        Arc::new(Self { tag, kept, schema, request: Arc::clone(&scope.request), task, remembered: false })
    }

    /// A read of one record that may show in `cache`.
    pub(super) fn of_record(scope: &Scope, cache: TenantCache, schema: Arc<Schema>, task: GetTask) -> Arc<Self> {
        Self::new(scope, Some(cache), schema, Task::Get(Box::new(task)), None)
    }

    /// Keeps `answer`, which the writer of position `lsn` was given, as the answer of this read.
    ///
    /// The caller knows that the two are the same as far as rules go. Without a wish of the policy only what somebody has
    /// asked for is kept.
    pub(super) fn write_through(&self, scope: &Scope, began: Began, answer: &Answer, lsn: i64) {
        let (keeping, policy) = (self.task.keeping(), &self.task.keeping().policy);
        let Some(Kept { cache, key, .. }) = self.kept.as_ref().filter(|_| keeping.anonymous) else { return };
        let wanted = policy.write_through.unwrap_or_else(|| cache.knows(key));
        if !wanted || !policy.key_parts.is_empty() {
            return;
        }
        let (dependencies, replay) = (self.task.dependencies(&scope.request), self.replay(scope, key));
        let request = Request { began, key, dependencies: &dependencies, policy, replay: replay.as_ref() };
        cache.write_through(request, Loaded::digested(answer.body.clone(), answer.etag, lsn), lsn);
    }

    /// What is noted with an answer for asking again; nothing where the caller is narrowed, as whoever asks again is not.
    fn replay(&self, scope: &Scope, key: &Key) -> Option<Arc<[u8]>> {
        let everywhere = scope.reach == Reach::EVERYWHERE;
        let replayable = everywhere && !key.depends_on_identity();
        let (class, by) = (scope.class(), self.kept.as_ref().and_then(|kept| kept.by.as_ref()));
        let (version, collection) = (self.schema.version(), &self.task.collection().id);
        let note = || Replay::of(version, collection, self.task.record(), &scope.request, &class, by);
        replayable.then(note).flatten()
    }

    /// Whether the answer is the same for every caller of the class it was worked out for.
    pub(super) fn reads_nobody(&self) -> bool {
        self.task.keeping().anonymous
    }

    /// The version of the schema by which it was worked out, and with which its answers are filed.
    pub(super) fn schema_version(&self) -> i64 {
        self.schema.version()
    }

    /// Where its answers are kept and what is noted with them, if they are kept and can be asked for again.
    pub(super) fn noted(&self, scope: &Scope) -> Option<(Key, Arc<[u8]>)> {
        let key = &self.kept.as_ref()?.key;
        Some((key.clone(), self.replay(scope, key)?))
    }

    /// Whether its answers are kept under the key that is written `key`.
    pub(super) fn is_filed_under(&self, key: &str) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.key.to_string() == key)
    }

    /// Whether the policy keeps its answers apart by the same `key` as those that `by` was noted with.
    pub(super) fn is_keyed_as(&self, by: Option<&KeyValues>) -> bool {
        by.map_or(&[][..], |by| &by.paths) == self.task.keeping().policy.key_parts
    }

    /// Reads past the cache: the body and the log position it was read at; `None` where that fails, or the schema moved on.
    pub(super) async fn recompute(self: &Arc<Self>, scope: &Scope) -> Option<(Bytes, i64)> {
        let loading = self.load(scope).await.ok().filter(|loading| !loading.moved)?;
        Some((loading.answer.body, loading.lsn))
    }

    /// This read for asking again: without what only the present request has. `None` where that shapes the answer, or
    /// where the answer is a walk, which is seldom asked for twice.
    pub fn to_remember(self: Arc<Self>) -> Option<Arc<Self>> {
        let keeping = self.task.keeping();
        let steady = keeping.steady && !self.task.walks() && self.task.access() == Access::Checked;
        let mut own = Arc::into_inner(self).filter(|_| steady)?;
        let (headers, body) = (BTreeMap::new(), serde_json::Map::new());
        own.request = Arc::new(RequestContext { headers, body, ..(*own.request).clone() });
        own.remembered = true;
        Some(Arc::new(own))
    }

    /// Where its answers are in memory, if it is remembered and they are kept. It is no walk, so they are all there is to
    /// say: there are no links to other pages.
    pub fn place(&self) -> Option<cache::Place> {
        self.kept.as_ref().filter(|_| self.remembered).map(|kept| kept.cache.place(&kept.key))
    }

    /// Whether the tenant and its cache are still those that this was worked out for.
    pub async fn is_usable(&self, scope: &Scope) -> bool {
        let cache = match (&self.kept, cache_of(scope).await) {
            (Some(kept), Some(present)) => kept.cache.is_same(&present),
            (None, _) => true,
            (Some(_), None) => false,
        };
        cache && self.is_of(scope)
    }

    /// The request that this was worked out for, for the scope in which it is asked again.
    pub fn request(&self) -> &Arc<RequestContext> {
        &self.request
    }

    fn is_of(&self, scope: &Scope) -> bool {
        Arc::ptr_eq(&scope.tenant.schema(), &self.schema)
    }

    /// Answers from memory, from disk, or by reading; in a scope of the same tenant, caller and question.
    ///
    /// [`RecordError::Overtaken`] where it was remembered and the schema changed just now: work it out anew.
    pub async fn answer(self: &Arc<Self>, scope: &Scope, freshness: Freshness) -> Result<Served, RecordError> {
        // Before the schema is looked at: a rule that changes in between makes the answer look old.
        let began = self.kept.as_ref().map(|kept| (kept, kept.cache.begin()));
        match began.filter(|_| self.is_of(scope)) {
            Some((kept, began)) => Ok(self.served(self.ask(scope, kept, began, freshness).await?)),
            // Another schema by now: the load plans again, and nobody may share what comes of it.
            None => Ok(made(self.load(scope).await?.answer, self.task.keeping())),
        }
    }

    async fn ask(
        self: &Arc<Self>,
        scope: &Scope,
        Kept { cache, key, .. }: &Kept,
        began: Began,
        freshness: Freshness,
    ) -> Result<cache::Answer, RecordError> {
        let hit = if freshness == Freshness::Current { cache.get(key) } else { None };
        if let Some(answer) = hit.clone().filter(|_| !cache.verify_is_due()) {
            return Ok(answer);
        }
        // Noted on a miss only: a hit has its note already.
        let replay = self.replay(scope, key);
        let (dependencies, policy) = (&self.task.dependencies(&scope.request), &self.task.keeping().policy);
        let request = Request { began, key, dependencies, policy, replay: replay.as_ref() };
        let load = || async {
            let Loading { answer: Answer { body, etag, .. }, lsn, moved } = self.load(scope).await?;
            Ok(Loaded { apart: moved, ..Loaded::digested(body, etag, lsn) })
        };
        match (freshness, hit) {
            (Freshness::Current, Some(hit)) => cache.verify_hit(request, hit, load).await,
            (Freshness::Current, None) => cache.get_or_load(request, load).await,
            (Freshness::Reload, _) => cache.reload(request, load).await,
        }
    }

    async fn load(self: &Arc<Self>, scope: &Scope) -> Result<Loading, RecordError> {
        let (run, this) = (scope.clone(), Arc::clone(self));
        let loaded = scope.tenant.read(move |reader| {
            if this.remembered && !Arc::ptr_eq(reader.schema(), &this.schema) {
                return Err(RecordError::Overtaken);
            }
            let answer = match &this.task {
                Task::Get(task) => read::load_get(reader, &run, task),
                Task::List(task) => read::load_list(reader, &run, task),
            };
            Loading::new(reader, &this.schema, answer?)
        });
        let question = match &self.task {
            Task::Get(task) => Question::One(task.expand()),
            Task::List(task) => Question::List(task.query()),
        };
        loaded.await.map_err(|error| hint::explain_cost(error, scope, self.task.collection(), question))
    }

    fn served(&self, answer: cache::Answer) -> Served {
        let keeping = self.task.keeping();
        let [public, own] = &keeping.control;
        Served {
            links: if self.task.walks() { links_of(answer.body()) } else { PageLinks::default() },
            body: ServedBody::Kept(answer),
            cache_control: Arc::clone(if self.tag.is_some() { public } else { own }),
            cache_tag: self.tag.clone(),
            vary: keeping.vary.clone(),
        }
    }
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

impl Task {
    fn access(&self) -> Access {
        match self {
            Self::Get(task) => task.work().access,
            Self::List(task) => task.access(),
        }
    }

    fn keeping(&self) -> &Keeping {
        match self {
            Self::Get(task) => &task.work().keeping,
            Self::List(task) => task.keeping(),
        }
    }

    fn collection(&self) -> &Arc<Collection> {
        match self {
            Self::Get(task) => task.collection(),
            Self::List(task) => task.collection(),
        }
    }

    /// The record that is read alone.
    fn record(&self) -> Option<&RecordId> {
        match self {
            Self::Get(task) => Some(task.id()),
            Self::List(_) => None,
        }
    }

    /// Whether the answer has cursors.
    fn walks(&self) -> bool {
        matches!(self, Self::List(task) if task.walks())
    }

    fn place(&self) -> (Category, Sub) {
        match self {
            Self::Get(task) => (Category::Record, Sub::Record(task.id().clone())),
            Self::List(task) => (task.category(), Sub::Word(if task.walks() { "walk" } else { "page" })),
        }
    }

    fn tag(&self) -> Arc<str> {
        match self {
            Self::Get(task) => self.keeping().tag_of(task.id()),
            Self::List(_) => Arc::clone(&self.keeping().list_tag),
        }
    }

    fn key_bytes(&self, request: &RequestContext) -> Vec<u8> {
        match self {
            Self::Get(task) => task.cache_key(request),
            Self::List(task) => task.cache_key(request),
        }
    }

    fn dependencies(&self, request: &RequestContext) -> Dependencies {
        match self {
            Self::Get(task) => self.keeping().of_record(task.collection(), task.id()),
            Self::List(task) => self.keeping().of_list(task.collection(), task.partition(request).as_ref()),
        }
    }
}

fn key(scope: &Scope, cache: &TenantCache, schema: &Schema, task: &Task, by: Option<&KeyValues>) -> Key {
    let (bytes, version) = (task.key_bytes(&scope.request), schema.version().to_be_bytes());
    let mut parts: Vec<&[u8]> = vec![&bytes, &version];
    parts.extend(by.map(|by| by.digest.as_slice()));
    // What a plan reads of the caller is among its values.
    let caller = if task.keeping().anonymous { CallerClass::everyone() } else { CallerClass::somebody() };
    let (category, sub) = task.place();
    Key::new(cache.tenant(), category, &task.collection().id, sub, &parts, &caller)
}

impl KeyValues {
    /// What `request` has at the paths of a policy's `key`; `None` where there are none.
    fn of(request: &RequestContext, paths: &[Arc<str>]) -> Option<Self> {
        let mut values = Vec::new();
        for path in paths {
            let value = extra_part(request, path);
            values.extend_from_slice(&(value.len() as u64).to_le_bytes());
            values.extend_from_slice(&value);
        }
        (!paths.is_empty()).then(|| Self { paths: paths.to_vec(), digest: sha256(&values) })
    }
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

/// An answer that is not kept says so to others too.
fn made(answer: Answer, keeping: &Keeping) -> Served {
    let (links, vary) = (answer.links.clone(), keeping.vary.clone());
    let cache_control = Arc::from("private, no-cache");
    Served { body: ServedBody::Made(answer), links, cache_control, cache_tag: None, vary }
}
