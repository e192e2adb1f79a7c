//! Answers of writes and reports: JSON bytes as they are, never to be cached; reads leave through `delivery`.
//!
//! Keeps true: a body is handed to the socket without being copied. Does not do: building JSON; services hand over finished bytes.

use crate::http::middleware::TenantPrefix;
use crate::http::problem::Problem;
use crate::services::records::batch::{BatchAnswer, ItemAnswer};
use crate::services::records::write::Effect;
use crate::services::records::{Answer, PageLinks};
use crate::store::WriteToken;
use actix_web::HttpResponse;
use actix_web::http::Uri;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use bytes::Bytes;
use serde::Serialize;

/// The media type of every successful JSON answer.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

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

/// 202 with `body`, which must be JSON: taken, and nothing of it told yet.
pub(crate) fn accepted(body: Bytes) -> HttpResponse {
    HttpResponse::Accepted()
        .insert_header((header::CONTENT_TYPE, JSON))
        .insert_header((header::CACHE_CONTROL, NO_STORE))
        .body(body)
}

/// 204.
pub(crate) fn no_content() -> HttpResponse {
    HttpResponse::NoContent().finish()
}

/// 200 with a record that was just written: its tag, and nothing to be cached.
pub(crate) fn fresh(answer: Answer) -> HttpResponse {
    let tag = HeaderValue::from_str(&answer.tag());
    let mut response = json_bytes(answer.body);
    if let Ok(value) = tag {
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

/// RFC 8288 links to the pages beside one; `prefix` was taken off the address of the request.
pub(crate) fn link_lines(address: &Uri, prefix: Option<&TenantPrefix>, links: &PageLinks) -> Vec<HeaderValue> {
    let named = [("next", &links.next), ("prev", &links.prev)];
    named.into_iter().filter_map(|(name, cursor)| link(address, prefix, name, cursor.as_deref()?)).collect()
}

/// The present address with another cursor.
fn link(address: &Uri, prefix: Option<&TenantPrefix>, name: &str, cursor: &str) -> Option<HeaderValue> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (key, value) in url::form_urlencoded::parse(address.query().unwrap_or_default().as_bytes()) {
        if key != "cursor" && key != "page" {
            query.append_pair(&key, &value);
        }
    }
    query.append_pair("cursor", cursor);
    let prefix = prefix.map(|of| format!("/t/{}", of.0)).unwrap_or_default();
    HeaderValue::from_str(&format!("<{prefix}{}?{}>; rel=\"{name}\"", address.path(), query.finish())).ok()
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
