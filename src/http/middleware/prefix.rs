//! The `/t/{tenant}` prefix: taken off before routing, so that the route table knows nothing of tenants.
//!
//! Keeps true: what follows the prefix is routed exactly as without it. Does not do: checking that the tenant exists.

use crate::http::problem::Problem;
use crate::kernel::error::Code;
use crate::kernel::ident::TenantSlug;
use crate::kernel::limits;
use actix_web::HttpMessage;
use actix_web::dev::ServiceRequest;
use actix_web::http::Uri;
use actix_web::http::uri::PathAndQuery;

/// The tenant that the path named.
#[derive(Debug, Clone)]
pub(crate) struct TenantPrefix(pub(crate) TenantSlug);

/// Takes the prefix off the path and remembers it; refuses paths and query strings past their bounds.
pub(super) fn strip(request: &mut ServiceRequest) -> Result<(), Problem> {
    if request.query_string().len() > limits::QUERY_BYTES_MAX {
        let message = format!("The query string is longer than {} bytes.", limits::QUERY_BYTES_MAX);
        return Err(Problem::new(Code::RequestInvalid, message));
    }
    let Some(rest) = request.path().strip_prefix("/t/") else { return Ok(()) };
    let (slug, path) = rest.split_once('/').unwrap_or((rest, ""));
    // A slug that cannot exist names no tenant; saying more would only help guessing.
    let slug = TenantSlug::parse(slug).map_err(|_| Problem::bare(Code::TenantNotFound))?;
    let target = match request.query_string() {
        "" => format!("/{path}"),
        query => format!("/{path}?{query}"),
    };
    let target = PathAndQuery::try_from(target).map_err(|_| Problem::bare(Code::RequestInvalid))?;
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(target);
    let uri = Uri::from_parts(parts).map_err(|_| Problem::bare(Code::RequestInvalid))?;
    request.match_info_mut().get_mut().update(&uri);
    request.head_mut().uri = uri;
    request.extensions_mut().insert(TenantPrefix(slug));
    Ok(())
}
