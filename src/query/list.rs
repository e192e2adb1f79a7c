//! The parameters of a list request: what was asked for, parsed and bounded, not yet resolved.
//!
//! Keeps true: aliases (`limit`, `pageSize`, `sortBy` …) and their PocketBase names give the same [`ListQuery`].
//! Does not do: names; the resolver decides what may be named.

use crate::kernel::limits;
use crate::query::error::{Problem, QueryError, Surface};
use crate::query::select::{ExpandTree, Selection};
use std::borrow::Cow;
use std::sync::Arc;

/// One key of a sort.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SortKey {
    /// A path, `@random` or `@rowid`.
    pub path: Arc<str>,
    /// Largest first.
    pub descending: bool,
}

/// A list request.
#[derive(Debug, Clone, PartialEq)]
pub struct ListQuery {
    /// 1-based page.
    pub page: usize,
    /// Records per page.
    pub per_page: usize,
    /// Do not count.
    pub skip_total: bool,
    /// The filter's text, trimmed; `None` is all.
    pub filter: Option<Arc<str>>,
    /// The sort; empty is the order of creation.
    pub sort: Vec<SortKey>,
    /// Which fields to show.
    pub fields: Selection,
    /// Which relations to embed.
    pub expand: ExpandTree,
    /// Words to search for.
    pub search: Option<Arc<str>>,
    /// Keyset paging was asked for; empty text starts at the beginning.
    pub cursor: Option<Arc<str>>,
    /// Functions to compute instead of listing; empty is none.
    pub aggregate: Vec<Aggregate>,
    /// Paths to group by.
    pub group: Vec<Arc<str>>,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self {
            page: 1,
            per_page: limits::PAGE_LEN_DEFAULT,
            skip_total: false,
            filter: None,
            sort: Vec::new(),
            fields: Selection::everything(),
            expand: ExpandTree::default(),
            search: None,
            cursor: None,
            aggregate: Vec::new(),
            group: Vec::new(),
        }
    }
}

/// One aggregate function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Aggregate {
    /// Which function.
    pub function: AggregateFunction,
    /// Of what; `None` only for `count`.
    pub path: Option<Arc<str>>,
    /// The text as written, which is also the name of the answer's column.
    pub name: Arc<str>,
}

/// The aggregate functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Number of records, or of records whose value is not empty.
    Count,
    /// Sum of numbers.
    Sum,
    /// Mean of numbers.
    Average,
    /// Smallest value.
    Minimum,
    /// Largest value.
    Maximum,
}

const FUNCTIONS: &[(&str, AggregateFunction)] = &[
    ("count", AggregateFunction::Count),
    ("sum", AggregateFunction::Sum),
    ("avg", AggregateFunction::Average),
    ("min", AggregateFunction::Minimum),
    ("max", AggregateFunction::Maximum),
];

impl ListQuery {
    /// Reads decoded query parameters; unknown ones are left to others, the last of two equal ones counts.
    pub fn parse<'p>(parameters: impl IntoIterator<Item = (&'p str, &'p str)>) -> Result<Self, QueryError> {
        let mut query = Self::default();
        let (mut fields, mut exclude) = ("", "");
        let (mut sort_by, mut sort_dir) = (None, "");
        for (name, value) in parameters {
            match name {
                "page" => query.page = whole_number("page", value)?.max(1),
                "perPage" => query.per_page = page_length("perPage", value)?,
                "pageSize" => query.per_page = page_length("pageSize", value)?,
                "limit" => query.per_page = page_length("limit", value)?,
                "skipTotal" => query.skip_total = matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
                "filter" => query.filter = text(value),
                "sort" => query.sort = parse_sort(value)?,
                "sortBy" => sort_by = text(value),
                "sortDir" => sort_dir = value,
                "fields" => fields = value,
                "excludeFields" => exclude = value,
                "expand" => query.expand = ExpandTree::parse(value)?,
                "search" => query.search = text(value),
                "cursor" => query.cursor = Some(Arc::from(value)),
                "aggregate" => query.aggregate = parse_aggregate(value)?,
                "group" => query.group = parse_group(value)?,
                _ => {}
            }
        }
        if let Some(path) = sort_by {
            query.sort = vec![SortKey { path, descending: parse_direction(sort_dir)? }];
        }
        query.fields = Selection::parse(fields, exclude)?;
        // The official SDK sends the first page's number whether or not it is meant.
        if query.cursor.is_some() && query.page > 1 {
            let reason = Cow::Borrowed("cannot stand beside cursor, which says by itself where the page begins");
            let problem = Problem::Unsupported { name: "page".to_owned(), reason };
            return Err(QueryError::whole(Surface::Page("page"), problem));
        }
        Ok(query)
    }

    /// The same question without the names of fields in it.
    pub fn without_names(&self) -> Self {
        let counted = |_| Aggregate { function: AggregateFunction::Count, path: None, name: Arc::from("count") };
        Self {
            filter: None,
            sort: Vec::new(),
            fields: Selection::everything(),
            expand: ExpandTree::default(),
            search: None,
            aggregate: self.aggregate.first().map(counted).into_iter().collect(),
            group: Vec::new(),
            ..self.clone()
        }
    }

    /// Records to skip before the page.
    pub fn offset(&self) -> usize {
        self.page.saturating_sub(1).saturating_mul(self.per_page)
    }
}

fn text(value: &str) -> Option<Arc<str>> {
    let value = value.trim();
    (!value.is_empty()).then(|| Arc::from(value))
}

fn page_length(name: &'static str, value: &str) -> Result<usize, QueryError> {
    let asked = whole_number(name, value)?;
    Ok(if asked == 0 { limits::PAGE_LEN_DEFAULT } else { asked.min(limits::PAGE_LEN_MAX) })
}

