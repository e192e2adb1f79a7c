//! Requests from pages of other origins (the Fetch standard, "HTTP CORS protocol").
//!
//! Keeps true: credentials of the browser (cookies) are never allowed, so an open `*` gives a page nothing that its
//! visitor's token does not. Does not do: tokens; a page sends those itself.

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};

/// Seconds for which a browser may remember a preflight.
const MAX_AGE_S: &str = "86400";
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// What scripts may read besides the headers every script may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "ETag, Link, Retry-After, X-Request-Id, X-Cache, Tenantry-Token, Idempotent-Replayed, Content-Disposition, \
     RateLimit, RateLimit-Policy",
);

/// The origins whose pages may call.
#[derive(Debug, Clone)]
pub(crate) struct Origins(Vec<String>);

impl Origins {
    /// Scheme, host and port each; `*` is every origin.
    pub(crate) fn new(origins: Vec<String>) -> Self {
        Self(origins)
    }

    /// What to answer a page of `origin` with, if it may call.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.0.iter().any(|known| known == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?;
        self.0.iter().any(|known| known.eq_ignore_ascii_case(text)).then(|| origin.clone())
    }

    /// The answer to a preflight, if this is one.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<HttpResponse> {
        let origin = headers.get(header::ORIGIN)?;
        if method != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = HttpResponse::NoContent().finish();
        let answer = response.headers_mut();
        if let Some(allowed) = self.allowed(origin) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
            if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            }
        }
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
        Some(response)
    }

    /// Lets the page that asked read the answer.
    pub(super) fn open(&self, origin: &HeaderValue, answer: &mut HeaderMap) {
        if let Some(allowed) = self.allowed(origin) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}
