//! What one worker remembers of requests it answered lately: who sent them, and reads that were worked out for them.
//!
//! Keeps true: a remembered visit counts only while no tenant's name, host or state has changed and the account and the
//! session behind its token stand; a remembered read counts only for the visit it was worked out for and the very same
//! address. So an answer from here is the answer that routing, extractors and planning would have come to.
//! Does not do: API keys and the node's own key, which are looked at every time; freshness, which the cache proves.
//!
//! One per worker and used by its thread alone: no lock, and no borrow is held across an await.

use crate::cache::Place;
use crate::http::addressing::request_host;
use crate::http::connections::Connection;
use crate::http::extract::{Budget, VisitPart};
use crate::http::problem::Problem;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::services::auth::{Identity, Vouch};
use crate::services::budget::{Intent, UnderWay};
use crate::services::records::cached::Served;
use crate::services::records::prepared::Prepared;
use actix_web::dev::RequestHead;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web;
use foldhash::fast::RandomState;
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// Somebody at a tenant, as found out by an earlier request.
#[derive(Debug)]
pub(crate) struct Visit {
    /// Which visit this is, among all of this worker.
    serial: u64,
    pub(crate) tenant: TenantId,
    pub(crate) identity: Identity,
    /// Evidence for the identity; strangers need none.
    vouch: Option<Vouch>,
    /// What the registry counted before anything was looked up.
    registry_version: u64,
    /// As old as `registry_version`, which moves with every change of a limit.
    budget: Option<Budget>,
}

/// A read that was worked out before, with the parts of its answer that never change.
#[derive(Debug)]
pub(crate) struct Read {
    /// Where its answers are in memory, if they are kept.
    pub(crate) place: Option<Place>,
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) told: Rc<Told>,
}

/// What other caches are told about an answer, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) cache_control: Option<HeaderValue>,
    pub(crate) cache_tag: Option<HeaderValue>,
    pub(crate) vary: HeaderValue,
}

/// Request headers that shape every answer: who asks at which tenant, in which coding, and the page that asks.
const VARY: &str = "Authorization, X-Tenant, Accept-Encoding, Origin";

impl Default for Told {
    fn default() -> Self {
        Self { cache_control: None, cache_tag: None, vary: HeaderValue::from_static(VARY) }
    }
}

impl Told {
    pub(crate) fn of(served: &Served) -> Self {
        Self {
            cache_control: HeaderValue::from_str(&served.cache_control).ok(),
            cache_tag: served.cache_tag.as_deref().and_then(|tag| HeaderValue::from_str(tag).ok()),
            vary: match &served.vary {
                None => HeaderValue::from_static(VARY),
                // A name that is no header's is one that no two requests differ in; `*` is right for anything.
                Some(more) => {
                    HeaderValue::from_str(&format!("{VARY}, {more}")).unwrap_or(HeaderValue::from_static("*"))
                }
            },
        }
    }
}

/// Who asks, and the read they ask for.
pub(crate) type Remembered = (Rc<Known<Visit>>, Rc<Known<Read>>);

/// The memory of one worker.
pub(crate) struct Front {
    part: web::Data<VisitPart>,
    visits: RefCell<Recent<Visit>>,
    reads: RefCell<Recent<Read>>,
    /// What was told last; most answers of a tenant tell the same, which then stays at hand.
    last_told: RefCell<Rc<Told>>,
    next_serial: Cell<u64>,
    /// Keys are put together here.
    scratch: RefCell<Vec<u8>>,
}

impl Front {
    pub(crate) fn new(part: web::Data<VisitPart>) -> Self {
        Self {
            part,
            visits: RefCell::new(Recent::new(limits::VISITS_REMEMBERED_MAX)),
            reads: RefCell::new(Recent::new(limits::READS_REMEMBERED_MAX)),
            last_told: RefCell::default(),
            next_serial: Cell::new(0),
            scratch: RefCell::default(),
        }
    }

    /// The read that `head` asks for, if it was worked out before and nothing it rests on but data has changed.
    ///
    /// `head` is the request as it came, with its tenant prefix.
    pub(crate) fn find_read(&self, head: &RequestHead, now_ms: i64) -> Option<Remembered> {
        // A range may be refused, and a superuser may ask past the cache: both take the long way.
        let plain = !head.headers.contains_key(header::CACHE_CONTROL) && !head.headers.contains_key(header::RANGE);
        if head.method != Method::GET || !plain {
            return None;
        }
        let (slug, target) = split_prefix(head.uri.path_and_query()?.as_str());
        let visit = self.find_visit(slug, head, now_ms)?;
        let mut key = self.scratch.borrow_mut();
        let read = self.reads.borrow_mut().find(read_key(&mut key, visit.serial, target)?)?;
        Some((visit, read))
    }

