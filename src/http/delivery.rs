//! Reads on their way out: conditional answers, content codings, what shared caches are told.
//!
//! Keeps true: a 304 costs neither SQLite nor compression; a body is compressed once and kept with its entry; an answer
//! that depends on who asks is `private`; the entity tag names the body that is sent (RFC 9110, 8.8.3).
//! Does not do: deciding what may be kept, that is `services::records`.

use crate::cache::Source;
use crate::cache::compress::{COMPRESS_BYTES_MIN, Encoding, Levels, encode, negotiate};
use crate::cache::entry::{EntityTag, none_match};
use crate::http::front::Told;
use crate::http::middleware::TenantPrefix;
use crate::http::range::{self, Range};
use crate::http::respond;
use crate::kernel::digest::Sha256;
use crate::services::records::PageLinks;
use crate::services::records::cached::ServedBody;
use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::dev::RequestHead;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use bytes::Bytes;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// Bodies from this size on say that parts of them can be had; smaller ones are not worth another request.
const PARTS_BYTES_MIN: usize = 64 * 1024;

/// 200 with the best coding the client takes, or 304 if it has the answer already.
///
/// `prefix` is what was taken off the address in `head`; `links` lead to the pages beside this one; `told` is what other
/// caches hear.
pub(crate) fn read(
    head: &RequestHead,
    prefix: Option<&TenantPrefix>,
    served: &ServedBody,
    links: &PageLinks,
    told: &Told,
) -> HttpResponse {
    // With the headers that a 200 and a 304 share (RFC 9110, 15.4.5).
    let begin = |status: StatusCode, tag: Option<HeaderValue>| {
        let mut response = HttpResponse::new(status);
        let headers = response.headers_mut();
        if let Some(tag) = tag {
            headers.insert(header::ETAG, tag);
        }
        if let Some(control) = &told.cache_control {
            headers.insert(header::CACHE_CONTROL, control.clone());
        }
        headers.insert(header::VARY, told.vary.clone());
        headers.insert(X_CACHE, HeaderValue::from_static(source_of(served).as_str()));
        if let Some(tags) = &told.cache_tag {
            headers.insert(CACHE_TAG, tags.clone());
        }
        for line in respond::link_lines(&head.uri, prefix, links) {
            headers.append(header::LINK, line);
        }
        response
    };
    let (body, etag) = (body_of(served), etag_of(served));
    let encoding = match body.len() {
        len if len < COMPRESS_BYTES_MIN => Encoding::Identity,
        _ => negotiate(values(head, &header::ACCEPT_ENCODING)),
    };
    let offered = || head.headers.get_all(header::IF_NONE_MATCH);
    if offered().next().is_some() {
        let tag = EntityTag::new(etag, encoding);
        // Most clients send exactly what they were sent, and get it back as it is.
        if let Some(same) = offered().find(|offered| *offered == tag.as_bytes()) {
            return begin(StatusCode::NOT_MODIFIED, Some(same.clone()));
        }
        let plain = EntityTag::new(etag, Encoding::Identity);
        let mut offered = offered().filter_map(|value| value.to_str().ok());
        // With the tag of the coding they have, or a cache might not know which of its answers is meant (RFC 9111, 4.3.4).
        if let Some(held) = offered.find_map(|offered| none_match(offered, plain.as_str(), encoding)) {
            return begin(StatusCode::NOT_MODIFIED, value_of(&EntityTag::new(etag, held)));
        }
    }
    if let Some(part) = part(head, body, etag, begin) {
        return part;
    }
    let coded = match (served, encoding) {
        (_, Encoding::Identity) => None,
        (ServedBody::Kept(answer), _) => answer.coded(encoding),
        (ServedBody::Made(answer), _) => encode(&answer.body, encoding, Levels::default()),
    };
    let encoding = if coded.is_some() { encoding } else { Encoding::Identity };
    let (original, sent) = (body.len(), coded.unwrap_or_else(|| body.clone()));
    let mut response = begin(StatusCode::OK, value_of(&EntityTag::new(etag, encoding)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, respond::JSON);
    if encoding != Encoding::Identity {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
    }
    if original >= PARTS_BYTES_MIN && encoding == Encoding::Identity {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    if head.headers.get("x-debug-size").is_some_and(|value| value == "1") {
        add_sizes(headers, original, sent.len());
    }
    response.set_body(BoxBody::new(sent))
}

/// The uncoded body.
fn body_of(served: &ServedBody) -> &Bytes {
    match served {
        ServedBody::Kept(answer) => answer.body(),
        ServedBody::Made(answer) => &answer.body,
    }
}

/// SHA-256 of the uncoded body.
fn etag_of(served: &ServedBody) -> &Sha256 {
    match served {
        ServedBody::Kept(answer) => answer.entry().etag(),
        ServedBody::Made(answer) => &answer.etag,
    }
}

fn source_of(served: &ServedBody) -> Source {
    match served {
        ServedBody::Kept(answer) => answer.source(),
        ServedBody::Made(_) => Source::Bypass,
    }
}

fn value_of(tag: &EntityTag) -> Option<HeaderValue> {
    HeaderValue::from_bytes(tag.as_bytes()).ok()
}

/// 206 with a part of the uncoded body, or 416; `None` where the whole is wanted.
///
/// Parts are of the uncoded body alone: the level of compression may change between two answers, and with it the bytes
/// behind one tag.
fn part(
    head: &RequestHead,
    body: &Bytes,
    etag: &Sha256,
    begin: impl Fn(StatusCode, Option<HeaderValue>) -> HttpResponse,
) -> Option<HttpResponse> {
    let wanted = values(head, &header::RANGE).next().filter(|_| head.method == Method::GET)?;
    let tag = EntityTag::new(etag, Encoding::Identity);
    // A part of another answer would not fit; only the strong tag of these bytes says that it does.
    if !values(head, &header::IF_RANGE).all(|known| known.trim() == tag.as_str()) {
        return None;
    }
    let size = body.len() as u64;
    let (first, last) = match Range::parse(wanted, size) {
        Range::Whole => return None,
        Range::Outside => return Some(HttpResponse::from_error(range::outside(size))),
        Range::Part(first, last) => (first, last),
    };
    let within = usize::try_from(first).ok().zip(usize::try_from(last).ok())?;
    let mut response = begin(StatusCode::PARTIAL_CONTENT, value_of(&tag));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, respond::JSON);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert(headers, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{size}"));
    Some(response.set_body(BoxBody::new(body.slice(within.0..=within.1))))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn values<'request>(head: &'request RequestHead, name: &HeaderName) -> impl Iterator<Item = &'request str> {
    head.headers.get_all(name).filter_map(|value| value.to_str().ok())
}

/// `X-Original-Size`, `X-Compressed-Size` in bytes and `X-Compression-Ratio`, the share that was saved (0 to 1).
fn add_sizes(headers: &mut HeaderMap, original: usize, sent: usize) {
    #[expect(clippy::cast_precision_loss, reason = "bodies are far below 2^52 bytes")]
    let saved = 1.0 - sent as f64 / original.max(1) as f64;
    insert(headers, HeaderName::from_static("x-original-size"), &original.to_string());
    insert(headers, HeaderName::from_static("x-compressed-size"), &sent.to_string());
    insert(headers, HeaderName::from_static("x-compression-ratio"), &format!("{saved:.3}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::records::Answer;
    use actix_web::test::TestRequest;

    #[test]
    fn a_read_that_leaves_allocates_next_to_nothing() {
        let answer = Answer::new(b"{}".to_vec());
        let tag = answer.tag();
        let (served, links, told) = (ServedBody::Made(answer), PageLinks::default(), Told::default());
        for (request, status, allocations_max) in [
            (TestRequest::get(), StatusCode::OK, 2),
            (TestRequest::get().insert_header((header::IF_NONE_MATCH, tag)), StatusCode::NOT_MODIFIED, 0),
        ] {
            let request = request.to_http_request();
            let send = || assert_eq!(read(request.head(), None, &served, &links, &told).status(), status);
            // The first one leaves its head behind for the others.
            send();
            let found = allocation_counter::measure(send);
            assert!(found.count_total <= allocations_max, "{status}: {found:?}");
        }
    }
}
