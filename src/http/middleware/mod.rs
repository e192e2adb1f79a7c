//! What happens around every request, in this order: request id, preflight, tenant prefix, limit by
//! address, panic guard, handler, problem body,
//! security headers, metrics, access log.
//!
//! Keeps true: no request leaves without a request id and a body that says what went wrong; a panic costs one request,
//! never the process. Does not do: authentication or tenant lookup, those are extractors, so that a route that needs
//! neither pays for neither.

mod cors;
mod prefix;
mod rate_limit;
mod request_id;

pub(crate) use cors::Origins;
pub(crate) use prefix::TenantPrefix;
pub(crate) use rate_limit::{RequestLimits, RequestQuotas};
pub(crate) use request_id::{RequestId, RequestIds};

use crate::http::extract::{VisitPart, client_ip};
use crate::http::problem::{PROBLEM_JSON, Problem};
use crate::kernel::error::Code;
use crate::telemetry::metrics::{HttpMetrics, RouteClass};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpResponse, web};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

/// What the middleware needs; shared by all workers.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) ids: RequestIds,
    pub(crate) metrics: Arc<HttpMetrics>,
    pub(crate) origins: Origins,
    pub(crate) limits: Arc<RequestLimits>,
    pub(crate) access_log: bool,
    /// `Strict-Transport-Security`, if it is sent.
    pub(crate) hsts: Option<HeaderValue>,
}

/// The value of `Strict-Transport-Security` (RFC 6797) for so many seconds; 0 is no header.
pub(crate) fn hsts(seconds: u64) -> Option<HeaderValue> {
    (seconds > 0).then(|| HeaderValue::try_from(format!("max-age={seconds}")).ok()).flatten()
}

/// Takes a request off the gauge when its future is dropped because the client left.
struct InFlight<'a>(&'a HttpMetrics, bool);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.abandon();
        }
    }
}

/// The whole chain.
pub(crate) async fn around(
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = Instant::now();
    let Some(edge) = request.app_data::<web::Data<Edge>>().cloned() else {
        return next.call(request).await;
    };
    let id = edge.ids.take_or_make(request.headers());
    request.extensions_mut().insert(id.clone());
    edge.metrics.begin();
    let mut in_flight = InFlight(&edge.metrics, false);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let preflight = edge.origins.preflight(request.method(), request.headers());
    let passed = prefix::strip(&mut request).and_then(|()| count_address(&request, &edge));
    let mut response = match (preflight, passed) {
        (Some(answer), _) => ServiceResponse::new(request.into_parts().0, answer),
        (None, Ok(())) => match guarded(request, next, &edge, &id).await {
            Ok(response) => response,
            Err(error) => {
                in_flight.1 = true;
                return Err(error);
            }
        },
        // Not `into_response`, which would lose the problem inside.
        (None, Err(problem)) => ServiceResponse::new(request.into_parts().0, HttpResponse::from_error(problem)),
    };
    if response.response().error().is_some() {
        response = with_problem_body(response, &edge, &id);
    }
    decorate(response.headers_mut(), &id, edge.hsts.as_ref());
    for (name, value) in rate_limit::headers_of(response.request()) {
        response.headers_mut().insert(name, value);
    }
    if let Some(origin) = origin {
        edge.origins.open(&origin, response.headers_mut());
    }
    in_flight.1 = true;
    finish(&response, &edge, &id, started);
    Ok(response)
}

/// Probes of the node's health are never refused.
fn count_address(request: &ServiceRequest, edge: &Edge) -> Result<(), Problem> {
    if ["/livez", "/readyz", "/health", "/metrics"].contains(&request.path()) {
        return Ok(());
    }
    let request = request.request();
    edge.limits.count_address(request, || {
        let part = request.app_data::<web::Data<VisitPart>>()?;
        client_ip(request, part)
    })
}

/// Runs the handler; a panic becomes the answer 500 and is counted.
///
/// The request went with the panic, so this answer is finished here instead of at the end of the chain.
async fn guarded(
    request: ServiceRequest,
    next: Next<BoxBody>,
    edge: &Edge,
    id: &RequestId,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let (method, class) = (request.method().clone(), class_of(request.path()));
    match AssertUnwindSafe(next.call(request)).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            edge.metrics.count_panic();
            edge.metrics.finish(class, method.as_str(), 500, 0);
            tracing::error!({ request.id = id.as_str(), panic = said }, "request {} panicked", id.as_str());
            let mut response = problem_response(&Problem::bare(Code::Internal), id);
            decorate(response.headers_mut(), id, edge.hsts.as_ref());
            Err(InternalError::from_response("the handler panicked", response).into())
        }
    }
}

