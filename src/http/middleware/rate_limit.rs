//! Limits on requests: by address before anything else, by tenant and by account once they are known.
//!
//! Keeps true: keys come only from facts the node knows (the peer, or what a trusted proxy says; the checked token);
//! every refusal says which limit, how much and when; answers carry `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers) wherever a limit is low enough, or used enough, to be of interest. Superusers are
//! not counted against a tenant, so a noisy tenant can be helped.
//! Does not do: failed logins, those are `services::auth`.

use crate::http::problem::Problem;
use crate::kernel::error::Code;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::services::auth::{Caller, Identity};
use crate::services::throttle::{Quota, Standing, Throttle, address_group};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest};
use bytes::Bytes;
use std::net::IpAddr;

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
}

/// Which limits a request was counted against, kept with the request until its answer leaves: at most its address, its
/// tenant, and its account or key.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted([Option<Count>; 3]);

#[derive(Debug, Clone, Copy)]
struct Count {
    what: &'static str,
    quota: Quota,
    standing: Standing,
}

impl Count {
    /// Two lines in every answer would be a poor price for hearing that millions of requests are left.
    fn is_of_interest(&self) -> bool {
        let permits = self.quota.permits();
        permits <= limits::RATE_TOLD_PERMITS_MAX || self.standing.remaining <= permits - permits / 10
    }
}

impl Counted {
    fn add(&mut self, count: Count) {
        if let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(count);
        }
    }

    /// Leaves the counts with `request`, for its answer.
    pub(crate) fn keep_with(self, request: &HttpRequest) {
        let mut extensions = request.extensions_mut();
        match extensions.get_mut::<Self>() {
            Some(counted) => self.0.into_iter().flatten().for_each(|count| counted.add(count)),
            None => drop(extensions.insert(self)),
        }
    }
}

impl RequestLimits {
    pub(crate) fn new(quotas: RequestQuotas) -> Self {
        Self {
            address: quotas.address.map(Throttle::new),
            account: quotas.account.map(Throttle::new),
            tenant: quotas.tenant.map(Throttle::new),
        }
    }

    /// Counts a request of `address` at `now_ms`.
    pub(crate) fn count_address(
        &self,
        counted: &mut Counted,
        address: impl FnOnce() -> Option<IpAddr>,
        now_ms: i64,
    ) -> Result<(), Problem> {
        let Some(throttle) = &self.address else { return Ok(()) };
        match address().map(address_group) {
            Some(address) => count(counted, throttle, "address", &address, now_ms),
            None => Ok(()),
        }
    }

    /// Counts a request at `tenant` by whoever `identity` is, at `now_ms`.
    pub(crate) fn count_caller(
        &self,
        counted: &mut Counted,
        tenant: &TenantId,
        identity: &Identity,
        now_ms: i64,
    ) -> Result<(), Problem> {
        if let Some(throttle) = self.tenant.as_ref().filter(|_| !identity.is_superuser()) {
            count(counted, throttle, "tenant", tenant, now_ms)?;
        }
        let Some(throttle) = &self.account else { return Ok(()) };
        match (&identity.key, &identity.caller) {
            (Some(key), _) => count(counted, throttle, "key", &(tenant, &*key.id), now_ms),
            (None, Caller::Record(account)) => {
                count(counted, throttle, "account", &(tenant, &account.collection.id, &account.record.id), now_ms)
            }
            (None, Caller::Anonymous | Caller::Superuser(_)) => Ok(()),
        }
    }
}

fn count(
    counted: &mut Counted,
    throttle: &Throttle,
    what: &'static str,
    key: &impl std::hash::Hash,
    now_ms: i64,
) -> Result<(), Problem> {
    let (quota, standing) = (*throttle.quota(), throttle.take(key, now_ms));
    counted.add(Count { what, quota, standing });
    if standing.allowed {
        return Ok(());
    }
    let (permits, window_s, retry_s) = (quota.permits(), quota.window_s(), standing.retry_after_s);
    let message =
        format!("Too many requests of this {what}: {permits} per {window_s} s are allowed; try again in {retry_s} s.");
    Err(Problem::new(Code::RateLimited, message).with_retry_after_s(retry_s))
}

/// What the answer says about where its request stands; nothing if no limit applied.
pub(super) fn describe(headers: &mut HeaderMap, counted: &Counted) {
    let mut counts = counted.0.iter().flatten().filter(|count| count.is_of_interest()).peekable();
    if counts.peek().is_none() {
        return;
    }
    let (mut policy, mut limit) = (Vec::with_capacity(48), Vec::with_capacity(48));
    for (at, Count { what, quota, standing }) in counts.enumerate() {
        for line in [&mut policy, &mut limit] {
            line.extend_from_slice(if at > 0 { b", \"" } else { b"\"" });
            line.extend_from_slice(what.as_bytes());
        }
        push_number(&mut policy, b"\";q=", quota.permits());
        push_number(&mut policy, b";w=", quota.window_s());
        push_number(&mut limit, b"\";r=", standing.remaining);
        push_number(&mut limit, b";t=", standing.reset_s);
    }
    for (name, line) in [(POLICY, policy), (LIMIT, limit)] {
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(line)) {
            headers.insert(name, value);
        }
    }
}

/// Every answer has these numbers, so they are written without the machinery of `format!`.
fn push_number(line: &mut Vec<u8>, before: &[u8], number: u32) {
    line.extend_from_slice(before);
    let (mut digits, mut rest, mut from) = ([0_u8; 10], number, 10);
    loop {
        from -= 1;
        if let Some(digit) = digits.get_mut(from) {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    line.extend_from_slice(digits.get(from..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_where_it_is_low_or_a_tenth_of_it_used() {
        let told = |permits: u32, remaining: u32| {
            let standing = Standing { allowed: true, remaining, reset_s: 1, retry_after_s: 0 };
            let mut counted = Counted::default();
            counted.add(Count { what: "address", quota: Quota::new(permits, 60).unwrap(), standing });
            let mut headers = HeaderMap::new();
            describe(&mut headers, &counted);
            (headers.contains_key(LIMIT), headers.contains_key(POLICY))
        };
        for (permits, remaining, expected) in [
            (5, 4, true),
            (10_000, 9_999, true),
            (10_001, 10_000, false),
            (3_000_000, 2_700_001, false),
            (3_000_000, 2_700_000, true),
            (3_000_000, 0, true),
        ] {
            assert_eq!(told(permits, remaining), (expected, expected), "{remaining} of {permits}");
        }
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 4_294_967_295] {
            let mut line = Vec::new();
            push_number(&mut line, b"n=", number);
            assert_eq!(String::from_utf8(line).unwrap(), format!("n={number}"));
        }
    }
}
