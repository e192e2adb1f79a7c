//! `$0.id`: how one request of a batch names what an earlier one answered.
//!
//! Keeps true: only whole strings, path segments, parameters and quoted values of a filter are references, so text is
//! never rewritten in its middle; a substituted segment cannot add a segment or a parameter to a URL, and a substituted
//! value cannot add a condition to a filter.
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

/// Replaces a path segment, a parameter or a header that is a reference by the text it names.
pub(super) fn resolve_segment(segment: &str, answers: &[Option<Value>]) -> Result<String, Detail> {
    let Some(reference) = parse(segment) else { return Ok(segment.to_owned()) };
    match reference.find(answers)? {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        _ => Err(reference.refuse("names something that is not text")),
    }
}

/// Replaces what a filter quotes, as in `post = '$0.id'`, where all that stands between the quotes is a reference.
///
/// What comes in is quoted again, so that it stays one value whatever it holds; `'$$0.id'` means the text `$0.id`.
pub(super) fn resolve_filter(filter: &str, answers: &[Option<Value>]) -> Result<String, Detail> {
    let mut out = String::with_capacity(filter.len());
    let mut rest = filter;
    while let Some(at) = rest.find(['\'', '"']) {
        let (before, quoted) = rest.split_at(at);
        out.push_str(before);
        let quote = if quoted.starts_with('"') { '"' } else { '\'' };
        let Some((inner, after)) = split_quoted(quoted, quote) else {
            rest = quoted;
            break;
        };
        out.push(quote);
        out.push_str(&resolve_quoted(inner, quote, answers)?);
        out.push(quote);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands between two `quote`s, and what follows; a backslash keeps a quote from ending it, as in the filter language.
fn split_quoted(quoted: &str, quote: char) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, char) in quoted.char_indices().skip(1) {
        if char == quote && !escaped {
            return Some((quoted.get(1..at)?, quoted.get(at + 1..)?));
        }
        escaped = char == '\\';
    }
    None
}

fn resolve_quoted(inner: &str, quote: char, answers: &[Option<Value>]) -> Result<String, Detail> {
    if let Some(escaped) = inner.strip_prefix("$$")
        && parse(&format!("${escaped}")).is_some()
    {
        return Ok(format!("${escaped}"));
    }
    let Some(reference) = parse(inner) else { return Ok(inner.to_owned()) };
    let text = match reference.find(answers)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => return Err(reference.refuse("names something that is no single value")),
    };
    // The language has no way to write a text whose last character is a backslash.
    if text.ends_with('\\') {
        return Err(reference.refuse("names a text that ends in a backslash, which a filter cannot hold"));
    }
    Ok(text.replace(quote, &format!("\\{quote}")))
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
    fn a_value_in_a_filter_stays_one_value() {
        let hostile = vec![Some(json!({"id": "abc", "n": 5, "q": "it's \"x\" || 1 = 1", "b": "\\'", "end": "a\\"}))];
        for (filter, resolved) in [
            ("a = '$0.id' && b = \"$0.n\"", "a = 'abc' && b = \"5\""),
            ("a = '$0.q'", r#"a = 'it\'s "x" || 1 = 1'"#),
            ("a = \"$0.q\"", r#"a = "it's \"x\" || 1 = 1""#),
            ("a = '$0.b'", r"a = '\\''"),
            ("a = 'see $0.id' || b = '$$0.id' || c = '\\'$0.id'", "a = 'see $0.id' || b = '$0.id' || c = '\\'$0.id'"),
            ("a = $0.id", "a = $0.id"),
            ("a = '$0.id", "a = '$0.id"),
        ] {
            let found = resolve_filter(filter, &hostile).expect(filter);
            assert_eq!(found, resolved, "{filter}");
        }
        assert!(resolve_filter("a = '$0.end'", &hostile).is_err());
        assert!(resolve_filter("a = '$1.id'", &hostile).is_err());
        // Read back, it is the very text.
        let filter = resolve_filter("a = '$0.b'", &hostile).expect("resolves");
        let parsed = crate::query::parse_filter(&filter).expect("parses").expect("a filter");
        let mut seen = Vec::new();
        parsed.for_each_comparison(&mut |comparison| seen.push(comparison.right.kind.clone()));
        assert_eq!(seen, [crate::query::ast::TermKind::Text("\\'".into())]);
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
