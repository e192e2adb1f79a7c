//! Rules that are asked inside a transaction, about one record that is there.
//!
//! Keeps true: superusers pass every rule, a `null` rule admits nobody else, and a rule that cannot be understood
//! admits nobody. Does not do: reading records (there the rule is part of the statement itself).

use super::plans::{PlanKey, Question, RuleWork};
use super::{RecordError, Scope};
use crate::kernel::ident::RecordId;
use crate::kernel::value::Stored;
use crate::query::request::RequestContext;
use crate::query::resolve::Reach;
use crate::schema::Collection;
use crate::store::Reader;
use std::sync::Arc;

/// Refuses early where the rule is `null` and the caller no superuser.
pub(super) fn require_unlocked(
    scope: &Scope,
    collection: &Collection,
    rule: &Option<Arc<str>>,
    action: &'static str,
) -> Result<(), RecordError> {
    if rule.is_some() || scope.is_superuser() {
        return Ok(());
    }
    Err(RecordError::SuperuserOnly { collection: collection.name.clone(), action })
}

/// Whether `rule` admits the caller to the record `id`, as the reader sees it; `request` is what the rule reads.
pub(super) fn admits(
    reader: &Reader<'_>,
    scope: &Scope,
    request: &RequestContext,
    collection: &Arc<Collection>,
    rule: &Option<Arc<str>>,
    id: &RecordId,
) -> Result<bool, RecordError> {
    if scope.is_superuser() {
        return Ok(true);
    }
    let Some(rule) = rule else { return Ok(false) };
    if rule.trim().is_empty() {
        return Ok(true);
    }
    let key = PlanKey {
        tenant: scope.tenant.id().clone(),
        collection: collection.id.clone(),
        class: scope.class(),
        reach: Reach::EVERYWHERE,
        question: Question::Rule(Arc::clone(rule)),
    };
    match &*scope.tools.plans.rule(reader.schema(), key, collection, rule)? {
        RuleWork::Everyone => Ok(true),
        RuleWork::Nobody => Ok(false),
        RuleWork::Check(statement) => {
            let binds = statement.fill(request, &[Stored::text(id)]);
            Ok(reader.find_one(&statement.sql, &binds, |_| Ok(()))?.is_some())
        }
    }
}
