//! What operands become before they are compared, and the comparison itself; SQL and the evaluator share both.
//!
//! Keeps true: text compares with text, numbers with numbers; where the sides differ one is converted here, never by
//! a database's affinity rules. `''` and NULL are equal; ordering and matching never hold for NULL.
//! Does not do: knowing where a value comes from.

use crate::kernel::limits;
use crate::kernel::value::{Stored, write_json_number};
use crate::query::ast::Operator;
use crate::schema::field::Storage;
use serde_json::Value as Json;
use std::cmp::Ordering;
use std::sync::Arc;

/// How an operand is converted before the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Shape {
    /// The conversion.
    pub cast: Cast,
    /// NULL becomes `''`.
    pub null_as_empty: bool,
    /// The text becomes a LIKE pattern.
    pub pattern: bool,
    /// The text is lower-cased first.
    pub lower: bool,
}

/// A conversion between scalar types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cast {
    /// None.
    #[default]
    Raw,
    /// Numbers become their JSON text.
    Text,
    /// Text that is a number becomes one; other text stays.
    Number,
    /// Anything becomes the text of a JSON array.
    List,
}

impl Shape {
    /// A shape that only casts.
    pub const fn cast(cast: Cast) -> Self {
        Self { cast, null_as_empty: false, pattern: false, lower: false }
    }

    /// The value in this shape.
    pub fn apply(self, stored: Stored) -> Stored {
        let stored = if self.lower { lower(&stored) } else { stored };
        let stored = match self.cast {
            Cast::Raw => stored,
            Cast::Text => to_text(&stored),
            Cast::Number => to_number(&stored),
            Cast::List => to_list(&stored),
        };
        let stored = if self.pattern { like_pattern(&stored) } else { stored };
        if self.null_as_empty && stored.is_null() { Stored::text("") } else { stored }
    }
}

/// Whether `left operator right` holds for two converted values; a pattern stands on the right of `~`.
pub fn compare(left: &Stored, operator: Operator, right: &Stored) -> bool {
    if operator.is_equality() {
        return (equal(left, right)) == (operator == Operator::Equal);
    }
    if left.is_null() || right.is_null() {
        return false;
    }
    match operator {
        Operator::Like => like(left, right),
        Operator::NotLike => !like(left, right),
        Operator::Greater => left.total_cmp(right) == Ordering::Greater,
        Operator::GreaterOrEqual => left.total_cmp(right) != Ordering::Less,
        Operator::Less => left.total_cmp(right) == Ordering::Less,
        Operator::LessOrEqual | Operator::Equal | Operator::NotEqual => left.total_cmp(right) != Ordering::Greater,
    }
}

fn equal(left: &Stored, right: &Stored) -> bool {
    match (is_empty(left), is_empty(right)) {
        (true, true) => true,
        (true, false) | (false, true) => false,
        (false, false) => left.total_cmp(right) == Ordering::Equal,
    }
}

/// What a column holds when nothing was ever written to it.
pub fn default_of(storage: Storage) -> Stored {
    match storage {
        Storage::Text => Stored::text(""),
        Storage::Number => Stored::Real(0.0),
        Storage::Bool => Stored::bool(false),
        Storage::List => Stored::text("[]"),
        Storage::Json => Stored::Null,
        Storage::Point => Stored::text("{\"lon\":0,\"lat\":0}"),
    }
}

/// Whether this is `''` or NULL.
pub fn is_empty(stored: &Stored) -> bool {
    match stored {
        Stored::Null => true,
        Stored::Text(text) => text.is_empty(),
        _ => false,
    }
}

/// The value as text: numbers as JSON prints them; NULL stays NULL.
pub fn to_text(stored: &Stored) -> Stored {
    match stored {
        Stored::Integer(value) => Stored::text(value.to_string()),
        Stored::Real(value) => {
            let mut out = Vec::new();
            write_json_number(&mut out, *value);
            Stored::text(String::from_utf8_lossy(&out))
        }
        other => other.clone(),
    }
}

/// The value as a number where it is the text of one (SQLite's idea of numeric text); otherwise unchanged.
pub fn to_number(stored: &Stored) -> Stored {
    let Some(text) = stored.as_text() else { return stored.clone() };
    let trimmed = text.trim_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let numeric = trimmed.bytes().any(|byte| byte.is_ascii_digit())
        && trimmed.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match trimmed.parse::<f64>() {
        Ok(number) if numeric && number.is_finite() => Stored::Real(number),
        _ => stored.clone(),
    }
}

/// The value as the text of a JSON array: an array stays, nothing becomes `[]`, a scalar becomes its only element.
pub fn to_list(stored: &Stored) -> Stored {
    if is_empty(stored) {
        return Stored::text("[]");
    }
    if let Some(text) = stored.as_text() {
        if text.starts_with('[') && matches!(serde_json::from_str::<Json>(text), Ok(Json::Array(_))) {
            return stored.clone();
        }
        return Stored::text(Json::Array(vec![Json::from(text)]).to_string());
    }
    Stored::text(format!("[{}]", to_text(stored).as_text().unwrap_or_default()))
}

