//! Who asks, and at which tenant: resolved before a handler runs.
//!
//! Keeps true: a handler gets a tenant's handle only together with the caller that was checked against that tenant. A token
//! that does not hold makes its bearer a stranger, as in PocketBase, and what a stranger may not do is then refused with
//! `token_invalid`.
//! Does not do: rules; services ask the caller's class.

use crate::access::Principal;
use crate::http::addressing::{client_ip, find_tenant, is_local, request_host, tenant_of_host};
use crate::http::body;
use crate::http::connections::Connection;
use crate::http::front::{Front, Told};
use crate::http::key_gate;
use crate::http::middleware::{Counted, RequestId, RequestLimits, TenantPrefix};
use crate::http::problem::Problem;
use crate::http::storing;
use crate::kernel::clock::Clock;
use crate::kernel::error::{Code, Fault};
use crate::kernel::ident::{RecordId, TenantId};
use crate::kernel::random::Random;
use crate::query::request::{AuthRecord, RequestContext};
use crate::query::resolve::Reach;
use crate::schema::record::RecordImage;
use crate::secrets::Secret;
use crate::services::auth::{Auth, AuthScope, Caller, Identity, LoginWish, NODE_ID, TokenMode};
use crate::services::budget::{Budgets, Intent, Standing, TenantLimits, TenantUsage, UnderWay};
use crate::services::records::cached::Served;
use crate::services::records::prepared::Prepared;
use crate::services::records::{RecordTools, Scope};
use crate::services::tenants::Registry;
use crate::services::tenants::system::SUPERUSERS;
use crate::store::{StoreError, TenantDb, WriteMeta};
use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{self, Stream, TryStreamExt as _};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

/// What resolving a visitor needs.
pub(crate) struct VisitPart {
    pub(crate) registry: Registry,
    pub(crate) auth: Auth,
    pub(crate) tools: Arc<RecordTools>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Arc<RequestLimits>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) node_key: Secret,
    /// Domains whose first label names a tenant.
    pub(crate) tenant_domains: Vec<String>,
    /// Whether a peer's `X-Forwarded-For` is believed.
    pub(crate) trusted: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// Kept with a request whose token does not hold, so that its sender, who counts as a stranger, hears why in a refusal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenRefused;

/// Somebody at a tenant.
pub(crate) struct Visitor {
    pub(crate) tenant: TenantDb,
    pub(crate) identity: Identity,
    /// Why the token that was sent does not count.
    refused: Option<Problem>,
    /// By what the worker remembers this visit, if it does.
    serial: Option<u64>,
    part: web::Data<VisitPart>,
    request: HttpRequest,
    /// Counts the request at its tenant until the handler has ended.
    under_way: Option<UnderWay>,
    /// From before it was asked whether tenant and caller may, milliseconds since the Unix epoch.
    asked_ms: i64,
}

impl FromRequest for Visitor {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let part = visit_part(&request)?;
            let asked_ms = part.clock.now_ms();
            if names_superusers(&request, &part) {
                let control = part.registry.control().clone();
                return Self::meet(request, part, control, asked_ms).await;
            }
            let slug = request.extensions().get::<TenantPrefix>().cloned();
            let slug = slug.as_ref().map(|TenantPrefix(slug)| slug.as_str());
            let front = request.app_data::<web::Data<Front>>().cloned();
            if let Some(visit) = front.as_ref().and_then(|front| front.find_visit(slug, request.head(), asked_ms)) {
                let tenant = part.registry.open_tenant(&visit.tenant).await?;
                let (identity, serial) = (visit.identity.clone(), Some(visit.serial()));
                let refused = None;
                return Self { tenant, identity, refused, serial, part, request, under_way: None, asked_ms }.admit();
            }
            // Before anything is looked up: what changes meanwhile must make the visit look old.
            let version = part.registry.version();
            let tenant = part.registry.open_tenant(&find_tenant(&request, &part)?).await?;
            let mut visitor = Self::meet(request.clone(), part, tenant, asked_ms).await?;
            if let Some(front) = &front {
                visitor.serial = visitor.remember(front, slug, version);
            }
            Ok(visitor)
        })
    }
}

