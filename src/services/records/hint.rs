//! What to say when a question used up its budget: which indexes are missing, and whether it is the question or a rule.
//!
//! Keeps true: a caller is told names of their own question only; what a rule lacks goes to the log, for whoever wrote it.
//! Does not do: finding out what would help (that is `query::advice`), measuring.

use super::{RecordError, Scope};
use crate::query::advice::Advice;
use crate::query::error::Surface;
use crate::query::list::ListQuery;
use crate::query::resolve::Lens;
use crate::query::resolved::{Operand, Visibility};
use crate::query::select::ExpandTree;
use crate::schema::Collection;
use crate::store::StoreError;
use std::sync::Arc;

/// The question that an error may be about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question<'q> {
    /// A list, totals or an export.
    List(&'q ListQuery),
    /// One record and what it embeds.
    One(&'q ExpandTree),
}

/// Adds what would help, where an error says that a read of `collection` did too much work.
pub(super) fn explain_cost(
    error: RecordError,
    scope: &Scope,
    collection: &Collection,
    question: Question<'_>,
) -> RecordError {
    if !matches!(error, RecordError::Store(StoreError::TooExpensive)) {
        return error;
    }
    let (schema, class) = (scope.tenant.schema(), scope.class());
    let Some(collection) = schema.find_id(&collection.id) else { return error };
    let lens = Lens::new(&schema, &class).within(&scope.reach);
    let mut advice = Advice::default();
    let rules = &collection.rules;
    let (rule, text, shown) = match question {
        Question::List(query) => {
            on_list(&mut advice, lens, collection, query);
            ("list rule", &rules.list, lens.listed(collection))
        }
        Question::One(expand) => {
            advice.on_expand(lens, collection, expand);
            ("view rule", &rules.view, lens.viewed(collection))
        }
    };
    let beside = match (&shown, text) {
        (Visibility::When(condition), Some(text)) => {
            let mut lacking = Advice::default();
            lacking.on_condition(condition, text, &[]);
            note_rule(scope, collection, rule, &lacking);
            Some(rule)
        }
        _ if collection.is_view() => Some("SELECT"),
        _ => None,
    };
    RecordError::TooExpensive { collection: collection.name.clone(), advice, beside }
}

fn on_list(advice: &mut Advice, lens: Lens<'_>, collection: &Arc<Collection>, query: &ListQuery) {
    advice.on_expand(lens, collection, &query.expand);
    // A search begins with its words; no other index is used.
    if query.search.is_some() {
        return;
    }
    let filter = query.filter.as_deref().unwrap_or_default();
    let Ok(condition) = lens.filter(collection, filter) else { return };
    let sort = query.sort.iter().map(|key| (&*key.path, key.descending));
    let order = sort.chain(query.group.iter().map(|path| (&**path, false)));
    let order: Option<Vec<(Operand, bool)>> = order
        .map(|(path, descending)| Some((lens.operand(collection, Surface::Sort, path, path).ok()?.0, descending)))
        .collect();
    advice.on_condition(&condition, filter, &order.unwrap_or_default());
}

fn note_rule(scope: &Scope, collection: &Collection, rule: &str, lacking: &Advice) {
    tracing::warn!(
        {
            tenant.id = %scope.tenant.id(),
            request.id = %scope.request_id,
            rule.name = rule,
            rule.lacking = %lacking,
        },
        "a read of {} under its {rule} used up its budget",
        collection.name
    );
}