/// The number of elements: of a JSON array's text, otherwise 1 for a value and 0 for nothing.
pub fn list_len(stored: &Stored) -> Stored {
    Stored::Integer(i64::try_from(list_items(&to_list(stored)).len()).unwrap_or(i64::MAX))
}

/// The elements of a JSON array's text.
pub fn list_items(stored: &Stored) -> Vec<Stored> {
    match stored.as_text().map(serde_json::from_str::<Json>) {
        Some(Ok(Json::Array(items))) => items.iter().map(from_json).collect(),
        _ => Vec::new(),
    }
}

/// A JSON value as SQLite's JSON functions would hand it out: documents are their text, booleans 0 and 1.
pub fn from_json(json: &Json) -> Stored {
    match json {
        Json::Null => Stored::Null,
        Json::Bool(value) => Stored::bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Stored::Integer(whole),
            None => Stored::Real(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Stored::text(text),
        Json::Array(_) | Json::Object(_) => Stored::text(json.to_string()),
    }
}

/// What stands at `path` inside a JSON text; an empty path is the whole. Text that is not JSON is itself at the root.
pub fn json_extract(stored: &Stored, path: &[Arc<str>]) -> Stored {
    let Some(text) = stored.as_text() else {
        return if path.is_empty() { stored.clone() } else { Stored::Null };
    };
    let Ok(root) = serde_json::from_str::<Json>(text) else {
        return if path.is_empty() { stored.clone() } else { Stored::Null };
    };
    let mut found = &root;
    for segment in path {
        let next = match (found, segment.parse::<usize>()) {
            (Json::Array(items), Ok(at)) => items.get(at),
            (Json::Object(map), Err(_)) => map.get(&**segment),
            _ => None,
        };
        match next {
            Some(next) => found = next,
            None => return Stored::Null,
        }
    }
    from_json(found)
}

/// `path` in SQLite's notation, fit for binding: `$."a"[0]`.
pub fn json_path(path: &[Arc<str>]) -> String {
    let mut out = String::from("$");
    for segment in path {
        match segment.parse::<usize>() {
            Ok(at) => out.push_str(&format!("[{at}]")),
            Err(_) => out.push_str(&format!(".\"{segment}\"")),
        }
    }
    out
}

/// Lower case by Unicode; NULL and numbers stay.
pub fn lower(stored: &Stored) -> Stored {
    match stored {
        Stored::Text(text) => Stored::text(text.to_lowercase()),
        other => other.clone(),
    }
}

/// A LIKE pattern for the operand of `~`: kept where it holds an unescaped `%`, otherwise escaped and wrapped in `%`.
///
/// A pattern beyond [`limits::LIKE_PATTERN_BYTES_MAX`] keeps its beginning and ends in `%`, so it can only match more.
/// SQLite's LIKE ends where a NUL stands, so a pattern holds none: it would match what only begins as it does.
pub fn like_pattern(stored: &Stored) -> Stored {
    let stored = match to_text(stored) {
        Stored::Text(text) if text.contains('\0') => Stored::from(text.replace('\0', "\u{fffd}")),
        text => text,
    };
    let Some(text) = stored.as_text() else { return stored };
    let kept = has_wildcard(text);
    if kept && text.len() <= limits::LIKE_PATTERN_BYTES_MAX {
        return stored;
    }
    let mut out = String::from(if kept { "" } else { "%" });
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        // An escape that the author wrote is kept; everything else that means something to LIKE is made literal.
        let escaped = if c == '\\' { chars.next_if(|next| matches!(next, '%' | '_' | '\\')) } else { None };
        let piece = match escaped {
            Some(next) => [Some(c), Some(next)],
            None if !kept && matches!(c, '\\' | '%' | '_') => [Some('\\'), Some(c)],
            // The pattern of the author may escape what needs none; both characters stay together.
            None if c == '\\' => [Some(c), chars.next()],
            None => [Some(c), None],
        };
        let len: usize = piece.iter().flatten().map(|c| c.len_utf8()).sum();
        if out.len() + len >= limits::LIKE_PATTERN_BYTES_MAX {
            break;
        }
        out.extend(piece.into_iter().flatten());
    }
    out.push('%');
    Stored::text(out)
}

fn has_wildcard(text: &str) -> bool {
    let mut escaped = false;
    for c in text.chars() {
        if c == '%' && !escaped {
            return true;
        }
        escaped = c == '\\' && !escaped;
    }
    false
}