/// Somebody at the node itself: tenants, blueprints, operations.
pub(crate) struct NodeVisitor(pub(crate) Visitor);

impl FromRequest for NodeVisitor {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let part = visit_part(&request)?;
            let (control, asked_ms) = (part.registry.control().clone(), part.clock.now_ms());
            let visitor = Visitor::meet(request, part, control, asked_ms).await?;
            visitor.require_superuser()?;
            Ok(Self(visitor))
        })
    }
}

/// A superuser at a tenant.
pub(crate) struct SuperVisitor(pub(crate) Visitor);

impl FromRequest for SuperVisitor {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let visitor = Visitor::from_request(request, payload);
        Box::pin(async move {
            let visitor = visitor.await?;
            visitor.require_superuser()?;
            Ok(Self(visitor))
        })
    }
}

/// Proof that the address names no tenant: the node's own health has none.
pub(crate) struct AtNode;

impl FromRequest for AtNode {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let named = request.extensions().get::<TenantPrefix>().is_some();
        ready(if named { Err(Problem::bare(Code::RouteNotFound)) } else { Ok(Self) })
    }
}

impl Visitor {
    async fn meet(
        request: HttpRequest,
        part: web::Data<VisitPart>,
        tenant: TenantDb,
        asked_ms: i64,
    ) -> Result<Self, Problem> {
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (identity, refused) = match header.and_then(|text| text.strip_prefix("Node ")) {
            Some(key) if is_node(&request, &part, key) => (node_identity(&part)?, None),
            Some(_) => (Identity::anonymous(), Some(Problem::bare(Code::TokenInvalid))),
            None => {
                let (ip, now_ms) = (client_ip(request.head(), &part), part.clock.now_ms());
                let asked = || context_of(&request, "default", Map::new(), now_ms);
                match part.auth.authenticate_from(&tenant, header, ip, asked).await {
                    Ok(identity) => (identity, None),
                    Err(fault) if fault.code() == Code::TokenInvalid => (Identity::anonymous(), Some(fault.into())),
                    Err(fault) => return Err(fault.into()),
                }
            }
        };
        if refused.is_some() {
            request.extensions_mut().insert(TokenRefused);
        }
        Self { tenant, identity, refused, serial: None, part, request, under_way: None, asked_ms }.admit()
    }

    /// Counts the request and refuses what its key is not good for.
    fn admit(mut self) -> Result<Self, Problem> {
        let mut counted = Counted::default();
        let now_ms = self.part.clock.now_ms();
        let within = self.part.limits.count_caller(&mut counted, self.tenant.id(), &self.identity, now_ms);
        counted.keep_with(&self.request);
        within?;
        key_gate::check(&self.request, &self.tenant, &self.identity)?;
        // What it costs to tell is spent on a full disk only.
        if storing::may_store(self.request.method()) && !self.has_room() && storing::stores_more(&self.request) {
            return Err(StoreError::StorageFull.into());
        }
        let connection = self.request.conn_data::<Connection>();
        self.under_way = match self.part.budget_of(self.tenant.id()) {
            Some(budget) => {
                let intent = storing::intent_of(&self.request);
                Some(budget.admit(connection, intent, &self.identity, now_ms)?)
            }
            None => {
                connection.inspect(|connection| connection.leave());
                None
            }
        };
        Ok(self)
    }

    /// Has the worker remember this visit, if it can tell later whether the identity still holds.
    fn remember(&self, front: &Front, slug: Option<&str>, registry_version: u64) -> Option<u64> {
        let vouch = match &self.identity.caller {
            Caller::Anonymous if self.refused.is_none() && self.identity.key.is_none() => None,
            Caller::Anonymous => return None,
            Caller::Record(_) | Caller::Superuser(_) => Some(self.part.auth.vouch(&self.tenant, &self.identity)?),
        };
        front.remember_visit(slug, self.request.head(), registry_version, self.tenant.id(), &self.identity, vouch)
    }

