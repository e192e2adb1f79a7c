//! Limits on requests: by address before anything else, by tenant and by account once they are known.
//!
//! Keeps true: keys come only from facts the node knows (the peer, or what a trusted proxy says; the checked token);
//! every refusal says which limit, how much and when; answers carry `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers). Superusers are not counted against a tenant, so a noisy tenant can be helped.
//! Does not do: failed logins, those are `services::auth`.

use crate::http::problem::Problem;
use crate::kernel::clock::Clock;
use crate::kernel::error::Code;
use crate::kernel::ident::TenantId;
use crate::services::auth::{Caller, Identity};
use crate::services::throttle::{Quota, Standing, Throttle, address_group};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The limits of the node; `None` is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestQuotas {
    pub(crate) address: Option<Quota>,
    pub(crate) account: Option<Quota>,
    pub(crate) tenant: Option<Quota>,
}

/// Counts requests; shared by all workers.
#[derive(Debug)]
pub(crate) struct RequestLimits {
    address: Option<Throttle>,
    account: Option<Throttle>,
    tenant: Option<Throttle>,
    clock: Arc<dyn Clock>,
}

/// Which limits a request was counted against, kept with the request until its answer leaves.
#[derive(Debug, Clone, Default)]
struct Counted(Vec<(&'static str, Quota, Standing)>);

impl RequestLimits {
    pub(crate) fn new(quotas: RequestQuotas, clock: Arc<dyn Clock>) -> Self {
        Self {
            address: quotas.address.map(Throttle::new),
            account: quotas.account.map(Throttle::new),
            tenant: quotas.tenant.map(Throttle::new),
            clock,
        }
    }

    /// Counts a request of `address`.
    pub(crate) fn count_address(
        &self,
        request: &HttpRequest,
        address: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<(), Problem> {
        let Some(throttle) = &self.address else { return Ok(()) };
        match address().map(address_group) {
            Some(address) => self.count(request, throttle, "address", &address),
            None => Ok(()),
        }
    }

    /// Counts a request at `tenant` by whoever `identity` is.
    pub(crate) fn count_caller(
        &self,
        request: &HttpRequest,
        tenant: &TenantId,
        identity: &Identity,
    ) -> Result<(), Problem> {
        if let Some(throttle) = self.tenant.as_ref().filter(|_| !identity.is_superuser()) {
            self.count(request, throttle, "tenant", tenant)?;
        }
        let Some(throttle) = &self.account else { return Ok(()) };
        match (&identity.key, &identity.caller) {
            (Some(key), _) => self.count(request, throttle, "key", &(tenant, &*key.id)),
            (None, Caller::Record(account)) => {
                self.count(request, throttle, "account", &(tenant, &account.collection.id, &account.record.id))
            }
            (None, Caller::Anonymous | Caller::Superuser(_)) => Ok(()),
        }
    }

    fn count(
        &self,
        request: &HttpRequest,
        throttle: &Throttle,
        what: &'static str,
        key: &impl std::hash::Hash,
    ) -> Result<(), Problem> {
        let (quota, standing) = (*throttle.quota(), throttle.take(key, self.clock.now_ms()));
        let mut extensions = request.extensions_mut();
        match extensions.get_mut::<Counted>() {
            Some(counted) => counted.0.push((what, quota, standing)),
            None => drop(extensions.insert(Counted(vec![(what, quota, standing)]))),
        }
        if standing.allowed {
            return Ok(());
        }
        let (permits, window_s, retry_s) = (quota.permits(), quota.window_s(), standing.retry_after_s);
        let message = format!(
            "Too many requests of this {what}: {permits} per {window_s} s are allowed; try again in {retry_s} s."
        );
        Err(Problem::new(Code::RateLimited, message).with_retry_after_s(retry_s))
    }
}

/// What the answer says about where its request stands; nothing if no limit applied.
pub(super) fn headers_of(request: &HttpRequest) -> Vec<(HeaderName, HeaderValue)> {
    let extensions = request.extensions();
    let Some(Counted(counted)) = extensions.get::<Counted>() else { return Vec::new() };
    let (mut policy, mut limit) = (String::with_capacity(64), String::with_capacity(64));
    for (what, quota, standing) in counted {
        let separator = if policy.is_empty() { "" } else { ", " };
        // Writing into a String cannot fail.
        let _ = write!(policy, "{separator}\"{what}\";q={};w={}", quota.permits(), quota.window_s());
        let _ = write!(limit, "{separator}\"{what}\";r={};t={}", standing.remaining, standing.reset_s);
    }
    let lines = [(POLICY, policy), (LIMIT, limit)];
    lines.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?))).collect()
}
