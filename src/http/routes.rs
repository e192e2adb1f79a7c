//! The whole route table, one line per path. Tenant prefixes are taken off before this is read.
//!
//! Keeps true: a path that exists answers 405 with `Allow` to a method it lacks; every other path answers 404; a GET
//! route answers HEAD. Hot routes come first because paths are tried in order.

use super::handlers::ops;
use super::problem::Problem;
use crate::kernel::error::Code;
use actix_web::http::header;
use actix_web::{HttpResponse, guard, web};

macro_rules! verb {
    (GET) => {
        web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
    };
    (POST) => {
        web::post()
    };
    (PATCH) => {
        web::patch()
    };
    (PUT) => {
        web::put()
    };
    (DELETE) => {
        web::delete()
    };
}

macro_rules! routes {
    ($($path:literal $($method:ident $handler:path),+;)*) => {
        /// Every path with its methods, for the contract test and the documentation.
        pub const TABLE: &[(&str, &[&str])] = &[$(($path, &[$(stringify!($method)),+]),)*];

        /// Registers the table.
        pub(super) fn configure(config: &mut web::ServiceConfig) {
            $(config.service(
                web::resource($path)
                    $(.route(verb!($method).to($handler)))+
                    .default_service(web::to(|| async { not_allowed(&[$(stringify!($method)),+]) })),
            );)*
            config.default_service(web::to(|| async { Err::<HttpResponse, _>(Problem::bare(Code::RouteNotFound)) }));
        }
    };
}

routes! {
    "/health" GET ops::get_health;
    "/api/health" GET ops::get_api_health;
    "/livez" GET ops::get_livez;
    "/readyz" GET ops::get_readyz;
    "/metrics" GET ops::get_metrics;
}

fn not_allowed(methods: &[&str]) -> HttpResponse {
    let mut response = HttpResponse::from_error(Problem::bare(Code::MethodNotAllowed));
    if let Ok(value) = header::HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}
