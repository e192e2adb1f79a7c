//! Whether a rule admits an account that is about to log in.
//!
//! Keeps true: a rule that cannot be evaluated admits nobody.
//! Does not do: the language of rules.

use super::error::AuthError;
use crate::query::request::{AuthRecord, RequestContext};
use crate::store::TenantDb;
use std::sync::Arc;

/// Whether `rule` holds for `account`.
pub(super) async fn admits(
    _db: &TenantDb,
    account: &Arc<AuthRecord>,
    _rule: &str,
    _request: &RequestContext,
    _now_ms: i64,
) -> Result<(), AuthError> {
    Err(AuthError::Rule(account.collection.name.to_string()))
}