    /// Has the worker remember a read that was worked out for this visit.
    pub(crate) fn remember_read(&self, prepared: Arc<Prepared>, served: &Served) {
        let (Some(serial), Some(target)) = (self.serial, self.request.uri().path_and_query()) else { return };
        if self.request.method() != Method::GET || self.request.headers().contains_key(header::CACHE_CONTROL) {
            return;
        }
        if let (Some(front), Some(prepared)) = (self.request.app_data::<web::Data<Front>>(), prepared.to_remember()) {
            front.remember_read(serial, target.as_str(), prepared, Told::of(served));
        }
    }

    /// Refuses what the tenant or the caller began and may do no longer: for requests that last.
    pub(crate) async fn check_standing(&self) -> Result<(), Problem> {
        self.part.registry.open_tenant(self.tenant.id()).await?;
        let is_node = self.identity.account().is_some_and(|account| account.record.id.as_str() == NODE_ID);
        if is_node || self.part.auth.still_holds(&self.tenant, &self.identity).await? {
            return Ok(());
        }
        Err(Problem::bare(Code::TokenInvalid))
    }

    /// `body`, read by a future that may last; afterwards the caller must still be who they were.
    pub(crate) async fn outlast<T>(&self, body: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        let body = body.await?;
        // One that was there at once needs no second look.
        if self.part.clock.now_ms() != self.asked_ms {
            self.check_standing().await?;
        }
        Ok(body)
    }

    /// `pieces` of an answer, cut before the next one once the caller may not have it any more. The client sees a stream
    /// without a proper end.
    pub(crate) fn guard<S>(self, pieces: S) -> impl Stream<Item = io::Result<Bytes>>
    where
        S: Stream<Item = io::Result<Bytes>>,
    {
        stream::try_unfold((self, Box::pin(pieces)), |(visitor, mut pieces)| async move {
            let piece = pieces.try_next().await?;
            visitor.check_standing().await.map_err(|problem| io::Error::other(problem.to_string()))?;
            Ok(piece.map(|piece| (piece, (visitor, pieces))))
        })
    }

    /// Refuses everybody but superusers.
    pub(crate) fn require_superuser(&self) -> Result<(), Problem> {
        if self.identity.is_superuser() {
            return Ok(());
        }
        Err(match (&self.refused, &self.identity.caller) {
            (Some(refused), _) => Problem::bare(refused.code()),
            (None, Caller::Anonymous) => Problem::bare(Code::AuthRequired),
            (None, _) => Problem::bare(Code::SuperuserRequired),
        })
    }

    /// Refuses strangers.
    pub(crate) fn require_login(&self) -> Result<(), Problem> {
        match (&self.refused, &self.identity.caller) {
            (Some(refused), Caller::Anonymous) => Err(Problem::bare(refused.code())),
            (None, Caller::Anonymous) => Err(Problem::bare(Code::AuthRequired)),
            _ => Ok(()),
        }
    }

    /// What the log says about writes of this request.
    pub(crate) fn write_meta(&self) -> WriteMeta {
        WriteMeta { actor: self.identity.actor(), request_id: request_id(&self.request), ip: self.ip() }
    }

    /// The scope of a records operation with this body.
    pub(crate) fn scope(&self, body: Map<String, Value>) -> Scope {
        Scope {
            tenant: self.tenant.clone(),
            principal: self.identity.principal(),
            reach: self.identity.key.as_ref().map_or(Reach::EVERYWHERE, |key| key.scopes.reach(&self.tenant.schema())),
            by: self.identity.acts_for_another().then(|| self.identity.actor()),
            request: Arc::new(self.context("default", body)),
            tools: Arc::clone(&self.part.tools),
            request_id: request_id(&self.request),
            ip: self.ip(),
        }
    }

    /// The scope of an authentication request.
    pub(crate) fn auth_scope(&self, context: &str, body: Map<String, Value>) -> AuthScope {
        let agent = self.request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        AuthScope {
            tenant: self.tenant.clone(),
            meta: self.write_meta(),
            user_agent: Arc::from(agent.unwrap_or_default()),
            request: Arc::new(self.context(context, body)),
        }
    }

