//! One answer, encoded and ready to send: body, SHA-256 entity tag, and its compressed variants, made once and kept.
//!
//! Keeps true: an entry never changes; a hit copies no body (`Bytes` is shared) and compresses nothing that was compressed
//! before. Variants count against the weight reserved for them when the entry was made, so memory stays within what the
//! cache accounts for; one that finds no room there is sent as it is from then on.
//! Does not do: freshness (`stamp`), the form on disk (`envelope`), headers.

use crate::cache::adaptive::Tuning;
use crate::cache::compress::{self, COMPRESS_BYTES_MIN, Encoding, Levels};
use crate::kernel::clock;
use crate::kernel::digest::{Sha256, hex_digits, sha256};
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What a load hands to the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The encoded response body.
    pub body: Bytes,
    /// SHA-256 of the body.
    pub etag: Sha256,
    /// The media type, such as `application/json`.
    pub content_type: Arc<str>,
    /// Tags by which the answer can be purged, besides the policy's.
    pub tags: Vec<Arc<str>>,
    /// The log position of the snapshot it was read from; it may be past the stamp, and a file that went back behind it
    /// never held this answer.
    pub lsn: i64,
    /// The answer is for this caller alone: its snapshot had another schema than the one the key was made by, so nobody
    /// who asks by that key may share it, nor is it kept.
    pub apart: bool,
}

impl Loaded {
    /// A JSON answer, read from a snapshot at `lsn`.
    pub fn json(body: impl Into<Bytes>, lsn: i64) -> Self {
        let body = body.into();
        let etag = sha256(&body);
        Self::digested(body, etag, lsn)
    }

    /// A JSON answer of which somebody has the digest already.
    pub fn digested(body: Bytes, etag: Sha256, lsn: i64) -> Self {
        Self { body, etag, lsn, apart: false, content_type: json_type(), tags: Vec::new() }
    }
}

/// The media type of JSON, shared so that entries do not each hold a copy.
pub fn json_type() -> Arc<str> {
    static JSON: OnceLock<Arc<str>> = OnceLock::new();
    Arc::clone(JSON.get_or_init(|| Arc::from("application/json")))
}

/// Times and sizes of compression since start, by coding, for adapting the levels.
#[derive(Debug, Default)]
pub struct CompressionMeters([CompressionMeter; 4]);

#[derive(Debug, Default)]
struct CompressionMeter {
    count: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    micros: AtomicU64,
}

/// What one coding did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compressed {
    /// Bodies encoded.
    pub count: u64,
    /// Bytes before.
    pub bytes_in: u64,
    /// Bytes after; a body that did not shrink counts with its own size.
    pub bytes_out: u64,
    /// Microseconds it took.
    pub micros: u64,
}

impl Compressed {
    /// What was done since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
            micros: self.micros.saturating_sub(earlier.micros),
        }
    }

    /// Two codings together.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self {
            count: self.count + other.count,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            micros: self.micros + other.micros,
        }
    }
}

/// How answers are kept and compressed at present, and what that cost; shared by all answers of a cache.
#[derive(Debug)]
pub(crate) struct Coding {
    pub(crate) tuning: ArcSwap<Tuning>,
    pub(crate) meters: CompressionMeters,
}

impl CompressionMeters {
    /// Every coding's numbers, in the order of [`Encoding::CODED`].
    pub fn read(&self) -> [Compressed; 4] {
        self.0.each_ref().map(|meter| Compressed {
            count: meter.count.load(Ordering::Relaxed),
            bytes_in: meter.bytes_in.load(Ordering::Relaxed),
            bytes_out: meter.bytes_out.load(Ordering::Relaxed),
            micros: meter.micros.load(Ordering::Relaxed),
        })
    }

    fn add(&self, slot: usize, one: Compressed) {
        if let Some(meter) = self.0.get(slot) {
            meter.count.fetch_add(one.count, Ordering::Relaxed);
            meter.bytes_in.fetch_add(one.bytes_in, Ordering::Relaxed);
            meter.bytes_out.fetch_add(one.bytes_out, Ordering::Relaxed);
            meter.micros.fetch_add(one.micros, Ordering::Relaxed);
        }
    }
}

/// One answer; what every hit looks at comes first.
#[derive(Debug)]
#[repr(C)]
pub struct Entry {
    created_ms: i64,
    ttl_ms: i64,
    etag: Sha256,
    body: Bytes,
    variants: [OnceLock<Option<Bytes>>; 4],
    variant_bytes: AtomicU64,
    content_type: Arc<str>,
    tags: Box<[Arc<str>]>,
}

/// Bookkeeping of one entry in memory besides its body: struct, reference counts, table slot, allocator slack.
const OVERHEAD_BYTES: usize = size_of::<Entry>() + 224;

