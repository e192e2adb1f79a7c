//! Why a rule holds or fails for one record: every comparison with both values and its outcome.
//!
//! Keeps true: the verdict is the evaluator's own. Does not do: hiding anything; only superusers are shown this.

use crate::access::{Action, Principal, Rule};
use crate::kernel::value::Stored;
use crate::query::eval::{self, Dataset};
use crate::query::request::RequestContext;
use crate::query::resolve::Lens;
use crate::schema::field::Field;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use std::sync::Arc;

/// Why an action is allowed or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The rule's text; `None` is superusers only.
    pub rule: Option<Arc<str>>,
    /// One sentence.
    pub reason: String,
    /// The comparisons, in the order they stand; rows that were visited give several each.
    pub comparisons: Vec<ComparisonReport>,
}

/// One comparison of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparisonReport {
    /// The comparison as written.
    pub source: String,
    /// The left value.
    pub left: Stored,
    /// The right value.
    pub right: Stored,
    /// Whether it held.
    pub outcome: bool,
}

/// Explains what `principal` may do to `record`.
pub fn explain(
    schema: &Schema,
    collection: &Arc<Collection>,
    action: Action,
    principal: &Principal,
    request: &RequestContext,
    record: &Arc<RecordImage>,
    data: &dyn Dataset,
) -> Explanation {
    explain_rule(schema, collection, action.rule_text(collection), principal, request, record, data)
}

/// Explains what `principal` may do with one field of `record`: the field's own rule, as if that of the record held.
///
/// `rule` is the field's read or write rule; without one the field is as open as its record, unless it is hidden.
pub fn explain_field(
    schema: &Schema,
    (collection, field): (&Arc<Collection>, &Field),
    rule: Option<&Arc<str>>,
    principal: &Principal,
    request: &RequestContext,
    record: &Arc<RecordImage>,
    data: &dyn Dataset,
) -> Explanation {
    let answer =
        |allowed, reason: &str| Explanation { allowed, rule: None, reason: reason.to_owned(), comparisons: Vec::new() };
    if principal.is_superuser() {
        answer(true, "Superusers may do everything; the rule is not asked.")
    } else if field.hidden {
        answer(false, "The field is hidden, so it is there for superusers only.")
    } else if rule.is_none() {
        answer(true, "The field has no rule of its own; the rule of its record decides.")
    } else {
        explain_rule(schema, collection, rule, principal, request, record, data)
    }
}

fn explain_rule(
    schema: &Schema,
    collection: &Arc<Collection>,
    rule: Option<&Arc<str>>,
    principal: &Principal,
    request: &RequestContext,
    record: &Arc<RecordImage>,
    data: &dyn Dataset,
) -> Explanation {
    let rule = rule.cloned();
    let answer = |allowed, reason: &str, comparisons| Explanation {
        allowed,
        rule: rule.clone(),
        reason: reason.to_owned(),
        comparisons,
    };
    if principal.is_superuser() {
        return answer(true, "Superusers may do everything; the rule is not asked.", Vec::new());
    }
    let Some(text) = rule.clone() else {
        return answer(false, "There is no rule, so only superusers may do this.", Vec::new());
    };
    if text.trim().is_empty() {
        return answer(true, "The rule is empty, so everyone may do this.", Vec::new());
    }
    let class = principal.class();
    match Rule::compile(Lens::new(schema, &class), collection, Some(&text)) {
        Rule::Broken(error) => answer(false, &format!("The rule cannot be understood: {error}."), Vec::new()),
        Rule::Locked | Rule::Known(false) => answer(false, "The rule never holds for this kind of caller.", Vec::new()),
        Rule::Known(true) => answer(true, "The rule always holds for this kind of caller.", Vec::new()),
        Rule::Conditional(predicate) => {
            let (allowed, seen) = eval::observe(&predicate, data, request, record);
            let comparisons = seen
                .into_iter()
                .map(|seen| ComparisonReport {
                    source: seen.span.of(&text).to_owned(),
                    left: seen.left,
                    right: seen.right,
                    outcome: seen.outcome,
                })
                .collect();
            let reason =
                if allowed { "The rule holds for this record." } else { "The rule does not hold for this record." };
            answer(allowed, reason, comparisons)
        }
    }
}
