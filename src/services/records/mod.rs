//! Records: what a caller may do with the rows of a tenant.
//!
//! Keeps true: a [`Scope`] is one tenant and one caller, and nothing in this room can reach another tenant through it;
//! an answer holds only what the rules of the collection, of the fields and of every expanded target show this caller.
//! Does not do: HTTP, caching (answers are pure over a snapshot, so that they can be cached), logging in.
//!
//! Reading order: [`read`] and [`mod@write`], then what they stand on.

pub mod read;
pub mod cached;
pub mod prepared;
mod through;
pub mod replay;
pub mod write;
mod preparing;
pub mod registering;
pub mod batch;
pub mod uploads;
pub mod files;
pub mod transfer;
pub mod changes;
pub mod audit;
pub mod explain;
mod page;
mod embed;
mod shape;
mod hint;
mod plans;
mod keeping;
mod gate;
mod values;
mod account;
mod cascade;
mod idempotency;
mod batch_request;
mod references;
mod plan_cache;
mod error;
#[cfg(test)]
mod tests;

pub use batch_request::{BatchRequest, ItemRequest};
pub use error::RecordError;
pub use idempotency::Idempotency;

use crate::access::Principal;
use crate::cache::compress::Encoding;
use crate::cache::entry::{EntityTag, none_match};
use crate::kernel::clock::Clock;
use crate::kernel::digest::{Sha256, sha256};
use crate::kernel::random::Random;
use crate::query::request::{CallerClass, RequestContext};
use crate::query::resolve::Reach;
use crate::secrets::keys::NodeSecret;
use crate::secrets::password::PasswordHasher;
use crate::services::login_guard::{LoginGuard, LoginLimits};
use crate::services::tenants::Registry;
use crate::store::{Actor, TenantDb, WriteMeta};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// An encoded answer: the bytes of a JSON body and their SHA-256, computed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The body; empty for a delete.
    pub body: Bytes,
    /// SHA-256 of the body.
    pub etag: Sha256,
    /// Where a walk by cursor goes on; also in the body.
    pub links: PageLinks,
}

/// Cursors to the pages beside one, for RFC 8288 `Link` headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageLinks {
    /// To the next page.
    pub next: Option<Arc<str>>,
    /// To the page before.
    pub prev: Option<Arc<str>>,
}

impl Answer {
    /// Digests `body`.
    pub fn new(body: Vec<u8>) -> Self {
        let etag = sha256(&body);
        Self { body: Bytes::from(body), etag, links: PageLinks::default() }
    }

    /// No body.
    pub fn empty() -> Self {
        Self { body: Bytes::new(), etag: [0; 32], links: PageLinks::default() }
    }

    /// The strong entity tag, quotes included: 64 hexadecimal digits.
    pub fn tag(&self) -> String {
        EntityTag::new(&self.etag, Encoding::Identity).as_str().to_owned()
    }

    /// Whether `tag`, as a client sends it in `If-Match` (quotes or a weak prefix allowed), names this body
    /// in any coding.
    pub fn has_tag(&self, tag: &str) -> bool {
        none_match(tag, &self.tag(), Encoding::Identity).is_some()
    }
}

/// What every request of a node shares.
pub struct RecordTools {
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Ids, token keys, generated values.
    pub random: Arc<dyn Random>,
    /// Hashes and checks passwords.
    pub hasher: PasswordHasher,
    /// Signs cursors, one derived key per tenant.
    pub secret: NodeSecret,
    /// Slows down guessing at `oldPassword`; the same as for logins.
    pub guard: Arc<LoginGuard>,
    /// Keeps answers; `None` runs without a cache.
    pub cache: Option<cached::RecordCache>,
    /// The tenants' names; without it they are not looked for in passwords.
    registry: Option<Registry>,
    plans: plans::Plans,
    complaints: hint::Complaints,
    /// Whether the disk has room for storing more; without it there always is.
    room: Option<Room>,
}

type Room = Box<dyn Fn() -> bool + Send + Sync>;

