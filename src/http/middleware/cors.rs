//! Requests from pages of other origins (the Fetch standard, "HTTP CORS protocol").
//!
//! Keeps true: credentials of the browser (cookies) are never allowed, so an open `*` gives a page nothing that its
//! visitor's token does not; a tenant's own list replaces the node's. Every answer says in `Vary` that it depends on the
//! origin, also one to a request without: a cache must not give that to a page, which could not read it.
//! Does not do: tokens; a page sends those itself.

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use std::sync::Arc;

/// Seconds for which a browser may remember a preflight.
const MAX_AGE_S: &str = "86400";
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// What scripts may read besides the headers every script may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "ETag, Link, Retry-After, X-Request-Id, X-Cache, Tenantry-Token, Idempotent-Replayed, Content-Disposition, \
     RateLimit, RateLimit-Policy",
);

/// The origins whose pages may call: scheme, host and port each; `*` is every origin.
#[derive(Debug, Clone)]
pub(crate) struct Origins(Vec<Arc<str>>);

/// What one request's page may do.
#[derive(Debug, Clone)]
pub(super) struct Grant(Option<HeaderValue>);

impl Origins {
    pub(crate) fn new(origins: Vec<String>) -> Self {
        Self(origins.into_iter().map(Arc::from).collect())
    }

    /// What a page of `origin` may do, by the tenant's `own` list if it has one.
    pub(super) fn grant(&self, origin: &HeaderValue, own: Option<&[Arc<str>]>) -> Grant {
        let known = own.unwrap_or(&self.0);
        if known.iter().any(|known| &**known == "*") {
            return Grant(Some(HeaderValue::from_static("*")));
        }
        let allowed = origin.to_str().is_ok_and(|text| known.iter().any(|known| known.eq_ignore_ascii_case(text)));
        Grant(allowed.then(|| origin.clone()))
    }
}

/// Tells caches that an answer depends on the page that asks.
pub(super) fn tell_caches(answer: &mut HeaderMap) {
    let says_so = |vary: &HeaderValue| {
        vary.to_str().is_ok_and(|names| names.split(',').any(|name| name.trim().eq_ignore_ascii_case("origin")))
    };
    if !answer.get_all(header::VARY).any(says_so) {
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// Whether a request with these headers is a preflight.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

impl Grant {
    /// The answer to a preflight.
    pub(super) fn preflight(&self, headers: &HeaderMap) -> HttpResponse {
        let mut response = HttpResponse::NoContent().finish();
        if self.0.is_some() {
            let answer = response.headers_mut();
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
            if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            }
        }
        response
    }

    /// Lets the page that asked read the answer.
    pub(super) fn open(&self, answer: &mut HeaderMap) {
        if let Some(allowed) = &self.0 {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed.clone());
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}
