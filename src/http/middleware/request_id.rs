//! Request ids: the caller's if it is well formed, otherwise one of ours.
//!
//! Keeps true: an id is 8 to 64 characters of `[A-Za-z0-9._-]`, so it is safe in headers and logs, and ours never repeat
//! on a node. Does not do: secrets; an id is guessable and grants nothing.

use crate::kernel::random::{self, Random};
use actix_web::http::header::HeaderMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The id of one request.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// A handle that outlives the request.
    pub(crate) fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
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
        let offered = headers.get("x-request-id").and_then(|value| value.to_str().ok()).filter(|text| is_id(text));
        let id = match offered {
            Some(text) => Arc::from(text),
            None => Arc::from(format!("{}-{:x}", self.word, self.next.fetch_add(1, Ordering::Relaxed))),
        };
        RequestId(id)
    }
}

fn is_id(text: &str) -> bool {
    (8..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
