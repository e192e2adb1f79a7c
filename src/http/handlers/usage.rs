//! Who uses how much of what.
//!
//! Keeps true: only a superuser of the node sees it; it is read from counters and touches no tenant.
//! Does not do: counting and refusing, that is `services::budget`.

use super::tenants::TenantsPart;
use crate::http::extract::NodeVisitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::datetime;
use crate::services::tenants::TenantEntry;
use actix_web::{HttpResponse, web};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /api/admin/usage?tenant=`: the busiest first.
pub(crate) async fn get_usage(visitor: NodeVisitor, part: web::Data<TenantsPart>) -> Result<HttpResponse, Problem> {
    let now_ms = part.clock.now_ms();
    let defaults = part.budgets.defaults();
    let show = |entry: &Arc<TenantEntry>| {
        let used = part.budgets.usage(&entry.id).report(now_ms);
        let limits = entry.limits.or(defaults);
        (used, json!({ "id": entry.id.as_str(), "slug": entry.slug.as_str(), "used": used, "limits": limits }))
    };
    let named = visitor.0.text("tenant");
    let entries = match named.as_str() {
        "" => part.registry.entries(),
        named => vec![part.registry.find(named)?],
    };
    let mut shown: Vec<_> = entries.iter().map(show).collect();
    shown.sort_by_key(|(used, _)| std::cmp::Reverse((used.requests_per_minute, used.requests)));
    let items: Vec<Value> = shown.into_iter().map(|(_, row)| row).collect();
    Ok(respond::json(&json!({ "timestamp": datetime::format_ms(now_ms), "items": items })))
}
