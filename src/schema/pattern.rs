//! Regular expressions of field options: bounded in size, compiled once per thread.
//!
//! Keeps true: matching is linear in the text (the `regex` crate backtracks nowhere), compiled size is bounded.
//! Does not do: generating text (that is `generate`).

use regex::{Regex, RegexBuilder};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Characters in a pattern.
const PATTERN_CHARS_MAX: usize = 500;
/// Compiled size, bytes.
const COMPILED_BYTES_MAX: usize = 256 * 1024;
/// Patterns kept per thread.
const KEPT_MAX: usize = 256;

thread_local! {
    // Per thread, so that no lock is taken; dropped whole at the bound, which only costs compiling again.
    static COMPILED: RefCell<HashMap<Arc<str>, Option<Regex>>> = RefCell::new(HashMap::new());
}

fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_CHARS_MAX {
        return Err(format!("longer than {PATTERN_CHARS_MAX} characters"));
    }
    RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
}

/// Whether `pattern` can be used; empty is no pattern.
pub(crate) fn check(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() { Ok(()) } else { compile(pattern).map(|_| ()) }
}

/// Whether `text` matches `pattern` somewhere; a pattern that does not compile matches nothing.
pub(crate) fn matches(pattern: &Arc<str>, text: &str) -> bool {
    // The pattern of nearly every record id, without the regular expression engine.
    if &**pattern == "^[a-z0-9]+$" {
        return !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    }
    COMPILED.with_borrow_mut(|kept| {
        if kept.len() >= KEPT_MAX && !kept.contains_key(pattern) {
            kept.clear();
        }
        let compiled = kept.entry(pattern.clone()).or_insert_with(|| compile(pattern).ok());
        compiled.as_ref().is_some_and(|regex| regex.is_match(text))
    })
}
