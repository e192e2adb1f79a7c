//! Answers: JSON bytes as they are, entity tags and conditional reads.
//!
//! Keeps true: a body is handed to the socket without being copied; an answer that depends on who asked is never
//! publicly cacheable. Does not do: building JSON; services hand over finished bytes.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use serde::Serialize;

/// The media type of every successful JSON answer.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What an answer for one caller says to caches between here and there.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const VARY: HeaderValue = HeaderValue::from_static("Authorization, X-Tenant, Accept-Encoding");

/// 200 with `body`, which must be JSON, and nothing to be cached.
pub(crate) fn json_bytes(body: Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, JSON))
        .insert_header((header::CACHE_CONTROL, NO_STORE))
        .body(body)
}

/// 200 with `value` written as JSON.
pub(crate) fn json(value: &impl Serialize) -> HttpResponse {
    // Maps with text keys and plain structs always serialise.
    json_bytes(Bytes::from(serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec())))
}

/// 204.
pub(crate) fn no_content() -> HttpResponse {
    HttpResponse::NoContent().finish()
}

/// A read with its SHA-256 tag: 304 without a body if the caller has it already (RFC 9110, 13.1.2).
pub(crate) fn tagged(request: &HttpRequest, body: Bytes, digest: &[u8; 32]) -> HttpResponse {
    let tag = etag(digest);
    let mut answer = if matches_tag(request, &tag) { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    let fresh = answer
        .insert_header((header::ETAG, tag))
        .insert_header((header::CACHE_CONTROL, PRIVATE))
        .insert_header((header::VARY, VARY))
        .finish();
    if fresh.status() == StatusCode::NOT_MODIFIED {
        return fresh;
    }
    let mut full = fresh.set_body(BoxBody::new(body));
    full.headers_mut().insert(header::CONTENT_TYPE, JSON);
    full
}

/// A strong entity tag: the digest in hexadecimal, quoted.
fn etag(digest: &[u8; 32]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut tag = String::with_capacity(66);
    tag.push('"');
    for byte in digest {
        for nibble in [byte >> 4, byte & 15] {
            tag.push(HEX.get(usize::from(nibble)).map_or('0', |letter| char::from(*letter)));
        }
    }
    tag.push('"');
    tag
}

/// Whether `If-None-Match` names `tag` or `*`; the comparison is weak, as RFC 9110 asks for reads.
fn matches_tag(request: &HttpRequest, tag: &str) -> bool {
    request.headers().get_all(header::IF_NONE_MATCH).filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|offered| offered == "*" || offered.trim_start_matches("W/") == tag)
    })
}
