//! Why a rule holds or fails for one record: every comparison with both values and its outcome.
//!
//! Keeps true: the verdict is the evaluator's own, and an explanation that ran out of steps says that it has none.
//! Does not do: hiding anything; only superusers are shown this.

use crate::access::{Action, Principal, Rule};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::eval::{self, Dataset, Steps};
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
    /// Whether that is known: the rule was followed to its end.
    pub decided: bool,
    /// Whether the comparisons are all that were made.
    pub complete: bool,
    /// The rule's text; `None` is superusers only.
    pub rule: Option<Arc<str>>,
    /// One sentence.
    pub reason: String,
    /// The comparisons, in the order they were made; rows that were visited give several each, of which few are here.
    pub comparisons: Vec<ComparisonReport>,
    /// How many more there were of which.
    pub unseen: Vec<UnseenReport>,
}

/// Comparisons that were made with more rows than are shown.
#[derive(Debug, Clone, PartialEq)]
pub struct UnseenReport {
    /// The comparison as written.
    pub source: String,
    /// Whether these held.
    pub outcome: bool,
    /// How many there were.
    pub count: u64,
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
    let answer = |allowed, reason: &str| Explanation::without_comparisons(allowed, None, reason);
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
    let answer = |allowed, reason: &str| Explanation::without_comparisons(allowed, rule.clone(), reason);
    if principal.is_superuser() {
        return answer(true, "Superusers may do everything; the rule is not asked.");
    }
    let Some(text) = rule.clone() else {
        return answer(false, "There is no rule, so only superusers may do this.");
    };
    if text.trim().is_empty() {
        return answer(true, "The rule is empty, so everyone may do this.");
    }
    let class = principal.class();
    match Rule::compile(Lens::new(schema, &class), collection, Some(&text)) {
        Rule::Broken(error) => answer(false, &format!("The rule cannot be understood: {error}.")),
        Rule::Locked | Rule::Known(false) => answer(false, "The rule never holds for this kind of caller."),
        Rule::Known(true) => answer(true, "The rule always holds for this kind of caller."),
        Rule::Conditional(predicate) => {
            let steps = Steps::new(limits::EXPLAIN_STEPS_MAX);
            let observed = eval::observe(&predicate, data, request, record, &steps);
            let comparisons = observed
                .comparisons
                .into_iter()
                .map(|seen| ComparisonReport {
                    source: seen.span.of(&text).to_owned(),
                    left: seen.left,
                    right: seen.right,
                    outcome: seen.outcome,
                })
                .collect();
            let unseen = observed.unseen.into_iter().map(|one| UnseenReport {
                source: one.span.of(&text).to_owned(),
                outcome: one.outcome,
                count: one.count,
            });
            let unseen = unseen.collect();
            let said = match observed.outcome {
                Ok(true) => answer(true, "The rule holds for this record."),
                Ok(false) => answer(false, "The rule does not hold for this record."),
                Err(_) => answer(false, "The rule looks at more than can be followed here."),
            };
            Explanation { decided: observed.outcome.is_ok(), complete: observed.complete, comparisons, unseen, ..said }
        }
    }
}

impl Explanation {
    fn without_comparisons(allowed: bool, rule: Option<Arc<str>>, reason: &str) -> Self {
        Self {
            allowed,
            decided: true,
            complete: true,
            rule,
            reason: reason.to_owned(),
            comparisons: Vec::new(),
            unseen: Vec::new(),
        }
    }
}