/// Gives a failed answer its body, and logs it if it is a defect.
fn with_problem_body(response: ServiceResponse<BoxBody>, edge: &Edge, id: &RequestId) -> ServiceResponse<BoxBody> {
    let (request, response) = response.into_parts();
    let translated;
    let problem = match response.error().and_then(|error| error.as_error::<Problem>()) {
        Some(problem) => problem,
        None => {
            translated = from_framework(response.error(), response.status());
            &translated
        }
    };
    if problem.code() == Code::Internal {
        edge.metrics.count_internal_error();
        if let Some(chain) = problem.chain() {
            tracing::error!({ request.id = id.as_str(), error = chain }, "request {} failed inside", id.as_str());
        }
    }
    let mut answer = problem_response(problem, id);
    for allow in response.headers().get_all(header::ALLOW) {
        answer.headers_mut().append(header::ALLOW, allow.clone());
    }
    ServiceResponse::new(request, answer)
}

fn problem_response(problem: &Problem, id: &RequestId) -> HttpResponse {
    let mut answer = HttpResponse::build(problem.status());
    answer.insert_header((header::CONTENT_TYPE, PROBLEM_JSON)).insert_header((header::CACHE_CONTROL, "no-store"));
    if let Some(seconds) = problem.retry_after_s() {
        answer.insert_header((header::RETRY_AFTER, seconds));
    }
    if let Some(range) = problem.content_range() {
        answer.insert_header((header::CONTENT_RANGE, range));
    }
    if problem.code() == Code::AuthRequired || problem.code() == Code::TokenInvalid {
        answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
    }
    if problem.status() == StatusCode::PAYLOAD_TOO_LARGE || problem.status() == StatusCode::REQUEST_TIMEOUT {
        // The rest of the body is not wanted; without this the connection would wait for it.
        answer.force_close();
    }
    answer.body(problem.to_json(id.as_str()).to_string())
}

/// Failures of the framework itself: damaged chunks, unreadable paths.
fn from_framework(error: Option<&actix_web::Error>, status: StatusCode) -> Problem {
    let said = error.map(ToString::to_string).unwrap_or_default();
    match status {
        StatusCode::NOT_FOUND => Problem::bare(Code::RouteNotFound),
        StatusCode::METHOD_NOT_ALLOWED => Problem::bare(Code::MethodNotAllowed),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::bare(Code::BodyTooLarge),
        StatusCode::REQUEST_TIMEOUT => Problem::bare(Code::RequestTimeout),
        status if status.is_client_error() => Problem::new(Code::RequestInvalid, format!("{said}.")),
        _ => {
            tracing::error!(error = said, "the HTTP framework failed");
            Problem::bare(Code::Internal)
        }
    }
}

fn decorate(headers: &mut HeaderMap, id: &RequestId, hsts: Option<&HeaderValue>) {
    const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Some(hsts) = hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
}

fn finish(response: &ServiceResponse<BoxBody>, edge: &Edge, id: &RequestId, started: Instant) {
    let request = response.request();
    let status = response.status().as_u16();
    let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    edge.metrics.finish(class_of(request.path()), request.method().as_str(), status, duration_us);
    let bytes = match response.response().body().size() {
        BodySize::Sized(bytes) => bytes,
        _ => 0,
    };
    edge.metrics.count_sent_bytes(bytes);
    if edge.access_log {
        let extensions = request.extensions();
        let tenant = extensions.get::<TenantPrefix>().map_or("", |prefix| prefix.0.as_str());
        let (method, path) = (request.method().as_str(), request.path());
        tracing::info!(
            target: "tenantry::access",
            { request.id = id.as_str(), tenant.slug = tenant, method, path, status, duration_us, bytes },
            "{method} {path} {status}"
        );
    }
}

/// The family of a path, by its shape alone: no second routing.
fn class_of(path: &str) -> RouteClass {
    let Some(rest) = path.strip_prefix("/api/") else {
        let ops = ["/health", "/livez", "/readyz", "/metrics"].contains(&path);
        return if ops { RouteClass::Ops } else { RouteClass::Other };
    };
    let mut steps = rest.split('/');
    match (steps.next().unwrap_or_default(), steps.next(), steps.next()) {
        ("collections", Some(_), Some("records")) => RouteClass::Records,
        ("collections", Some(_), Some("truncate" | "import" | "export") | None) | ("collections", None, _) => {
            RouteClass::Collections
        }
        ("collections", Some("meta"), _) => RouteClass::Collections,
        ("collections", ..) => RouteClass::Auth,
        ("tenants" | "blueprints", ..) => RouteClass::Tenants,
        ("batch", ..) => RouteClass::Batch,
        ("files", ..) => RouteClass::Files,
        ("health" | "admin" | "settings" | "logs" | "crons" | "changes" | "audit", ..) => RouteClass::Ops,
        _ => RouteClass::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_families() {
        for (path, class) in [
            ("/api/collections/notes/records", RouteClass::Records),
            ("/api/collections/notes/records/abc", RouteClass::Records),
            ("/api/collections/users/auth-with-password", RouteClass::Auth),
            ("/api/collections", RouteClass::Collections),
            ("/api/collections/notes", RouteClass::Collections),
            ("/api/tenants/x/suspend", RouteClass::Tenants),
            ("/metrics", RouteClass::Ops),
            ("/favicon.ico", RouteClass::Other),
        ] {
            assert_eq!(class_of(path), class, "{path}");
        }
    }
}
