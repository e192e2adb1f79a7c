//! The page that the links in mails about accounts open: confirm an address, set a new password, move to a new address.
//!
//! Keeps true: it is the same for everybody, holds no secret and asks nothing but its own server; no script but its own
//! file runs in it and nobody frames it. Below a tenant that is not there, there is no page either. The token stands behind the `#` of the link, so it reaches no log.
//! Does not do: confirming anything; the page sends the token to the same routes that applications use.

use crate::http::addressing::find_named_tenant;
use crate::http::extract::VisitPart;
use crate::http::problem::Problem;
use crate::kernel::error::Code;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /_`: the page's files lie below it, so its address ends in a slash.
pub(crate) async fn redirect_page(request: HttpRequest, visit: web::Data<VisitPart>) -> Result<HttpResponse, Problem> {
    find_named_tenant(&request, &visit)?;
    let query = request.query_string();
    let target = if query.is_empty() { "_/".to_owned() } else { format!("_/?{query}") };
    Ok(HttpResponse::PermanentRedirect().insert_header((header::LOCATION, target)).finish())
}

/// `GET /_/`
pub(crate) async fn get_page(request: HttpRequest, visit: web::Data<VisitPart>) -> Result<HttpResponse, Problem> {
    find_named_tenant(&request, &visit)?;
    Ok(asset("text/html; charset=utf-8", include_str!("../assets/account.html")))
}

/// `GET /_/{file}`
pub(crate) async fn get_page_file(
    request: HttpRequest,
    visit: web::Data<VisitPart>,
    file: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    find_named_tenant(&request, &visit)?;
    match file.as_str() {
        "account.js" => Ok(asset("text/javascript; charset=utf-8", include_str!("../assets/account.js"))),
        "account.css" => Ok(asset("text/css; charset=utf-8", include_str!("../assets/account.css"))),
        _ => Err(Problem::bare(Code::RouteNotFound)),
    }
}

fn asset(media: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(media)
        // Another version of the node may bring another page under the same names.
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
        .body(text)
}