impl RecordTools {
    /// Puts the tools together, with an empty memory of plans.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, hasher: PasswordHasher, secret: NodeSecret) -> Self {
        let guard = Arc::new(LoginGuard::new(LoginLimits::default()));
        let (plans, complaints) = (plans::Plans::new(), hint::Complaints::default());
        Self { clock, random, hasher, secret, guard, cache: None, registry: None, plans, complaints, room: None }
    }

    /// Counts wrong passwords in `guard` from now on.
    #[must_use]
    pub fn with_guard(self, guard: Arc<LoginGuard>) -> Self {
        Self { guard, ..self }
    }

    /// Knows the names of tenants from now on.
    #[must_use]
    pub fn with_registry(self, registry: Registry) -> Self {
        Self { registry: Some(registry), ..self }
    }

    /// Asks `room` whether the disk has any from now on.
    #[must_use]
    pub fn with_room(self, room: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { room: Some(Box::new(room)), ..self }
    }

    /// Whether the disk has room for storing more.
    pub fn has_room(&self) -> bool {
        self.room.as_ref().is_none_or(|has_room| has_room())
    }

    /// Reads through `cache` from now on.
    #[must_use]
    pub fn with_cache(self, cache: cached::RecordCache) -> Self {
        Self { cache: Some(cache), ..self }
    }
}

impl fmt::Debug for RecordTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordTools").finish_non_exhaustive()
    }
}

/// One caller in one tenant, for the length of one request.
#[derive(Clone)]
pub struct Scope {
    /// The tenant's data.
    pub tenant: TenantDb,
    /// Who asks.
    pub principal: Principal,
    /// How far the caller's own questions reach; less than everywhere for a narrowed API key.
    pub reach: Reach,
    /// Whom the log names, where that is more than the caller: a key, somebody who acts through the account.
    pub by: Option<Actor>,
    /// The request as rules see it; its `auth` is that of the principal. In place of its `body`, rules on a write see what
    /// that write understands the body of its [`write::WriteRequest`] to be.
    pub request: Arc<RequestContext>,
    /// What the node shares.
    pub tools: Arc<RecordTools>,
    /// The id of the request, for the log of the tenant.
    pub request_id: Arc<str>,
    /// The caller's address, where it is kept.
    pub ip: Option<Arc<str>>,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("tenant", self.tenant.id()).field("request_id", &self.request_id).finish()
    }
}

impl Scope {
    /// The class of the caller.
    pub fn class(&self) -> CallerClass {
        self.principal.class()
    }

    /// Whether no rule applies to the caller.
    pub fn is_superuser(&self) -> bool {
        self.principal.is_superuser()
    }

    /// Who asks, as text: `system`, `anonymous`, `superuser:ID`, `record:COLLECTION/ID`, or more where `by` says more.
    pub fn caller_text(&self) -> String {
        self.actor().to_string()
    }

    /// Whose idempotency keys these are: as [`Self::caller_text`], and a stranger by address, so that one stranger's key is
    /// never another's.
    pub fn key_owner(&self) -> String {
        match (&self.principal, &self.by, &self.ip) {
            (Principal::Anonymous, None, Some(ip)) => format!("anonymous@{ip}"),
            _ => self.caller_text(),
        }
    }

    fn actor(&self) -> Actor {
        if let Some(by) = &self.by {
            return by.clone();
        }
        match &self.principal {
            Principal::System => Actor::System,
            Principal::Anonymous => Actor::Anonymous,
            Principal::Superuser(auth) => Actor::Superuser(Arc::from(auth.record.id.as_str())),
            Principal::Record(auth) => {
                Actor::Record(Arc::from(auth.collection.name.as_str()), Arc::from(auth.record.id.as_str()))
            }
        }
    }

    fn write_meta(&self) -> WriteMeta {
        WriteMeta { actor: self.actor(), request_id: Arc::clone(&self.request_id), ip: self.ip.clone() }
    }

    /// The same caller with another request for rules to see.
    fn with_request(&self, request: RequestContext) -> Self {
        Self { request: Arc::new(request), ..self.clone() }
    }
}
