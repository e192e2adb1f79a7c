//! `search=`: words looked up in the full-text index of a collection.
//!
//! Keeps true: only columns that this class of caller may read in every record are searched, and results are ranked
//! only when no other column could influence the rank. What the user typed is never FTS5 syntax.
//! Does not do: keeping the index current (triggers of `store`).

use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::error::{Problem, QueryError, Surface};
use crate::query::request::Bind;
use crate::query::resolve::Lens;
use crate::query::resolved::Visibility;
use crate::query::sql::{Condition, Fragment};
use crate::query::statement::ROOT_ALIAS;
use crate::schema::Collection;
use std::borrow::Cow;
use std::sync::Arc;

/// The alias of the full-text table.
pub(crate) const ALIAS: &str = "s";

/// A compiled search.
pub(crate) struct Search {
    pub(crate) join: Fragment,
    pub(crate) condition: Condition,
    /// Best matches may come first.
    pub(crate) ranked: bool,
}

pub(crate) fn compile(lens: Lens<'_>, collection: &Arc<Collection>, text: &str) -> Result<Search, QueryError> {
    let searchable: Vec<_> = collection.fields.iter().filter(|field| field.searchable).collect();
    let readable: Vec<_> =
        searchable.iter().filter(|field| lens.readable(collection, field) == Visibility::Always).collect();
    if readable.is_empty() || collection.is_view() {
        let reason = Cow::Borrowed("has no fields that can be searched");
        let problem = Problem::Unsupported { name: collection.name.to_string(), reason };
        return Err(QueryError::whole(Surface::Search, problem));
    }
    let table = format!("fts_{}", collection.id);
    let columns: Vec<String> = readable.iter().map(|field| field.column().into_owned()).collect();
    let Some(words) = match_words(text)? else {
        return Ok(Search { join: Fragment::default(), condition: Condition::Known(false), ranked: false });
    };
    let wanted = format!("{{{}}} : ({words})", columns.join(" "));
    let mut condition = Fragment::text(format!("{ALIAS}.\"{table}\" MATCH "));
    condition.append(Fragment::bind(Bind::Value(Stored::from(wanted))));
    Ok(Search {
        join: Fragment::text(format!(" JOIN \"{table}\" AS {ALIAS} ON {ALIAS}.rowid = {ROOT_ALIAS}._r")),
        condition: Condition::Sql(condition),
        ranked: readable.len() == searchable.len(),
    })
}

/// Every word must occur, as the beginning of a word. `None` when nothing could match.
fn match_words(text: &str) -> Result<Option<String>, QueryError> {
    let words: Vec<String> = text
        .split_whitespace()
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .map(|word| format!("\"{}\"*", word.replace('"', "\"\"").replace('\0', "")))
        .collect();
    if words.len() > limits::SEARCH_WORDS_MAX {
        let problem = Problem::TooMany { what: "words", limit: limits::SEARCH_WORDS_MAX };
        return Err(QueryError::whole(Surface::Search, problem));
    }
    Ok((!words.is_empty()).then(|| words.join(" AND ")))
}
