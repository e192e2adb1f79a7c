//! The yardstick's memory: encoded answers in quick_cache with their tag and, once asked for, their compressed forms.
//!
//! Keeps true: no list is served after a create that it would show; the counters are per tournament, as a good hand
//! would write it. Does not do: a second tier, single-flight, shares, statistics.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Bytes;
use base64::Engine as _;
use parking_lot::RwLock;
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Entries kept; more than a bench asks for.
const ENTRIES_MAX: usize = 50_000;

/// All cached answers and the counters that age them.
pub(crate) struct Memory {
    answers: Cache<String, Arc<Cached>>,
    players: AtomicU64,
    tournaments: RwLock<HashMap<String, u64>>,
}

impl Memory {
    /// An empty memory.
    pub(crate) fn new() -> Self {
        Self { answers: Cache::new(ENTRIES_MAX), players: AtomicU64::new(1), tournaments: RwLock::default() }
    }

    /// The stamp of lists over all players.
    pub(crate) fn players(&self) -> u64 {
        self.players.load(Ordering::Acquire)
    }

    /// The stamp of lists over the players of one tournament.
    pub(crate) fn tournament(&self, id: &str) -> u64 {
        self.tournaments.read().get(id).copied().unwrap_or(0)
    }

    /// Ages what a new player changes.
    pub(crate) fn player_added(&self, tournament: &str) {
        self.players.fetch_add(1, Ordering::AcqRel);
        let mut counters = self.tournaments.write();
        match counters.get_mut(tournament) {
            Some(counter) => *counter += 1,
            None => {
                counters.insert(tournament.to_owned(), 1);
            }
        }
    }

    /// The answer kept for `path`, if it is as new as `stamp`.
    pub(crate) fn find(&self, path: &str, stamp: u64) -> Option<Arc<Cached>> {
        self.answers.get(path).filter(|cached| cached.stamp == stamp)
    }

    /// Keeps an answer.
    pub(crate) fn keep(&self, path: &str, cached: Cached) -> Arc<Cached> {
        let cached = Arc::new(cached);
        self.answers.insert(path.to_owned(), Arc::clone(&cached));
        cached
    }
}

/// One encoded answer.
pub(crate) struct Cached {
    body: Bytes,
    etag: HeaderValue,
    stamp: u64,
    gzip: OnceLock<Bytes>,
    brotli: OnceLock<Bytes>,
    zstd: OnceLock<Bytes>,
}

impl Cached {
    /// Takes a body; the tag is its SHA-256.
    pub(crate) fn new(body: Vec<u8>, stamp: u64) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, &body);
        let tag = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
        let etag = HeaderValue::from_str(&format!("\"{tag}\"")).expect("invariant: base64 is a header value");
        let body = Bytes::from(body);
        Self { body, etag, stamp, gzip: OnceLock::new(), brotli: OnceLock::new(), zstd: OnceLock::new() }
    }

    /// 304, a compressed form, or the body.
    pub(crate) fn respond(&self, request: &HttpRequest) -> HttpResponse {
        let headers = request.headers();
        if headers.get(header::IF_NONE_MATCH).is_some_and(|asked| asked == self.etag) {
            return HttpResponse::NotModified().insert_header((header::ETAG, self.etag.clone())).finish();
        }
        let mut response = HttpResponse::Ok();
        response
            .insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/json")))
            .insert_header((header::ETAG, self.etag.clone()));
        let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
        match self.compressed(accepted) {
            Some((coding, body)) => response
                .insert_header((header::CONTENT_ENCODING, HeaderValue::from_static(coding)))
                .insert_header((header::VARY, HeaderValue::from_static("Accept-Encoding")))
                .body(body),
            None => response.body(self.body.clone()),
        }
    }

    fn compressed(&self, accepted: &str) -> Option<(&'static str, Bytes)> {
        if accepted.is_empty() || self.body.len() < 1024 {
            return None;
        }
        if accepted.contains("br") {
            return Some(("br", self.brotli.get_or_init(|| brotli(&self.body)).clone()));
        }
        if accepted.contains("zstd") {
            let make = || zstd::bulk::compress(&self.body, 3).map(Bytes::from).unwrap_or_default();
            return Some(("zstd", self.zstd.get_or_init(make).clone()));
        }
        accepted.contains("gzip").then(|| ("gzip", self.gzip.get_or_init(|| gzip(&self.body)).clone()))
    }
}

fn gzip(body: &[u8]) -> Bytes {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    // Writing into a Vec cannot fail.
    let _ = out.write_all(body);
    out.finish().unwrap_or_default().into()
}

fn brotli(body: &[u8]) -> Bytes {
    let mut out = Vec::new();
    {
        let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 4, 20);
        let _ = encoder.write_all(body);
    }
    out.into()
}
