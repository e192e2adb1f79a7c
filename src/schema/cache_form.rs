//! The cache policy of a collection in JSON: shape and allowed values.
//!
//! ```json
//! {"class": "live", "tier": "memory", "ttlSeconds": 60, "cacheControl": "public, max-age=30", "tags": ["scores"]}
//! ```
//!
//! Keeps true: a stored policy has only these members with these types. Does not do: caching.

use super::error::Problems;
use serde_json::Value;

/// Classes of lifetime: session 24 h, profile 1 h, data 5 min, live 1 min, analytics 15 min, static 1 h, off.
pub const CLASSES: &[&str] = &["session", "profile", "data", "live", "analytics", "static", "off"];
/// Where answers are kept: memory and disk, memory alone, disk alone, nowhere.
pub const TIERS: &[&str] = &["both", "memory", "disk", "off"];

const TAGS_MAX: usize = 16;
const TEXT_CHARS_MAX: usize = 200;
const TTL_SECONDS_MAX: u64 = 365 * 86_400;

/// Checks a policy; `None` when something is wrong (the problems are noted).
pub(crate) fn check(policy: &Value, problems: &mut Problems<'_>) -> Option<Value> {
    let count = problems.len();
    let Some(map) = policy.as_object() else {
        problems.add("validation_invalid_type", "Must be an object or null.");
        return None;
    };
    for (key, value) in map {
        let refused = match key.as_str() {
            "class" => one_of(value, CLASSES),
            "tier" => one_of(value, TIERS),
            "ttlSeconds" => value
                .as_u64()
                .is_none_or(|ttl| ttl > TTL_SECONDS_MAX)
                .then(|| format!("Must be a whole number of seconds up to {TTL_SECONDS_MAX}.")),
            "cacheControl" | "key" => value
                .as_str()
                .is_none_or(|text| !is_header_text(text))
                .then(|| format!("Must be a text of up to {TEXT_CHARS_MAX} printable ASCII characters.")),
            "tags" => value
                .as_array()
                .is_none_or(|tags| tags.len() > TAGS_MAX || !tags.iter().all(is_tag))
                .then(|| format!("Must be up to {TAGS_MAX} texts of letters, digits, - and _.")),
            _ => Some("Is not known; use class, tier, ttlSeconds, key, cacheControl or tags.".to_owned()),
        };
        if let Some(message) = refused {
            problems.add_at(key, "validation_invalid_value", message);
        }
    }
    (problems.len() == count).then(|| policy.clone())
}

fn one_of(value: &Value, allowed: &[&str]) -> Option<String> {
    let known = value.as_str().is_some_and(|text| allowed.contains(&text));
    (!known).then(|| format!("Must be one of {}.", allowed.join(", ")))
}

fn is_header_text(text: &str) -> bool {
    text.len() <= TEXT_CHARS_MAX && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn is_tag(tag: &Value) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    tag.as_str().is_some_and(|tag| (1..=64).contains(&tag.len()) && tag.bytes().all(allowed))
}