    /// The scope in which somebody who is logged in sees to the own account.
    pub(crate) fn own_scope(&self) -> Result<AuthScope, Problem> {
        self.require_login()?;
        Ok(self.auth_scope("default", Map::new()))
    }

    /// The scope in which `account` reads its own record after a login.
    pub(crate) fn scope_as(&self, account: &Arc<AuthRecord>) -> Scope {
        let mut scope = self.scope(Map::new());
        let request = RequestContext { auth: Some(Arc::clone(account)), ..(*scope.request).clone() };
        scope.request = Arc::new(request);
        scope.principal = if account.collection.name.as_str() == SUPERUSERS {
            Principal::Superuser(Arc::clone(account))
        } else {
            Principal::Record(Arc::clone(account))
        };
        scope
    }

    /// The parsed query string, in its order.
    pub(crate) fn parameters(&self) -> Vec<(String, String)> {
        parameters(&self.request)
    }

    /// Whether `name=1` or `name=true` is in the query string.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.parameters().iter().any(|(key, value)| key == name && matches!(value.as_str(), "1" | "true"))
    }

    /// Query parameter `name` as a count; 0 if it is not there.
    pub(crate) fn number(&self, name: &str) -> Result<usize, Problem> {
        let found = body::number(&self.parameters(), name)?;
        Ok(found.and_then(|number| usize::try_from(number).ok()).unwrap_or(0))
    }

    /// Query parameter `name`; empty if it is not there.
    pub(crate) fn text(&self, name: &str) -> String {
        self.parameters().into_iter().find(|(key, _)| key == name).map(|(_, value)| value).unwrap_or_default()
    }

    /// How a login wants to end: `?session=1`, and the half-finished login it completes, from the body or, as the
    /// official SDK sends it, from the query string.
    pub(crate) fn wish(&self, mfa_id: Option<Secret>) -> LoginWish {
        let mode = if self.flag("session") { TokenMode::Session } else { TokenMode::Long };
        let given = mfa_id.unwrap_or_else(|| Secret::new(self.text("mfaId")));
        LoginWish { mode, mfa_id: Some(given).filter(|id| !id.is_empty()) }
    }

    /// The host by which the request found its tenant, if it did: pages there are the tenant's own.
    pub(crate) fn own_host(&self) -> Option<String> {
        if self.tenant.id() == self.part.registry.control().id() {
            return None;
        }
        let found = tenant_of_host(&self.request, &self.part).ok().flatten()?;
        let host = request_host(self.request.head()).filter(|_| found == *self.tenant.id())?;
        Some(host.to_ascii_lowercase())
    }

    /// One header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the disk has room for storing more.
    pub(crate) fn has_room(&self) -> bool {
        self.part.tools.has_room()
    }

    /// The node's source of randomness.
    pub(crate) fn random(&self) -> &dyn Random {
        self.part.tools.random.as_ref()
    }

    /// The same visitor as whoever `token` of `files/token` stands for; a stranger if it does not hold.
    pub(crate) async fn with_file_token(mut self, token: &str) -> Result<Self, Problem> {
        self.serial = None;
        self.identity = match self.part.auth.authenticate_file_token(&self.tenant, token).await {
            Ok(identity) => identity,
            Err(fault) if fault.code() == Code::TokenInvalid => Identity::anonymous(),
            Err(fault) => return Err(fault.into()),
        };
        Ok(self)
    }

    /// The request as it came.
    pub(crate) fn request(&self) -> &HttpRequest {
        &self.request
    }

    fn ip(&self) -> Option<Arc<str>> {
        client_ip(self.request.head(), &self.part).map(|address| Arc::from(address.to_string()))
    }

    fn context(&self, context: &str, body: Map<String, Value>) -> RequestContext {
        let context = context_of(&self.request, context, body, self.part.clock.now_ms());
        RequestContext { auth: self.identity.account().cloned(), ..context }
    }
}

/// A request as rules read it, of nobody yet.
fn context_of(request: &HttpRequest, context: &str, body: Map<String, Value>, now_ms: i64) -> RequestContext {
    RequestContext {
        context: Arc::from(context),
        method: Arc::from(request.method().as_str()),
        query: parameters(request).into_iter().collect(),
        headers: rule_headers(request.headers()),
        body,
        fresh: false,
        auth: None,
        now_ms,
    }
}

