//! What a request that comes with an API key may do, decided once, by route, before any handler runs.
//!
//! Keeps true: a route that is not listed here is closed to every key that is narrowed in any way, so a new route is
//! never open to keys by accident; a key that is narrowed to collections embeds nothing.
//! Does not do: the account's own rights; rules still apply to what a key may ask. Where a filter, sort, group or
//! aggregate of a narrowed key would lead is decided when it is planned (`query::resolve::Reach`).

use crate::http::problem::Problem;
use crate::kernel::error::Code;
use crate::services::auth::{Identity, KeyOperation};
use crate::store::TenantDb;
use actix_web::HttpRequest;
use actix_web::http::Method;

/// The routes whose operation follows from the method, all with `{collection}`.
const RECORD_ROUTES: &[&str] = &[
    "/api/collections/{collection}/records",
    "/api/collections/{collection}/records/{id}",
    "/api/collections/{collection}/records/{id}/history",
    "/api/files/{collection}/{id}/{filename}",
];

/// Refuses what the key of `identity`, if it has one, is not good for.
pub(crate) fn check(request: &HttpRequest, tenant: &TenantDb, identity: &Identity) -> Result<(), Problem> {
    let Some(key) = &identity.key else { return Ok(()) };
    let pattern = request.match_pattern().unwrap_or_default();
    let allowed = if RECORD_ROUTES.contains(&pattern.as_str()) {
        let collection = tenant.schema().find(request.match_info().get("collection").unwrap_or_default()).cloned();
        let expands = url::form_urlencoded::parse(request.query_string().as_bytes())
            .any(|(name, value)| name == "expand" && !value.is_empty());
        match (collection, operation(request.method())) {
            // An unknown collection is the handler's 404.
            (None, _) => true,
            (Some(collection), Some(operation)) => {
                key.scopes.allows(&collection, operation) && !(expands && key.scopes.is_narrow())
            }
            (Some(_), None) => false,
        }
    } else {
        !key.scopes.is_narrow() && KeyOperation::ALL.iter().all(|operation| key.scopes.operations.contains(operation))
    };
    if allowed { Ok(()) } else { Err(Problem::bare(Code::Forbidden)) }
}

fn operation(method: &Method) -> Option<KeyOperation> {
    match *method {
        Method::GET | Method::HEAD => Some(KeyOperation::Read),
        Method::POST => Some(KeyOperation::Create),
        Method::PATCH => Some(KeyOperation::Update),
        Method::DELETE => Some(KeyOperation::Delete),
        _ => None,
    }
}