    /// Who sends a request with this head to the tenant that the path names by `slug`, if any, and still stands at `now_ms`.
    pub(crate) fn find_visit(&self, slug: Option<&str>, head: &RequestHead, now_ms: i64) -> Option<Rc<Known<Visit>>> {
        let mut key = self.scratch.borrow_mut();
        let visit = self.visits.borrow_mut().find(visit_key(&mut key, slug, head)?)?;
        let part = &self.part;
        let stands = visit.registry_version == part.registry.version()
            && visit.vouch.as_ref().is_none_or(|vouch| part.auth.holds(vouch, now_ms));
        stands.then_some(visit)
    }

    /// Remembers who sent a request. `registry_version` is from before the tenant was looked up; `vouch` stands for
    /// `identity` unless that is a stranger.
    pub(crate) fn remember_visit(
        &self,
        slug: Option<&str>,
        head: &RequestHead,
        registry_version: u64,
        tenant: &TenantId,
        identity: &Identity,
        vouch: Option<Vouch>,
    ) -> Option<u64> {
        let mut key = self.scratch.borrow_mut();
        let key = visit_key(&mut key, slug, head)?;
        let serial = self.next_serial.replace(self.next_serial.get() + 1);
        let (tenant, identity) = (tenant.clone(), identity.clone());
        let budget = self.part.budget_of(&tenant);
        let visit = Visit { serial, tenant, identity, vouch, registry_version, budget };
        self.visits.borrow_mut().keep(key, visit);
        Some(serial)
    }

    /// Remembers a read that was worked out for the visit `serial` at `target`, the address without the tenant prefix.
    pub(crate) fn remember_read(&self, serial: u64, target: &str, prepared: Arc<Prepared>, told: Told) {
        let mut key = self.scratch.borrow_mut();
        if let Some(key) = read_key(&mut key, serial, target) {
            let mut last = self.last_told.borrow_mut();
            if **last != told {
                *last = Rc::new(told);
            }
            let told = Rc::clone(&last);
            self.reads.borrow_mut().keep(key, Read { place: prepared.place(), prepared, told });
        }
    }

    /// Forgets the read at `target`, which has to be worked out anew.
    pub(crate) fn forget_read(&self, visit: &Visit, target: &str) {
        let mut key = self.scratch.borrow_mut();
        if let Some(key) = read_key(&mut key, visit.serial, target) {
            self.reads.borrow_mut().forget(key);
        }
    }

    /// What the memory is used on.
    pub(crate) fn part(&self) -> &web::Data<VisitPart> {
        &self.part
    }
}

impl Visit {
    /// Counts a read of this visit against the budgets of its tenant, until what is given back is dropped.
    pub(crate) fn admit(&self, connection: Option<&Connection>, now_ms: i64) -> Result<Option<UnderWay>, Problem> {
        let admit = |budget: &Budget| budget.admit(connection, Intent::Read, &self.identity, now_ms);
        self.budget.as_ref().map(admit).transpose()
    }

    /// The same for a read that is answered before anything else happens on this thread.
    pub(crate) fn admit_at_once(&self, connection: Option<&Connection>, now_ms: i64) -> Result<(), Problem> {
        match &self.budget {
            Some(budget) => budget.admit_at_once(connection, &self.identity, now_ms),
            None => Ok(()),
        }
    }

    /// Which visit this is.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }
}

/// The slug in front of a path and what follows it; `/t/a/b?c` is `a` and `/b?c`.
pub(crate) fn split_prefix(target: &str) -> (Option<&str>, &str) {
    let Some(rest) = target.strip_prefix("/t/") else { return (None, target) };
    match rest.find('/') {
        Some(end) => rest.split_at_checked(end).map_or((None, target), |(slug, path)| (Some(slug), path)),
        None => (None, target),
    }
}

/// Everything of a request that says who comes to which tenant. `None`: too long to be remembered.
fn visit_key<'key>(key: &'key mut Vec<u8>, slug: Option<&str>, head: &RequestHead) -> Option<&'key [u8]> {
    key.clear();
    push_part(key, slug.map(str::as_bytes));
    push_part(key, request_host(head).map(str::as_bytes));
    for name in [header::HeaderName::from_static("x-tenant"), header::AUTHORIZATION] {
        push_part(key, head.headers.get(name).map(HeaderValue::as_bytes));
    }
    (key.len() <= limits::VISIT_KEY_BYTES_MAX).then_some(key)
}

