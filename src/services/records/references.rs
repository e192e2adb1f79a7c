//! `$0.id`: how one request of a batch names what an earlier one answered.
//!
//! Keeps true: only whole strings and whole path segments are references, so text is never rewritten in its middle,
//! and a substituted segment cannot add a segment or a parameter to a URL.
//! Does not do: order. A request sees the answers before it and no others.

use crate::kernel::error::Detail;
use serde_json::Value;

/// Replaces every string of `document` that is a reference by the value it names.
///
/// `$$…` at the start of a string is an escaped `$…` when what follows would be a reference.
pub(super) fn resolve_body(document: &mut Value, answers: &[Option<Value>]) -> Result<(), Detail> {
    match document {
        Value::String(text) => {
            if let Some(escaped) = text.strip_prefix("$$")
                && parse(&format!("${escaped}")).is_some()
            {
                *document = Value::String(format!("${escaped}"));
            } else if let Some(reference) = parse(text) {
                *document = reference.find(answers)?.clone();
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| resolve_body(item, answers)),
        Value::Object(map) => map.values_mut().try_for_each(|member| resolve_body(member, answers)),
        _ => Ok(()),
    }
}

/// Replaces a path segment that is a reference by the text it names.
pub(super) fn resolve_segment(segment: &str, answers: &[Option<Value>]) -> Result<String, Detail> {
    let Some(reference) = parse(segment) else { return Ok(segment.to_owned()) };
    match reference.find(answers)? {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        _ => Err(reference.refuse("names something that is not text")),
    }
}

struct Reference<'text> {
    index: usize,
    path: &'text str,
}

fn parse(text: &str) -> Option<Reference<'_>> {
    let (index, path) = text.strip_prefix('$')?.split_once('.')?;
    let digits = (1..=4).contains(&index.len()) && index.bytes().all(|byte| byte.is_ascii_digit());
    let named = !path.is_empty()
        && path
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    let index = index.parse().ok()?;
    (digits && named).then_some(Reference { index, path })
}

impl Reference<'_> {
    fn find<'answers>(&self, answers: &'answers [Option<Value>]) -> Result<&'answers Value, Detail> {
        let answer = match answers.get(self.index) {
            None => return Err(self.refuse("names a request that has not been answered yet")),
            Some(None) => return Err(self.refuse("names a request that failed or has no body")),
            Some(Some(answer)) => answer,
        };
        self.path
            .split('.')
            .try_fold(answer, |at, part| match at {
                Value::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => at.get(part),
            })
            .ok_or_else(|| self.refuse("names a member that the answer does not have"))
    }

    fn refuse(&self, why: &str) -> Detail {
        let reference = format!("${}.{}", self.index, self.path);
        Detail::new(reference.clone(), "validation_invalid_reference", format!("The reference {reference} {why}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answers() -> Vec<Option<Value>> {
        vec![Some(json!({"id": "abc", "n": 5, "tags": ["x", "y"], "expand": {"o": {"id": "deep"}}})), None]
    }

    #[test]
    fn whole_strings_are_replaced_and_parts_are_not() {
        let mut body = json!({"a": "$0.id", "b": ["$0.tags.1", "see $0.id"], "c": "$0.n", "d": "$$0.id", "e": "$5", "f": "$0.expand.o.id"});
        resolve_body(&mut body, &answers()).expect("resolves");
        assert_eq!(body, json!({"a": "abc", "b": ["y", "see $0.id"], "c": 5, "d": "$0.id", "e": "$5", "f": "deep"}));
    }

    #[test]
    fn what_cannot_be_found_is_refused() {
        for text in ["$1.id", "$2.id", "$0.missing", "$0.tags.9"] {
            assert!(resolve_body(&mut json!(text), &answers()).is_err(), "{text}");
        }
        assert!(resolve_segment("$0.n", &answers()).is_err());
        assert_eq!(resolve_segment("$0.id", &answers()).as_deref(), Ok("abc"));
        assert_eq!(resolve_segment("plain", &answers()).as_deref(), Ok("plain"));
    }
}