/// What one tenant may do and does.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    limits: TenantLimits,
    usage: Arc<TenantUsage>,
}

impl VisitPart {
    /// The budget of a tenant as its entry is now; the node itself has none.
    pub(crate) fn budget_of(&self, tenant: &TenantId) -> Option<Budget> {
        let entry = self.registry.entry(tenant)?;
        Some(Budget { limits: entry.limits.or(self.budgets.defaults()), usage: self.budgets.usage(tenant) })
    }
}

impl Budget {
    /// Counts a request of whoever `identity` is, and its connection; superusers are counted and never refused.
    pub(crate) fn admit(
        &self,
        connection: Option<&Connection>,
        intent: Intent,
        identity: &Identity,
        now_ms: i64,
    ) -> Result<UnderWay, Problem> {
        let standing = self.welcome(connection, identity)?;
        Ok(self.usage.admit(&self.limits, intent, standing, now_ms)?)
    }

    /// The same for a read that is answered before anything else happens on this thread.
    pub(crate) fn admit_at_once(
        &self,
        connection: Option<&Connection>,
        identity: &Identity,
        now_ms: i64,
    ) -> Result<(), Problem> {
        let standing = self.welcome(connection, identity)?;
        Ok(self.usage.admit_at_once(&self.limits, standing, now_ms)?)
    }

    /// Counts the connection at this tenant.
    fn welcome(&self, connection: Option<&Connection>, identity: &Identity) -> Result<Standing, Problem> {
        let standing = if identity.is_superuser() { Standing::Exempt } else { Standing::Bound };
        if let Some(connection) = connection {
            connection.go_to(&self.usage, &self.limits, standing)?;
        }
        Ok(standing)
    }
}

fn visit_part(request: &HttpRequest) -> Result<web::Data<VisitPart>, Problem> {
    request.app_data::<web::Data<VisitPart>>().cloned().ok_or_else(|| Problem::bare(Code::Internal))
}

/// The request id that a tenant's log keeps.
pub(crate) fn request_id(request: &HttpRequest) -> Arc<str> {
    request.extensions().get::<RequestId>().map_or_else(|| Arc::from(""), RequestId::to_noted)
}

/// The request id that answers show.
pub(crate) fn shown_request_id(request: &HttpRequest) -> String {
    request.extensions().get::<RequestId>().map_or_else(String::new, |id| id.as_str().to_owned())
}

/// The parsed query string, in its order.
pub(crate) fn parameters(request: &HttpRequest) -> Vec<(String, String)> {
    url::form_urlencoded::parse(request.query_string().as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// Superusers live in the control database alone, whatever tenant the address names.
fn names_superusers(request: &HttpRequest, part: &VisitPart) -> bool {
    let Some(collection) = request.match_info().get("collection") else { return false };
    collection == SUPERUSERS
        || part.registry.control().schema().find(SUPERUSERS).is_some_and(|found| found.id.as_str() == collection)
}

/// Only somebody on this machine who may read the folder can send the key.
fn is_node(request: &HttpRequest, part: &VisitPart, key: &str) -> bool {
    is_local(request) && part.node_key.matches(key)
}

fn node_identity(part: &VisitPart) -> Result<Identity, Problem> {
    let schema = part.registry.control().schema();
    let collection = schema.find(SUPERUSERS).cloned().ok_or_else(|| Problem::bare(Code::Internal))?;
    let id = RecordId::parse(NODE_ID).expect("invariant: the node's id is well formed");
    let account = Arc::new(AuthRecord { collection, record: RecordImage::new(id, []) });
    Ok(Identity { caller: Caller::Superuser(account), ..Identity::anonymous() })
}

/// Headers as `@request.headers` reads them: lower case, `_` for `-`; credentials stay out of reach of rules.
fn rule_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .filter(|(name, _)| *name != header::AUTHORIZATION && *name != header::COOKIE)
        .filter_map(|(name, value)| Some((name.as_str().replace('-', "_"), value.to_str().ok()?.to_owned())))
        .collect()
}