fn read_key<'key>(key: &'key mut Vec<u8>, serial: u64, target: &str) -> Option<&'key [u8]> {
    key.clear();
    key.extend_from_slice(&serial.to_le_bytes());
    key.extend_from_slice(target.as_bytes());
    (key.len() <= limits::READ_KEY_BYTES_MAX).then_some(key)
}

/// With its length, so that two different requests never give one key; absent is not empty.
fn push_part(key: &mut Vec<u8>, part: Option<&[u8]>) {
    let len = part.map_or(u32::MAX, |part| u32::try_from(part.len()).unwrap_or(u32::MAX - 1));
    key.extend_from_slice(&len.to_le_bytes());
    key.extend_from_slice(part.unwrap_or_default());
}

/// Something remembered, beside the key it is found by: what is asked for often is found in few steps through memory.
#[derive(Debug)]
pub(crate) struct Known<V> {
    key: SmallVec<[u8; KEY_BYTES_INLINE]>,
    value: V,
}

/// Most addresses of reads fit; the keys of visits have a token in them and do not.
const KEY_BYTES_INLINE: usize = 96;

impl<V> Deref for Known<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

/// Compared and hashed by its key alone.
#[derive(Debug)]
struct ByKey<V>(Rc<Known<V>>);

impl<V> Borrow<[u8]> for ByKey<V> {
    fn borrow(&self) -> &[u8] {
        &self.0.key
    }
}

impl<V> Hash for ByKey<V> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.key.as_slice().hash(hasher);
    }
}

impl<V> PartialEq for ByKey<V> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl<V> Eq for ByKey<V> {}

/// The last things, by key. Two halves: when the young one is full it becomes the old one, and what is asked for is young
/// again; so at most twice `half_len_max` are held and what is used stays.
///
/// The keys are hashed by something quick that somebody might find collisions for; so few are held that it would not help.
#[derive(Debug)]
struct Recent<V> {
    young: HashSet<ByKey<V>, RandomState>,
    old: HashSet<ByKey<V>, RandomState>,
    half_len_max: usize,
}

impl<V> Recent<V> {
    fn new(len_max: usize) -> Self {
        Self { young: HashSet::default(), old: HashSet::default(), half_len_max: len_max / 2 }
    }

    fn find(&mut self, key: &[u8]) -> Option<Rc<Known<V>>> {
        if let Some(ByKey(found)) = self.young.get(key) {
            return Some(Rc::clone(found));
        }
        let ByKey(found) = self.old.take(key)?;
        self.insert(ByKey(Rc::clone(&found)));
        Some(found)
    }

    fn keep(&mut self, key: &[u8], value: V) {
        self.insert(ByKey(Rc::new(Known { key: SmallVec::from_slice(key), value })));
    }

    fn insert(&mut self, known: ByKey<V>) {
        if self.young.len() >= self.half_len_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.replace(known);
    }

    fn forget(&mut self, key: &[u8]) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_split_where_routing_splits_it() {
        for (target, expected) in [
            ("/t/acme/api/x?y=/t/", (Some("acme"), "/api/x?y=/t/")),
            ("/api/x", (None, "/api/x")),
            ("/t/acme", (None, "/t/acme")),
            ("/t/acme?x", (None, "/t/acme?x")),
            ("/t//x", (Some(""), "/x")),
            ("/tx/y", (None, "/tx/y")),
        ] {
            assert_eq!(split_prefix(target), expected, "{target}");
        }
    }

    #[test]
    fn requests_that_differ_in_any_part_have_different_keys() {
        let key = |slug: Option<&str>, headers: &[(&'static str, &'static str)]| {
            let mut head = RequestHead::default();
            for (name, value) in headers {
                head.headers.insert(header::HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            visit_key(&mut Vec::new(), slug, &head).map(<[u8]>::to_vec)
        };
        let all = [
            key(None, &[]),
            key(Some(""), &[]),
            key(Some("a"), &[]),
            key(None, &[("host", "a")]),
            key(None, &[("x-tenant", "a")]),
            key(None, &[("x-tenant", "")]),
            key(None, &[("authorization", "a")]),
            key(Some("a"), &[("authorization", "a")]),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_used() {
        let mut recent = Recent::new(8);
        recent.keep(b"used", 0);
        for number in 1..100_u32 {
            recent.keep(&number.to_le_bytes(), number);
            assert_eq!(recent.find(b"used").map(|known| **known), Some(0));
            assert!(recent.young.len() + recent.old.len() <= 8);
        }
        recent.keep(b"used", 7);
        assert_eq!(recent.find(b"used").map(|known| **known), Some(7), "the later one counts");
        recent.forget(b"used");
        assert!(recent.find(b"used").is_none());
    }
}
