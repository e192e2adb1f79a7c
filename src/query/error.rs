//! What can be wrong with a question: where it stands, what was expected, what was probably meant.
//!
//! Keeps true: a suggestion never names a thing the caller may not name; positions count characters from 1.
//! Does not do: HTTP; the transport reads [`Fault`].

use crate::kernel::error::{Code, Detail, Fault};
use std::borrow::Cow;
use std::fmt;

/// A stretch of source text, byte offsets, end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// A span from `start` to `end`.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The stretch that covers both.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The text under the span; empty where the span does not fit.
    pub fn of(self, source: &str) -> &str {
        source.get(self.start..self.end).unwrap_or_default()
    }
}

/// Which part of the request the question came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Surface {
    /// `filter=`, and the filter of a live subscription.
    Filter,
    /// An access rule of a collection or field.
    Rule,
    /// `sort=`, `sortBy=`, `sortDir=`.
    Sort,
    /// `fields=`, `excludeFields=`.
    Fields,
    /// `expand=`.
    Expand,
    /// `search=`.
    Search,
    /// `aggregate=`, `group=`.
    Aggregate,
    /// `cursor=`.
    Cursor,
    /// `page=`, `perPage=` and their aliases, by the name that was written.
    Page(&'static str),
}

impl Surface {
    /// The parameter's name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Rule => "rule",
            Self::Sort => "sort",
            Self::Fields => "fields",
            Self::Expand => "expand",
            Self::Search => "search",
            Self::Aggregate => "aggregate",
            Self::Cursor => "cursor",
            Self::Page(name) => name,
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::Filter => Code::FilterInvalid,
            Self::Rule => Code::RuleInvalid,
            Self::Sort => Code::SortInvalid,
            Self::Fields => Code::FieldsInvalid,
            Self::Expand => Code::ExpandInvalid,
            Self::Cursor => Code::CursorInvalid,
            Self::Search | Self::Aggregate | Self::Page(_) => Code::ParameterInvalid,
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The text does not follow the grammar.
    Syntax {
        /// What would have been right here.
        expected: Cow<'static, str>,
        /// What stands there; empty is the end of the text.
        found: String,
    },
    /// More of something than a bound allows.
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// A name that is not there, or that this caller may not know of.
    Unknown {
        /// The kind of thing that was named.
        what: &'static str,
        /// The name as written.
        name: String,
        /// The closest name the caller may use.
        suggestion: Option<String>,
    },
    /// A name that only rules and superusers may use.
    Reserved {
        /// The name as written.
        name: String,
    },
    /// A path into a collection that the caller's API key is not good for.
    OutOfReach {
        /// The path as written.
        name: String,
    },
    /// A known thing used in a way that it does not support.
    Unsupported {
        /// The thing as written.
        name: String,
        /// Why, as a clause.
        reason: Cow<'static, str>,
    },
    /// The cursor was not made here, or for another query.
    ForeignCursor,
    /// The record that a cursor stands at, and by whose long sort key it is found, has changed or gone.
    MovedCursor,
}

/// A refused question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct QueryError {
    /// Where the question came from.
    pub surface: Surface,
    /// 1-based character position of the fault in that text.
    pub position: usize,
    /// What is wrong.
    pub problem: Problem,
}

impl QueryError {
    /// Puts an error together from a span of `source`.
    pub fn at(surface: Surface, source: &str, span: Span, problem: Problem) -> Self {
        let before = source.get(..span.start).unwrap_or(source);
        Self { surface, position: before.chars().count() + 1, problem }
    }

    /// An error about a whole parameter.
    pub fn whole(surface: Surface, problem: Problem) -> Self {
        Self { surface, position: 1, problem }
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at character {}: ", self.surface.name(), self.position)?;
        match &self.problem {
            Problem::Syntax { expected, found } if found.is_empty() => write!(f, "expected {expected}, found the end"),
            Problem::Syntax { expected, found } => write!(f, "expected {expected}, found {found:?}"),
            Problem::TooMany { what, limit } => write!(f, "more than {limit} {what}"),
            Problem::Unknown { what, name, suggestion: Some(close) } => {
                write!(f, "unknown {what} {name:?}, did you mean {close:?}?")
            }
            Problem::Unknown { what, name, suggestion: None } => write!(f, "unknown {what} {name:?}"),
            Problem::Reserved { name } => write!(f, "{name:?} may only be used in rules and by superusers"),
            Problem::OutOfReach { name } => {
                write!(f, "{name:?} leads into a collection that the API key is not good for; its scopes must name it")
            }
            Problem::Unsupported { name, reason } => write!(f, "{name:?} {reason}"),
            Problem::MovedCursor => f.write_str("the record it stands at has changed or gone, begin again without it"),
            Problem::ForeignCursor => f.write_str("it is forged, damaged or belongs to another query"),
        }
    }
}

impl Fault for QueryError {
    fn code(&self) -> Code {
        match self.problem {
            Problem::Reserved { .. } | Problem::OutOfReach { .. } => Code::Forbidden,
            _ => self.surface.code(),
        }
    }

    fn public(&self) -> Cow<'_, str> {
        let text = format!("Invalid {self}");
        Cow::Owned(if text.ends_with('?') { text } else { text + "." })
    }

    fn details(&self) -> Vec<Detail> {
        let name = self.surface.name();
        let code = if matches!(self.surface, Surface::Page(_)) { "page" } else { name };
        vec![Detail::new(name, format!("validation_invalid_{code}"), self.to_string())]
    }
}

/// The candidate closest to `name`, if one is close enough to be a slip of the keyboard.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let wanted = name.to_lowercase();
    let allowed = ((wanted.chars().count() + 1) / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(&wanted, &candidate.to_lowercase(), allowed), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein distance; anything above `allowed` may be returned as any larger number.
fn edit_distance(a: &str, b: &str, allowed: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    if a.len().abs_diff(b.len()) > allowed {
        return allowed + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut previous = i + 1;
        let mut next = vec![previous];
        for (slot, right) in row.iter().skip(1).zip(&b) {
            let value = (diagonal + usize::from(left != right)).min(previous + 1).min(slot + 1);
            diagonal = *slot;
            previous = value;
            next.push(value);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_names_are_suggested_and_far_ones_are_not() {
        let names = ["title", "status", "created"];
        assert_eq!(closest("titel", names).as_deref(), Some("title"));
        assert_eq!(closest("tite", names).as_deref(), Some("title"));
        assert_eq!(closest("Status", names).as_deref(), Some("status"));
        assert_eq!(closest("zzzzzz", names), None);
    }

    #[test]
    fn positions_count_characters() {
        let error = QueryError::at(Surface::Filter, "äö = 1", Span::new(5, 6), Problem::ForeignCursor);
        assert_eq!(error.position, 4);
    }
}
