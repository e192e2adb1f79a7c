//! What to say when a list used up its budget: which index is missing.
//!
//! Keeps true: only names that the caller wrote are repeated. Does not do: measuring (the advisor does, from what it
//! observed).

use super::RecordError;
use crate::kernel::ident::FieldNumber;
use crate::query::ast::{Term, TermKind};
use crate::query::list::ListQuery;
use crate::query::parse_filter;
use crate::schema::Collection;
use crate::store::StoreError;

/// Names the fields that an index should begin with, where an error says that the list was too expensive.
pub(super) fn explain_cost(error: RecordError, collection: &Collection, query: &ListQuery) -> RecordError {
    if !matches!(error, RecordError::Store(StoreError::TooExpensive)) {
        return error;
    }
    let mut fields = Vec::new();
    let mut name = |path: &str| {
        let first = path.split(['.', ':']).next().unwrap_or_default();
        if let Some(field) = collection.find_field(first)
            && !fields.iter().any(|known| known == first)
            && !leads_an_index(collection, field.number)
        {
            fields.push(first.to_owned());
        }
    };
    if let Some(Ok(Some(filter))) = query.filter.as_deref().map(parse_filter) {
        let mut terms = Vec::new();
        filter.for_each_comparison(&mut |comparison| terms.extend([&comparison.left, &comparison.right]));
        terms.into_iter().for_each(|term| name_of(term, &mut name));
    }
    query.sort.iter().for_each(|key| name(&key.path));
    RecordError::TooExpensive { collection: collection.name.clone(), fields }
}

fn name_of(term: &Term, name: &mut impl FnMut(&str)) {
    match &term.kind {
        TermKind::Name(path) => name(path),
        TermKind::Call { arguments, .. } => arguments.iter().for_each(|argument| name_of(argument, name)),
        TermKind::Text(_) | TermKind::Number(_) => {}
    }
}

fn leads_an_index(collection: &Collection, field: FieldNumber) -> bool {
    field.0 == 0
        || collection.indexes.iter().any(|index| index.columns.first().is_some_and(|first| first.field == field))
}
