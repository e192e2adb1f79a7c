//! Rules that are asked inside a transaction, about one record that is there or would be.
//!
//! Keeps true: superusers pass every rule, a `null` rule admits nobody else, and a rule that cannot be understood
//! admits nobody. Does not do: reading records (there the rule is part of the statement itself).

use super::plans::{PlanKey, Question, RuleWork};
use super::{RecordError, Scope};
use crate::kernel::ident::RecordId;
use crate::kernel::value::Stored;
use crate::query::request::RequestContext;
use crate::query::resolve::Reach;
use crate::query::{eval, plan};
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
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

/// The record that a rule is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Subject<'record> {
    /// It is there, as the reader sees it.
    Stored(&'record RecordId),
    /// It is not, and the rule is asked what it would say if it were.
    WouldBe(&'record RecordImage),
}

/// Whether `rule` admits the caller to a record; `request` is what the rule reads.
pub(super) fn admits(
    reader: &Reader<'_>,
    scope: &Scope,
    request: &RequestContext,
    collection: &Arc<Collection>,
    rule: &Option<Arc<str>>,
    subject: Subject<'_>,
) -> Result<bool, RecordError> {
    let check = match Asked::of(scope, reader.schema(), collection, rule)? {
        Asked::Known(known) => return Ok(known),
        Asked::Open(work) => work,
    };
    let RuleWork::Check(check) = &*check else { return Ok(matches!(*check, RuleWork::Everyone)) };
    let (statement, arguments) = match subject {
        Subject::Stored(id) => (&check.stored, vec![Stored::text(id)]),
        Subject::WouldBe(record) => (&check.would_be, plan::would_be_arguments(collection, record)),
    };
    let binds = statement.fill(request, &arguments);
    Ok(reader.find_one(&statement.sql, &binds, |_| Ok(()))?.is_some())
}

/// Whether `rule` refuses the caller whatever the record; with a `request`, also whatever else is stored.
pub(super) fn refuses_all(
    scope: &Scope,
    schema: &Arc<Schema>,
    collection: &Arc<Collection>,
    rule: &Option<Arc<str>>,
    request: Option<&RequestContext>,
) -> Result<bool, RecordError> {
    Ok(match Asked::of(scope, schema, collection, rule)? {
        Asked::Known(known) => !known,
        Asked::Open(work) => match &*work {
            RuleWork::Everyone => false,
            RuleWork::Nobody => true,
            RuleWork::Check(check) => {
                request.and_then(|request| eval::without_record(&check.predicate, request)) == Some(false)
            }
        },
    })
}

/// What is known of a rule before it is compiled.
enum Asked {
    Known(bool),
    Open(Arc<RuleWork>),
}

impl Asked {
    fn of(
        scope: &Scope,
        schema: &Arc<Schema>,
        collection: &Arc<Collection>,
        rule: &Option<Arc<str>>,
    ) -> Result<Self, RecordError> {
        if scope.is_superuser() {
            return Ok(Self::Known(true));
        }
        let Some(rule) = rule else { return Ok(Self::Known(false)) };
        if rule.trim().is_empty() {
            return Ok(Self::Known(true));
        }
        let key = PlanKey {
            tenant: scope.tenant.id().clone(),
            collection: collection.id.clone(),
            class: scope.class(),
            reach: Reach::EVERYWHERE,
            question: Question::Rule(Arc::clone(rule)),
        };
        Ok(Self::Open(scope.tools.plans.rule(schema, key, collection, rule)?))
    }
}
