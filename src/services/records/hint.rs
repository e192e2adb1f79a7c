//! What to say when a question or a write used up its budget: which indexes are missing, and whether it is the question, a
//! rule, or the search for what refers to a record.
//!
//! Keeps true: a caller is told names of their own question only, superusers those of far collections too; what a rule
//! or a deletion lacks goes to the log, for whoever wrote the schema, once per collection and minute; a rule is blamed only
//! where it lacks an index or nothing else was asked.
//! Does not do: finding out what would help (that is `query::advice`), measuring.

use super::{RecordError, Scope};
use crate::kernel::ident::{CollectionId, TenantId};
use crate::query::advice::Advice;
use crate::query::error::Surface;
use crate::query::list::ListQuery;
use crate::query::request::CallerClass;
use crate::query::resolve::Lens;
use crate::query::resolved::{Operand, Visibility};
use crate::query::select::ExpandTree;
use crate::schema::Collection;
use crate::store::StoreError;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// How often the log hears of the rules of one collection, milliseconds.
const COMPLAIN_EVERY_MS: i64 = 60_000;
/// Collections that the log hears of in that time at most.
const COMPLAINTS_MAX: usize = 256;

/// The question that an error may be about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question<'q> {
    /// A list, totals or an export.
    List(&'q ListQuery),
    /// One record and what it embeds.
    One(&'q ExpandTree),
    /// A record that a write has admitted, and what it embeds: no rule is asked.
    Written(&'q ExpandTree),
}

/// A rule that was asked about one record.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskedRule<'r> {
    /// What it is called, as in `update rule`.
    pub(super) name: &'static str,
    pub(super) text: Option<&'r str>,
    /// The class of caller for whom it was asked.
    pub(super) class: &'r CallerClass,
}

/// Adds what would help, where an error says that a read of `collection` did too much work.
pub(super) fn explain_cost(
    error: RecordError,
    scope: &Scope,
    collection: &Collection,
    question: Question<'_>,
) -> RecordError {
    if !is_cost(&error) {
        return error;
    }
    let (schema, class) = (scope.tenant.schema(), scope.class());
    let Some(collection) = schema.find_id(&collection.id) else { return error };
    let lens = Lens::new(&schema, &class).within(&scope.reach);
    let mut advice = Advice { by_path: !scope.is_superuser(), ..Advice::default() };
    let rules = &collection.rules;
    let (rule, text, shown, filtered) = match question {
        Question::List(query) => {
            on_list(&mut advice, lens, collection, query);
            ("list rule", &rules.list, lens.listed(collection), query.filter.is_some())
        }
        Question::One(expand) => {
            advice.on_expand(lens, collection, expand);
            ("view rule", &rules.view, lens.viewed(collection), false)
        }
        Question::Written(expand) => {
            advice.on_expand(lens, collection, expand);
            ("view rule", &None, Visibility::Always, false)
        }
    };
    let beside = match (&shown, text) {
        (Visibility::When(condition), Some(text)) => {
            let mut lacking = Advice::default();
            match question {
                Question::List(_) => lacking.on_condition(condition, text, &[]),
                Question::One(_) | Question::Written(_) => lacking.on_check(condition),
            }
            note_rule(scope, collection, rule, &lacking);
            (!filtered || !lacking.is_empty()).then_some(rule)
        }
        _ if collection.is_view() => Some("SELECT"),
        _ => None,
    };
    RecordError::TooExpensive { collection: collection.name.clone(), advice, beside }
}

/// Adds what would help, where an error says that asking a rule about one record of `collection` did too much work.
pub(super) fn explain_rule(
    error: RecordError,
    scope: &Scope,
    collection: &Collection,
    rule: AskedRule<'_>,
) -> RecordError {
    if !is_cost(&error) {
        return error;
    }
    let schema = scope.tenant.schema();
    let Some(collection) = schema.find_id(&collection.id) else { return error };
    let mut lacking = Advice::default();
    if let Some(Ok(condition)) = rule.text.map(|text| Lens::new(&schema, rule.class).rule(collection, text)) {
        lacking.on_check(&condition);
    }
    told(scope, collection, rule.name, lacking)
}

/// Adds what would help, where an error says that looking for what refers to a record of `collection` did too much work.
pub(super) fn explain_deletion(error: RecordError, scope: &Scope, collection: &Collection) -> RecordError {
    if !is_cost(&error) {
        return error;
    }
    let schema = scope.tenant.schema();
    let mut lacking = Advice::default();
    lacking.on_deletion(&schema, collection);
    told(scope, collection, "search for what refers to a record", lacking)
}

/// What is no part of the question is named to superusers, who may see the schema, and to the log.
fn told(scope: &Scope, collection: &Collection, beside: &'static str, lacking: Advice) -> RecordError {
    note_rule(scope, collection, beside, &lacking);
    let advice = if scope.is_superuser() { lacking } else { Advice::default() };
    RecordError::TooExpensive { collection: collection.name.clone(), advice, beside: Some(beside) }
}

fn is_cost(error: &RecordError) -> bool {
    matches!(error, RecordError::Store(StoreError::TooExpensive))
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

/// Which rules were complained about in the last minute.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<HashMap<(TenantId, CollectionId), i64>>);

impl Complaints {
    /// Whether the log may be told of `collection` again.
    fn admits(&self, tenant: &TenantId, collection: &CollectionId, now_ms: i64) -> bool {
        let mut told = self.0.lock();
        told.retain(|_, told_ms| (0..COMPLAIN_EVERY_MS).contains(&now_ms.saturating_sub(*told_ms)));
        let place = (tenant.clone(), collection.clone());
        if told.len() >= COMPLAINTS_MAX || told.contains_key(&place) {
            return false;
        }
        told.insert(place, now_ms);
        true
    }
}

fn note_rule(scope: &Scope, collection: &Collection, rule: &str, lacking: &Advice) {
    let (tools, tenant) = (&scope.tools, scope.tenant.id());
    if !tools.complaints.admits(tenant, &collection.id, tools.clock.now_ms()) {
        return;
    }
    tracing::warn!(
        {
            tenant.id = %tenant,
            request.id = %scope.request_id,
            rule.name = rule,
            rule.lacking = %lacking,
        },
        "a request to {} used up its budget in the {rule}",
        collection.name
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_hears_of_a_collection_once_a_minute() {
        let complaints = Complaints::default();
        let (one, two) = (TenantId::parse("one").unwrap(), TenantId::parse("two").unwrap());
        let posts = CollectionId::parse("posts").unwrap();
        assert!(complaints.admits(&one, &posts, 0) && complaints.admits(&two, &posts, 0));
        assert!(!complaints.admits(&one, &posts, COMPLAIN_EVERY_MS - 1));
        assert!(complaints.admits(&one, &posts, COMPLAIN_EVERY_MS));
        let many = (0..2 * COMPLAINTS_MAX).map(|n| CollectionId::parse(&format!("c{n}")).unwrap());
        let told = many.filter(|id| complaints.admits(&two, id, COMPLAIN_EVERY_MS)).count();
        assert_eq!(told, COMPLAINTS_MAX - 1, "however many there are");
    }
}
