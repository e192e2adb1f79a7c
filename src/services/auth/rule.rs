//! Whether a rule admits an account that is about to log in.
//!
//! Keeps true: the account is both the record the rule is about and `@request.auth`; a rule that cannot be understood
//! admits nobody. Does not do: the language of rules.

use super::error::AuthError;
use crate::access::{Decision, Principal, Rule, decide};
use crate::kernel::value::Stored;
use crate::query::plan;
use crate::query::request::{AuthRecord, RequestContext};
use crate::query::resolve::Lens;
use crate::store::{StoreError, TenantDb};
use std::sync::Arc;

/// Refuses unless `rule` holds for `account`.
pub(super) async fn admits(
    db: &TenantDb,
    account: &Arc<AuthRecord>,
    rule: &str,
    request: &RequestContext,
    now_ms: i64,
) -> Result<(), AuthError> {
    // Superusers pass every rule as callers; here the account is judged by the rule, whoever it is.
    let principal = Principal::Record(Arc::clone(account));
    let request = RequestContext { auth: Some(Arc::clone(account)), now_ms, ..request.clone() };
    let (rule, account) = (rule.to_owned(), Arc::clone(account));
    let admitted = db.read(move |reader| {
        let class = principal.class();
        let lens = Lens::new(reader.schema(), &class);
        let compiled = Rule::compile(lens, &account.collection, Some(&rule));
        if let Rule::Broken(error) = &compiled {
            return Err(AuthError::Rule(error.to_string()));
        }
        match decide(&compiled, &principal, &request) {
            Decision::Allow => Ok(true),
            Decision::Deny => Ok(false),
            Decision::Narrow(predicate) => {
                let statement = plan::check(lens, &predicate);
                let binds = statement.fill(&request, &[Stored::text(&account.record.id)]);
                Ok(reader.find_one(&statement.sql, &binds, |_| Ok::<_, StoreError>(()))?.is_some())
            }
        }
    });
    if admitted.await? { Ok(()) } else { Err(AuthError::RuleRefused) }
}
