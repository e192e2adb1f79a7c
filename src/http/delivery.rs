//! Reads on their way out: conditional answers, content codings, what shared caches are told.
//!
//! Keeps true: a 304 costs neither SQLite nor compression; a body is compressed once and kept with its entry; an answer
//! that depends on who asks is `private`; the entity tag names the bytes that are sent (RFC 9110, 8.8.3).
//! Does not do: deciding what may be kept, that is `services::records`.

use crate::cache::Source;
use crate::cache::compress::{COMPRESS_BYTES_MIN, Encoding, Levels, encode, negotiate};
use crate::cache::entry::{coded_tag, entity_tag, none_match};
use crate::http::front::Told;
use crate::http::range::{self, Range};
use crate::http::respond;
use crate::services::records::cached::{Served, ServedBody};
use actix_web::body::BoxBody;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// Bodies from this size on say that parts of them can be had; smaller ones are not worth another request.
const PARTS_BYTES_MIN: usize = 64 * 1024;

/// 200 with the best coding the client takes, or 304 if it has the answer already.
///
/// `told` is what `served` says to other caches, in its form on the wire.
pub(crate) fn read(request: &HttpRequest, served: &Served, told: &Told) -> HttpResponse {
    let (body, tags) = (body_of(served), Tags::of(served));
    let encoding = match body.len() {
        len if len < COMPRESS_BYTES_MIN => Encoding::Identity,
        _ => negotiate(values(request, &header::ACCEPT_ENCODING)),
    };
    let mut offered = values(request, &header::IF_NONE_MATCH).peekable();
    if offered.peek().is_some() && offered.any(|offered| none_match(offered, tags.plain())) {
        let mut unchanged = HttpResponse::NotModified().finish();
        describe(&mut unchanged, request, served, told, tags.of_coding(encoding));
        return unchanged;
    }
    if let Some(part) = part(request, served, told, &tags) {
        return part;
    }
    let coded = match (&served.body, encoding) {
        (_, Encoding::Identity) => None,
        (ServedBody::Kept(answer), _) => answer.coded(encoding),
        (ServedBody::Made(answer), _) => encode(&answer.body, encoding, Levels::default()),
    };
    let encoding = if coded.is_some() { encoding } else { Encoding::Identity };
    let (original, sent) = (body.len(), coded.unwrap_or_else(|| body.clone()));
    let mut response = HttpResponse::Ok().finish();
    describe(&mut response, request, served, told, tags.of_coding(encoding));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, respond::JSON);
    if encoding != Encoding::Identity {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
    }
    if original >= PARTS_BYTES_MIN && encoding == Encoding::Identity {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    if request.headers().get("x-debug-size").is_some_and(|value| value == "1") {
        add_sizes(headers, original, sent.len());
    }
    response.set_body(BoxBody::new(Bytes::clone(&sent)))
}

/// The uncoded body.
fn body_of(served: &Served) -> &Bytes {
    match &served.body {
        ServedBody::Kept(answer) => answer.body(),
        ServedBody::Made(answer) => &answer.body,
    }
}

/// The entity tags of one answer; that of the uncoded body is kept with the answer, where the answer is kept.
struct Tags(Bytes);

impl Tags {
    fn of(served: &Served) -> Self {
        Self(match &served.body {
            ServedBody::Kept(answer) => answer.entry().etag_bytes().clone(),
            ServedBody::Made(answer) => Bytes::from(entity_tag(&answer.etag, Encoding::Identity)),
        })
    }

    /// The tag of the uncoded body.
    fn plain(&self) -> &str {
        std::str::from_utf8(&self.0).expect("invariant: a tag is hexadecimal in quotes")
    }

    /// The tag in a coding, as it stands in a header.
    fn of_coding(&self, encoding: Encoding) -> Bytes {
        match encoding {
            Encoding::Identity => self.0.clone(),
            _ => Bytes::from(coded_tag(self.plain(), encoding)),
        }
    }
}

/// 206 with a part of the uncoded body, or 416; `None` where the whole is wanted.
///
/// Parts are of the uncoded body alone: the level of compression may change between two answers, and with it the bytes
/// behind one tag.
fn part(request: &HttpRequest, served: &Served, told: &Told, tags: &Tags) -> Option<HttpResponse> {
    let wanted = values(request, &header::RANGE).next().filter(|_| *request.method() == Method::GET)?;
    let body = body_of(served);
    // A part of another answer would not fit; only the strong tag of these bytes says that it does.
    if !values(request, &header::IF_RANGE).all(|known| known.trim() == tags.plain()) {
        return None;
    }
    let size = body.len() as u64;
    let (first, last) = match Range::parse(wanted, size) {
        Range::Whole => return None,
        Range::Outside => return Some(HttpResponse::from_error(range::outside(size))),
        Range::Part(first, last) => (first, last),
    };
    let within = usize::try_from(first).ok().zip(usize::try_from(last).ok())?;
    let mut response = HttpResponse::PartialContent().finish();
    describe(&mut response, request, served, told, tags.of_coding(Encoding::Identity));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, respond::JSON);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert(headers, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{size}"));
    Some(response.set_body(BoxBody::new(body.slice(within.0..=within.1))))
}

/// The headers that a 200 and a 304 share (RFC 9110, 15.4.5).
fn describe(response: &mut HttpResponse, request: &HttpRequest, served: &Served, told: &Told, tag: Bytes) {
    let source = match &served.body {
        ServedBody::Kept(answer) => answer.source(),
        ServedBody::Made(_) => Source::Bypass,
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_maybe_shared(tag) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(control) = &told.cache_control {
        headers.insert(header::CACHE_CONTROL, control.clone());
    }
    headers.insert(header::VARY, told.vary.clone());
    headers.insert(X_CACHE, HeaderValue::from_static(source.as_str()));
    if let Some(tags) = &told.cache_tag {
        headers.insert(CACHE_TAG, tags.clone());
    }
    for line in respond::link_lines(request, &served.links) {
        headers.append(header::LINK, line);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn values<'request>(request: &'request HttpRequest, name: &HeaderName) -> impl Iterator<Item = &'request str> {
    request.headers().get_all(name).filter_map(|value| value.to_str().ok())
}

/// `X-Original-Size`, `X-Compressed-Size` in bytes and `X-Compression-Ratio`, the share that was saved (0 to 1).
fn add_sizes(headers: &mut HeaderMap, original: usize, sent: usize) {
    #[expect(clippy::cast_precision_loss, reason = "bodies are far below 2^52 bytes")]
    let saved = 1.0 - sent as f64 / original.max(1) as f64;
    insert(headers, HeaderName::from_static("x-original-size"), &original.to_string());
    insert(headers, HeaderName::from_static("x-compressed-size"), &sent.to_string());
    insert(headers, HeaderName::from_static("x-compression-ratio"), &format!("{saved:.3}"));
}