fn whole_number(name: &'static str, value: &str) -> Result<usize, QueryError> {
    if value.is_empty() {
        return Ok(0);
    }
    let wanted = |_| {
        let expected = Cow::Owned(format!("a whole number up to {} for {name}", i64::MAX));
        QueryError::whole(Surface::Page(name), Problem::Syntax { expected, found: value.chars().take(40).collect() })
    };
    value.parse::<i64>().map_err(wanted).map(|number| usize::try_from(number).unwrap_or(0))
}

fn parse_direction(value: &str) -> Result<bool, QueryError> {
    match value {
        "" | "asc" | "ASC" => Ok(false),
        "desc" | "DESC" => Ok(true),
        other => Err(QueryError::whole(
            Surface::Sort,
            Problem::Syntax { expected: Cow::Borrowed("asc or desc"), found: other.chars().take(40).collect() },
        )),
    }
}

/// Parses `-a,+b,@random`.
pub fn parse_sort(source: &str) -> Result<Vec<SortKey>, QueryError> {
    let mut keys: Vec<SortKey> = Vec::new();
    for part in source.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let descending = part.starts_with('-');
        let path = part.strip_prefix(['-', '+']).unwrap_or(part).trim();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '@');
        if path.is_empty() || !path.chars().all(fits) {
            let problem =
                Problem::Syntax { expected: Cow::Borrowed("a field"), found: part.chars().take(40).collect() };
            return Err(QueryError { surface: Surface::Sort, position: position_of(source, part), problem });
        }
        // A second mention of a path cannot change the order any more.
        if !keys.iter().any(|key| &*key.path == path) {
            keys.push(SortKey { path: Arc::from(path), descending });
        }
    }
    if keys.len() > limits::SORT_FIELDS_MAX {
        let problem = Problem::TooMany { what: "sort fields", limit: limits::SORT_FIELDS_MAX };
        return Err(QueryError::whole(Surface::Sort, problem));
    }
    Ok(keys)
}

fn position_of(source: &str, part: &str) -> usize {
    let before = source.find(part).and_then(|at| source.get(..at)).unwrap_or_default();
    before.chars().count() + 1
}

fn parse_aggregate(source: &str) -> Result<Vec<Aggregate>, QueryError> {
    let mut out: Vec<Aggregate> = Vec::new();
    for part in source.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, path) = match part.split_once('(') {
            Some((name, rest)) => (name.trim(), rest.strip_suffix(')').map(str::trim)),
            None => (part, Some("")),
        };
        let function = FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, function)| *function);
        let (Some(function), Some(path)) = (function, path) else {
            let expected = Cow::Borrowed("count, count(field), sum(field), avg(field), min(field) or max(field)");
            let problem = Problem::Syntax { expected, found: part.chars().take(40).collect() };
            return Err(QueryError { surface: Surface::Aggregate, position: position_of(source, part), problem });
        };
        let path = text(path).filter(|path| &**path != "*");
        if path.is_none() && function != AggregateFunction::Count {
            let reason = Cow::Borrowed("needs a field in parentheses");
            return Err(QueryError::whole(Surface::Aggregate, Problem::Unsupported { name: part.to_owned(), reason }));
        }
        if !out.iter().any(|known| &*known.name == part) {
            out.push(Aggregate { function, path, name: Arc::from(part) });
        }
    }
    within("aggregates", out)
}

fn parse_group(source: &str) -> Result<Vec<Arc<str>>, QueryError> {
    let mut out: Vec<Arc<str>> = Vec::new();
    for path in source.split(',').filter_map(text) {
        if !out.contains(&path) {
            out.push(path);
        }
    }
    within("group fields", out)
}

fn within<T>(what: &'static str, list: Vec<T>) -> Result<Vec<T>, QueryError> {
    if list.len() > limits::SORT_FIELDS_MAX {
        let problem = Problem::TooMany { what, limit: limits::SORT_FIELDS_MAX };
        return Err(QueryError::whole(Surface::Aggregate, problem));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(sort: &[SortKey]) -> Vec<(&str, bool)> {
        sort.iter().map(|key| (&*key.path, key.descending)).collect()
    }

    #[test]
    fn aliases_mean_the_same() {
        let one = ListQuery::parse([("perPage", "7"), ("sort", "-a"), ("page", "3")]).expect("valid");
        let two =
            ListQuery::parse([("limit", "7"), ("sortBy", "a"), ("sortDir", "desc"), ("page", "3")]).expect("valid");
        assert_eq!(one, two);
        assert_eq!(one.offset(), 14);
    }

    #[test]
    fn bounds_hold_and_nonsense_is_refused() {
        let query = ListQuery::parse([("perPage", "100000"), ("page", "-4")]).expect("valid");
        assert_eq!((query.per_page, query.page), (limits::PAGE_LEN_MAX, 1));
        for parameter in [
            ("page", "x"),
            ("sort", "a b"),
            ("sort", "a,b,c,d,e,f,g,h,i"),
            ("aggregate", "median(x)"),
            ("aggregate", "sum"),
            ("aggregate", "sum(x"),
        ] {
            assert!(ListQuery::parse([parameter]).is_err(), "{parameter:?}");
        }
        assert!(ListQuery::parse([("sortBy", "a"), ("sortDir", "up")]).is_err());
        assert!(ListQuery::parse([("page", "2"), ("cursor", "")]).is_err());
        assert!(ListQuery::parse([("cursor", ""), ("page", "1")]).is_ok());
    }

    #[test]
    fn sorts_keep_their_order_and_drop_repeats() {
        let sort = parse_sort(" -a, +b.c ,@random,a").expect("valid");
        assert_eq!(keys(&sort), [("a", true), ("b.c", false), ("@random", false)]);
    }
}
