//! One request at a cache, with a pause wherever the world may move on, and what a compiler of rules would say of it.

use super::truth::{self, Caller, Query, Rule};
use super::world::{Defect, History};
use futures_util::task::noop_waker_ref;
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll};
use tenantry::cache::entry::Loaded;
use tenantry::cache::key::{CallerClass, Category, Key, Sub};
use tenantry::cache::stamp::Dependencies;
use tenantry::cache::{Answer, Cache, Request, Source, TenantCache};
use tenantry::kernel::ident::TenantId;

/// How a read goes to the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Plain,
    /// Past what is kept.
    Reload,
    /// A hit is recomputed.
    Verify,
}

/// A read.
pub(super) struct Asking {
    pub(super) cache: Cache,
    pub(super) id: TenantId,
    pub(super) history: Rc<RefCell<History>>,
    pub(super) tenant: usize,
    pub(super) caller: Caller,
    pub(super) query: Query,
    pub(super) manner: Manner,
    /// The tenant's cache is looked up again on the way.
    pub(super) looks_twice: bool,
    pub(super) defect: Option<Defect>,
}

/// An answer, and how to ask for it again without looking anything up.
pub(super) struct Told {
    pub(super) got: String,
    pub(super) source: Source,
    pub(super) cache: TenantCache,
    pub(super) key: Key,
}

pub(super) async fn read(asking: Asking) -> Told {
    let Asking { caller, query, defect, tenant, .. } = asking;
    loop {
        let mut cache = asking.cache.tenant(&asking.id);
        let began = cache.begin();
        pause().await;
        if asking.looks_twice {
            cache = asking.cache.tenant(&asking.id);
        }
        let (rule, schema_lsn) = asking.history.borrow().rule();
        let key = key_of(cache.tenant(), rule, caller, query, defect);
        let dependencies = dependencies_of(rule, caller, query, defect);
        pause().await;
        let policy = query.policy();
        let load = || async {
            pause().await;
            let snapshot = asking.history.borrow().states.last().unwrap().clone();
            pause().await;
            let mut loaded = Loaded::json(snapshot.answer(tenant, caller, query), snapshot.lsn);
            // Key and answer must come from one rule: where the snapshot has another, the request starts over or its
            // answer stays its own.
            if snapshot.schema_lsn != schema_lsn && defect != Some(Defect::LoadsUnderAnotherRule) {
                if snapshot.lsn % 2 == 0 {
                    return Err("the schema moved");
                }
                loaded.apart = true;
            }
            Ok(loaded)
        };
        let request = Request { began, key: &key, dependencies: &dependencies, policy: &policy, replay: None };
        let hit = if asking.manner == Manner::Verify { cache.get(&key) } else { None };
        let answer: Result<Answer, &str> = match (asking.manner, hit) {
            (Manner::Reload, _) => cache.reload(request, load).await,
            (Manner::Verify, Some(hit)) => cache.verify_hit(request, hit, load).await,
            _ => cache.get_or_load(request, load).await,
        };
        if let Ok(answer) = answer {
            let (got, source) = (String::from_utf8_lossy(answer.body()).into_owned(), answer.source());
            return Told { got, source, cache, key };
        }
    }
}

/// The key as a plan would give it: its text, and among its values what the rule reads of the caller. The version of the
/// schema is left out, so that nothing but the proof of an answer tells two rules of one text apart.
pub(super) fn key_of(id: &TenantId, rule: Rule, caller: Caller, query: Query, defect: Option<Defect>) -> Key {
    let role = if caller.admin { "admin" } else { "member" };
    let (path, value) = match rule {
        Rule::Public => (None, None),
        // Nobody is a value too, and none that a user can have.
        Rule::Owner | Rule::Lookup => (Some("auth.id"), caller.user.map(|user| format!("u{user}"))),
        Rule::Role => (Some("auth.role"), Some(role.to_owned())),
    };
    let class = if path.is_some() { CallerClass::somebody() } else { CallerClass::everyone() };
    let mut parts = vec![format!("{query:?} {path:?}")];
    if defect != Some(Defect::ValueLeftOut) {
        parts.push(format!("{value:?}"));
    }
    let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
    let (category, sub) = match query {
        Query::Record(n) => (Category::Record, Sub::Record(truth::record_id(n))),
        _ => (Category::List, Sub::Word("page")),
    };
    Key::new(id, category, &truth::posts(), sub, &parts, &class)
}

pub(super) fn dependencies_of(rule: Rule, caller: Caller, query: Query, defect: Option<Defect>) -> Dependencies {
    let mut dependencies = match query {
        Query::Record(n) => Dependencies::new().record(&truth::posts(), &truth::record_id(n)),
        Query::Partition(n) => Dependencies::new().partition(&truth::posts(), &truth::partition(n)),
        Query::Everything | Query::External => Dependencies::new().collection(&truth::posts()),
    };
    if rule == Rule::Lookup && caller.user.is_some() && defect != Some(Defect::MissingDependency) {
        dependencies = dependencies.collection(&truth::members());
    }
    dependencies
}

/// Gives the world one chance to move.
pub(super) async fn pause() {
    let mut waited = false;
    std::future::poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Runs a future that has nothing to wait for.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(noop_waker_ref());
    for _ in 0..100 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("a purge waits for something");
}