impl Entry {
    /// Makes an entry; `etag` is the SHA-256 of `body`, which whoever made or checked the body has computed.
    pub fn new(
        body: Bytes,
        etag: Sha256,
        content_type: Arc<str>,
        tags: Vec<Arc<str>>,
        created_ms: i64,
        ttl_ms: i64,
    ) -> Self {
        Self {
            body,
            etag,
            content_type,
            tags: tags.into_boxed_slice(),
            created_ms,
            ttl_ms,
            variants: [const { OnceLock::new() }; 4],
            variant_bytes: AtomicU64::new(0),
        }
    }

    /// The body as it is.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// SHA-256 of the body.
    pub fn etag(&self) -> &Sha256 {
        &self.etag
    }

    /// The media type.
    pub fn content_type(&self) -> &Arc<str> {
        &self.content_type
    }

    /// The tags.
    pub fn tags(&self) -> &[Arc<str>] {
        &self.tags
    }

    /// When it was made, milliseconds since the Unix epoch.
    pub fn created_ms(&self) -> i64 {
        self.created_ms
    }

    /// How long it is kept, milliseconds.
    pub fn ttl_ms(&self) -> i64 {
        self.ttl_ms
    }

    /// Whether its time is over. A clock that went back keeps it, coherence does not rest on time.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        is_expired(self.created_ms, self.ttl_ms, now_ms)
    }

    /// The body in `encoding`, made on first use; `None` where sending it as it is does better.
    ///
    /// `levels` is asked only where it is made.
    pub fn coded(
        &self,
        encoding: Encoding,
        levels: impl FnOnce() -> Levels,
        meters: &CompressionMeters,
    ) -> Option<Bytes> {
        let slot = encoding.slot()?;
        let cell = self.variants.get(slot)?;
        if let Some(known) = cell.get() {
            return known.clone();
        }
        if self.body.len() < COMPRESS_BYTES_MIN {
            return None;
        }
        let began = clock::instant();
        let coded = compress::encode(&self.body, encoding, levels());
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bytes_out = coded.as_ref().map_or(self.body.len(), Bytes::len) as u64;
        meters.add(slot, Compressed { count: 1, bytes_in: self.body.len() as u64, bytes_out, micros });
        // Kept only within the reserve. What finds no room there is not made again for every reader: it stays plain. A race
        // may keep one variant too many; the reserve has slack for it.
        let taken = self.variant_bytes.load(Ordering::Relaxed);
        let reserve = variant_reserve(self.body.len()) as u64;
        let kept = coded.filter(|coded| taken + coded.len() as u64 <= reserve);
        if cell.set(kept.clone()).is_ok() {
            self.variant_bytes.fetch_add(kept.as_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
            return kept;
        }
        // Somebody else was first; all are sent the same bytes.
        cell.get().cloned().flatten()
    }

    /// Bytes this entry may come to occupy, its variants included.
    pub fn weight(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| tag.len() + 32).sum();
        OVERHEAD_BYTES + self.body.len() + variant_reserve(self.body.len()) + tags
    }
}

/// See [`Entry::is_expired`].
pub(crate) const fn is_expired(created_ms: i64, ttl_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(created_ms) >= ttl_ms
}

/// Room for compressed variants: all of a JSON list, which shrinks to a quarter or less, and one of any body, because a
/// variant is smaller than what it was made of.
const fn variant_reserve(body_len: usize) -> usize {
    if body_len < COMPRESS_BYTES_MIN { 0 } else { body_len }
}

/// An entity tag as it stands in a header, quotes included: the hash of the body in hexadecimal, and the coding as suffix
/// because coded bytes are other bytes. The tag of a coded body is weak (RFC 9110, 8.8.1): the level of compression may
/// change, and with it the bytes. Made anew for each answer, which is cheaper than fetching a kept one from memory.
#[derive(Debug, Clone, Copy)]
pub struct EntityTag {
    text: [u8; TAG_BYTES_MAX],
    len: usize,
}

/// `W/`, quotes, 32 bytes in hexadecimal, a dash and the longest name of a coding.
const TAG_BYTES_MAX: usize = 2 + 2 + 64 + 8;

impl EntityTag {
    /// The tag of the body with this hash in `encoding`.
    pub fn new(etag: &Sha256, encoding: Encoding) -> Self {
        let digits = hex_digits(etag);
        let parts: &[&[u8]] = match encoding {
            Encoding::Identity => &[b"\"", &digits, b"\""],
            _ => &[b"W/\"", &digits, b"-", encoding.as_str().as_bytes(), b"\""],
        };
        let mut tag = Self { text: [0; TAG_BYTES_MAX], len: 0 };
        parts.iter().for_each(|part| tag.push(part));
        tag
    }

    fn push(&mut self, part: &[u8]) {
        let end = self.len + part.len();
        if let Some(room) = self.text.get_mut(self.len..end) {
            room.copy_from_slice(part);
            self.len = end;
        }
    }

    /// The bytes of a header's value.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or_default()
    }

    /// The text of a header's value.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("invariant: a tag is hexadecimal and a word in quotes")
    }
}

