//! Answers: JSON bytes as they are, entity tags and conditional reads.
//!
//! Keeps true: a body is handed to the socket without being copied; an answer that depends on who asked is never
//! publicly cacheable. Does not do: building JSON; services hand over finished bytes.

use crate::http::middleware::TenantPrefix;
use crate::http::problem::Problem;
use crate::services::records::Answer;
use crate::services::records::batch::{BatchAnswer, ItemAnswer};
use crate::services::records::write::Effect;
use crate::store::WriteToken;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
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

/// 200 with a record that was just written: its tag, and nothing to be cached.
pub(crate) fn fresh(answer: Answer) -> HttpResponse {
    let tag = etag(&answer.etag);
    let mut response = json_bytes(answer.body);
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// Adds what a write says about itself: `Tenantry-Token` names the transaction, `Idempotent-Replayed` an old answer.
pub(crate) fn with_write_token(mut response: HttpResponse, token: Option<&WriteToken>, replayed: bool) -> HttpResponse {
    if let Some(value) = token.and_then(|token| HeaderValue::from_str(&token.to_string()).ok()) {
        response.headers_mut().insert(HeaderName::from_static("tenantry-token"), value);
    }
    if replayed {
        response.headers_mut().insert(HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));
    }
    response
}

/// One page of a list: tagged like every read, with RFC 8288 links where a cursor goes on.
pub(crate) fn page(request: &HttpRequest, answer: Answer) -> HttpResponse {
    let links = [("next", &answer.links.next), ("prev", &answer.links.prev)];
    let lines: Vec<_> =
        links.into_iter().filter_map(|(name, cursor)| link(request, name, cursor.as_deref()?)).collect();
    let mut response = tagged(request, answer.body, &answer.etag);
    for line in lines {
        response.headers_mut().append(header::LINK, line);
    }
    response
}

/// The present address with another cursor.
fn link(request: &HttpRequest, name: &str, cursor: &str) -> Option<HeaderValue> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (key, value) in url::form_urlencoded::parse(request.query_string().as_bytes()) {
        if key != "cursor" && key != "page" {
            query.append_pair(&key, &value);
        }
    }
    query.append_pair("cursor", cursor);
    let prefix = request.extensions().get::<TenantPrefix>().map(|of| format!("/t/{}", of.0)).unwrap_or_default();
    HeaderValue::from_str(&format!("<{prefix}{}?{}>; rel=\"{name}\"", request.path(), query.finish())).ok()
}

/// The answers of a batch: `[{"status":200,"body":{…}}, …]`, in the order of the requests.
pub(crate) fn batch(answer: BatchAnswer, request_id: &str) -> HttpResponse {
    let mut out = vec![b'['];
    for (index, item) in answer.items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let (status, body) = match item {
            ItemAnswer::Done(done) if done.effect == Effect::Deleted => (204, Bytes::from_static(b"null")),
            ItemAnswer::Done(done) => (200, done.answer.body),
            ItemAnswer::Failed(fault) => {
                let problem = Problem::from(fault);
                (problem.status().as_u16(), Bytes::from(problem.to_json(request_id).to_string()))
            }
        };
        out.extend_from_slice(format!("{{\"status\":{status},\"body\":").as_bytes());
        out.extend_from_slice(&body);
        out.push(b'}');
    }
    out.push(b']');
    json_bytes(Bytes::from(out))
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
