//! Request ids: the caller's if it is well formed, otherwise one of ours.
//!
//! Keeps true: an id is 8 to 64 characters of `[A-Za-z0-9._-]`, so it is safe in headers and logs, and ours never repeat
//! on a node; what a tenant's log keeps begins with one of ours, so nobody can pass a change off as part of another request.
//! Does not do: secrets; an id is guessable and grants nothing.

use crate::kernel::random::{self, Random};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The id of one request.
#[derive(Debug, Clone)]
pub(crate) struct RequestId {
    shown: Arc<str>,
    noted: Arc<str>,
}

impl RequestId {
    /// The text that answers show.
    pub(crate) fn as_str(&self) -> &str {
        &self.shown
    }

    /// The text as it leaves.
    pub(crate) fn to_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.shown).expect("invariant: letters, digits, dots and dashes are a header value")
    }

    /// What a tenant's log and the log of requests keep: ours, and behind it the caller's if there is one.
    pub(crate) fn to_noted(&self) -> Arc<str> {
        Arc::clone(&self.noted)
    }
}

/// Makes ids: a random word drawn at start, then a counter. Cheaper than randomness per request, and ordered.
#[derive(Debug)]
pub(crate) struct RequestIds {
    word: String,
    next: AtomicU64,
}

impl RequestIds {
    /// Draws the word.
    pub(crate) fn new(random: &dyn Random) -> Self {
        Self { word: random::lowercase_id(random, 8), next: AtomicU64::new(1) }
    }

    /// The caller's `X-Request-Id` if it is well formed, otherwise the next of ours.
    pub(crate) fn take_or_make(&self, headers: &HeaderMap) -> RequestId {
        let own: Arc<str> = Arc::from(String::from_utf8_lossy(&self.make()));
        match offered(headers).and_then(|value| value.to_str().ok()) {
            Some(text) => RequestId { shown: Arc::from(text), noted: Arc::from(format!("{own}.{text}")) },
            None => RequestId { shown: Arc::clone(&own), noted: own },
        }
    }

    /// The same as it leaves, and as it is noted where that is something else; for answers that nobody else needs the id of.
    pub(crate) fn take_or_make_value(&self, headers: &HeaderMap) -> (HeaderValue, Option<String>) {
        let own = self.make();
        match offered(headers).and_then(|value| Some((value, value.to_str().ok()?))) {
            Some((value, text)) => (value.clone(), Some(format!("{}.{text}", String::from_utf8_lossy(&own)))),
            None => {
                let own = HeaderValue::from_maybe_shared(Bytes::from(own));
                (own.expect("invariant: letters, digits and a dash are a header value"), None)
            }
        }
    }

    fn make(&self) -> Vec<u8> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let nibbles = (64 - number.leading_zeros()).div_ceil(4).max(1);
        // To the byte: a header takes such a buffer over as it is.
        let mut id = Vec::with_capacity(self.word.len() + 1 + usize::try_from(nibbles).unwrap_or(16));
        id.extend_from_slice(self.word.as_bytes());
        id.push(b'-');
        for place in (0..nibbles).rev() {
            let nibble = usize::try_from(number >> (place * 4) & 15).unwrap_or(0);
            id.push(DIGITS.get(nibble).copied().unwrap_or(b'0'));
        }
        id
    }
}

fn offered(headers: &HeaderMap) -> Option<&HeaderValue> {
    const NAME: HeaderName = HeaderName::from_static("x-request-id");
    headers.get(NAME).filter(|value| value.to_str().is_ok_and(is_id))
}

fn is_id(text: &str) -> bool {
    (8..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SystemRandom;

    #[test]
    fn ids_count_up_in_hexadecimal() {
        let ids = RequestIds::new(&SystemRandom::default());
        for number in [1, 2, 15, 16, 255, 4_096, u64::MAX] {
            ids.next.store(number, Ordering::Relaxed);
            let id = ids.take_or_make(&HeaderMap::new());
            assert_eq!(id.as_str(), format!("{}-{number:x}", ids.word));
        }
    }

    #[test]
    fn only_a_well_formed_id_of_the_caller_is_taken() {
        let ids = RequestIds::new(&SystemRandom::default());
        for (text, taken) in [("abcdefgh", true), ("short", false), ("with space", false), ("a.b-c_d9", true)] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static("x-request-id"), HeaderValue::from_static(text));
            let id = ids.take_or_make(&headers);
            assert_eq!(id.as_str() == text, taken, "{text}");
            assert!(id.to_noted().starts_with(&format!("{}-", ids.word)), "{}", id.to_noted());
            assert_eq!(id.to_noted().ends_with(&format!(".{text}")), taken, "{}", id.to_noted());
            let (shown, noted) = ids.take_or_make_value(&headers);
            assert_eq!((shown == text, noted.is_some()), (taken, taken), "{text}");
            assert!(noted.is_none_or(|noted| noted.starts_with(&ids.word) && noted.ends_with(&format!(".{text}"))));
        }
    }
}