/// The coding in which whoever sent this `If-None-Match` has the answer (weak comparison, RFC 9110 13.1.2): who holds one
/// coding of these bytes needs no other. `*` is any, for which `negotiated` stands. `plain` is the tag of the uncoded body.
pub fn none_match(header: &str, plain: &str, negotiated: Encoding) -> Option<Encoding> {
    let plain = plain.trim_matches('"');
    header.split(',').map(str::trim).find_map(|candidate| {
        if candidate == "*" {
            return Some(negotiated);
        }
        let opaque = candidate.strip_prefix("W/").unwrap_or(candidate).trim_matches('"');
        let suffix = opaque.strip_prefix(plain)?;
        let of = |coding: &Encoding| suffix.strip_prefix('-') == Some(coding.as_str());
        if suffix.is_empty() { Some(Encoding::Identity) } else { Encoding::CODED.into_iter().find(of) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(body: &str) -> Entry {
        let body = Bytes::from(body.to_owned());
        Entry::new(body.clone(), sha256(&body), json_type(), Vec::new(), 1_000, 500)
    }

    #[test]
    fn the_entity_tag_is_the_sha256_of_the_body() {
        assert_eq!(
            EntityTag::new(entry("abc").etag(), Encoding::Identity).as_str(),
            "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"",
            "FIPS 180-4 example"
        );
        for coding in Encoding::CODED {
            let tag = EntityTag::new(&[0xf0; 32], coding);
            assert_eq!(tag.as_str(), format!("W/\"{}-{}\"", "f0".repeat(32), coding.as_str()));
        }
    }

    #[test]
    fn if_none_match_knows_every_coding_and_form() {
        let plain = EntityTag::new(entry("abc").etag(), Encoding::Identity);
        let tag = plain.as_str().to_owned();
        let digits = tag.trim_matches('"');
        for (header, expected) in [
            (tag.clone(), Some(Encoding::Identity)),
            (format!("W/{tag}"), Some(Encoding::Identity)),
            (format!("\"{digits}-br\""), Some(Encoding::Brotli)),
            (format!("\"x\", W/\"{digits}-gzip\""), Some(Encoding::Gzip)),
            ("*".to_owned(), Some(Encoding::Zstd)),
            (format!("\"{digits}-lz\""), None),
            (format!("\"{}\"", &digits[1..]), None),
            ("\"\"".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(none_match(&header, plain.as_str(), Encoding::Zstd), expected, "{header}");
        }
    }

    #[test]
    fn variants_are_made_once_and_stay_within_the_weight() {
        let body = "{\"title\":\"the same again\"},".repeat(200);
        let (made, meters) = (entry(&body), CompressionMeters::default());
        let mut kept = 0;
        for _ in 0..3 {
            for encoding in Encoding::CODED {
                kept += made.coded(encoding, Levels::default, &meters).unwrap().len();
            }
        }
        assert!(meters.read().iter().all(|coding| coding.count == 1 && coding.bytes_in == body.len() as u64));
        assert!(made.weight() > body.len() + kept / 3);
        let again = || made.coded(Encoding::Gzip, Levels::default, &meters).unwrap();
        assert_eq!(again().as_ptr(), again().as_ptr(), "no copy is handed out");
        assert_eq!(made.coded(Encoding::Identity, Levels::default, &meters), None);
        assert_eq!(entry("small").coded(Encoding::Gzip, Levels::default, &meters), None);
    }

    /// Bodies that shrink to more than half, and the third coding of those that shrink to a fifth, were compressed anew for
    /// every reader.
    #[test]
    fn nothing_is_compressed_twice_however_little_it_shrinks() {
        let mut state = 1_u64;
        let mut draw = |letters: &[u8]| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(letters[(state >> 33) as usize % letters.len()])
        };
        let hex: String = (0..8_000).map(|_| draw(b"0123456789abcdef")).collect();
        let words: String = (0..400).map(|n| format!("{{\"id\":\"{}{n}\",\"done\":false}},", draw(b"abc"))).collect();
        for (body, all) in [(hex, false), (words, true)] {
            let (made, meters) = (entry(&body), CompressionMeters::default());
            let ask = || Encoding::CODED.map(|encoding| made.coded(encoding, Levels::default, &meters));
            let first = ask();
            assert!(
                first[0].is_some() && (!all || first.iter().all(Option::is_some)),
                "what there is room for is coded"
            );
            assert_eq!((ask(), ask()), (first.clone(), first.clone()), "each is asked for again and is the same");
            assert!(meters.read().iter().all(|coding| coding.count == 1), "{:?}", meters.read());
            let kept: usize = first.iter().flatten().map(Bytes::len).sum();
            assert!(made.weight() > body.len() + kept);
        }
    }

    #[test]
    fn time_ends_an_entry_and_a_clock_going_back_does_not() {
        let made = entry("x");
        assert!(!made.is_expired(1_499) && made.is_expired(1_500) && !made.is_expired(0));
    }
}