/// SQLite's `text LIKE pattern ESCAPE '\'`: `%` any run, `_` any character, ASCII letters without case; what stands behind a
/// NUL is not looked at.
fn like(text: &Stored, pattern: &Stored) -> bool {
    let (text, pattern) = (to_text(text), to_text(pattern));
    let (Some(text), Some(pattern)) = (text.as_text(), pattern.as_text()) else { return false };
    let pattern = compile_pattern(pattern);
    let text = text.split('\0').next().unwrap_or_default();
    let text: Vec<char> = text.chars().map(|c| c.to_ascii_lowercase()).collect();
    match pattern {
        Some(pattern) => matches_pattern(&text, &pattern),
        None => false,
    }
}

enum Piece {
    Run,
    One,
    Literal(char),
}

fn compile_pattern(pattern: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        pieces.push(match c {
            '%' => Piece::Run,
            '_' => Piece::One,
            // An escape at the very end matches nothing at all.
            '\\' => Piece::Literal(chars.next()?.to_ascii_lowercase()),
            other => Piece::Literal(other.to_ascii_lowercase()),
        });
    }
    Some(pieces)
}

/// Greedy matching with one point of return, linear in practice and never worse than text × pattern.
fn matches_pattern(text: &[char], pattern: &[Piece]) -> bool {
    let (mut at, mut piece) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        let advanced = match (pattern.get(piece), text.get(at)) {
            (Some(Piece::Run), _) => {
                back = Some((at, piece));
                piece += 1;
                continue;
            }
            (Some(Piece::One), Some(_)) => true,
            (Some(Piece::Literal(wanted)), Some(found)) => wanted == found,
            (None, None) => return true,
            _ => false,
        };
        if advanced {
            at += 1;
            piece += 1;
            continue;
        }
        match back {
            Some((from, run)) if from < text.len() => {
                back = Some((from + 1, run));
                (at, piece) = (from + 1, run + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_wrapped_unless_they_hold_a_wildcard() {
        for (text, pattern) in [
            ("a", "%a%"),
            ("a%", "a%"),
            ("5_0", "%5\\_0%"),
            ("50\\%", "%50\\%%"),
            ("", "%%"),
            ("a\\", "%a\\\\%"),
            ("\0", "%\u{fffd}%"),
            ("\0%", "\u{fffd}%"),
        ] {
            assert_eq!(like_pattern(&Stored::text(text)), Stored::text(pattern), "{text}");
        }
    }

    #[test]
    fn patterns_beyond_the_bound_keep_their_beginning_and_whole_escapes() {
        for piece in ["_", "\\", "a", "\u{20ac}", "\\%", "x%y\\_", "\\q%"] {
            let long = piece.repeat(limits::LIKE_PATTERN_BYTES_MAX);
            let pattern = like_pattern(&Stored::text(&long));
            let text = pattern.as_text().expect("a pattern");
            let len = text.len();
            assert!(
                (limits::LIKE_PATTERN_BYTES_MAX - 8..=limits::LIKE_PATTERN_BYTES_MAX).contains(&len),
                "{piece} {len}"
            );
            assert!(compile_pattern(text).is_some(), "{piece}");
            let ends_open = text.strip_suffix('%').is_some_and(|rest| !rest.ends_with('\\') || rest.ends_with("\\\\"));
            assert!(ends_open, "{piece}");
        }
    }

    #[test]
    fn matching_ignores_ascii_case_only() {
        for (text, pattern, expected) in [
            ("Hello", "%ELL%", true),
            ("Ärger", "ä%", false),
            ("50% off", "%50\\%%", true),
            ("500", "%50\\%%", false),
            ("abcabc", "%abc", true),
            ("", "%%", true),
            ("ab", "a_", true),
            ("a", "a_", false),
            ("aXbXc", "a%b%c", true),
            ("x", "x\\", false),
        ] {
            let found = compare(&Stored::text(text), Operator::Like, &Stored::text(pattern));
            assert_eq!(found, expected, "{text} ~ {pattern}");
        }
    }

    #[test]
    fn empty_and_null_are_equal_and_null_is_never_ordered() {
        let (null, empty, one) = (Stored::Null, Stored::text(""), Stored::Integer(1));
        assert!(compare(&null, Operator::Equal, &empty));
        assert!(compare(&null, Operator::NotEqual, &one));
        assert!(!compare(&null, Operator::Less, &one));
        assert!(!compare(&null, Operator::NotLike, &Stored::text("%x%")));
    }

    #[test]
    fn numeric_text_is_what_sqlite_takes_for_one() {
        for (text, number) in [("5", 5.0), (" -1.5e2 ", -150.0), ("+3", 3.0), (".5", 0.5), ("5.", 5.0)] {
            assert_eq!(to_number(&Stored::text(text)), Stored::Real(number), "{text}");
        }
        for text in ["", "abc", "0x10", "5a", "inf", "nan", "-", "1e"] {
            assert_eq!(to_number(&Stored::text(text)), Stored::text(text), "{text}");
        }
    }
}
