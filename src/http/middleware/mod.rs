//! What happens around every request, in this order: request id, preflight, tenant prefix, limit by address, panic guard,
//! handler, problem body, security headers, metrics, access log. A read that the worker remembers ([`Front`]) skips routing
//! and handler; if its answer is in memory it never comes here but leaves from the [`door`], where all else is the same.
//!
//! Keeps true: no request leaves without a request id and a body that says what went wrong; a panic costs one request,
//! never the process. Does not do: authentication or tenant lookup, those are extractors, so that a route that needs
//! neither pays for neither.

mod again;
mod cors;
mod door;
mod prefix;
mod rate_limit;
mod request_id;
mod unread;

pub(crate) use cors::Origins;
pub(crate) use door::before;
pub(crate) use prefix::TenantPrefix;
pub(crate) use rate_limit::{Counted, RequestLimits, RequestQuotas};
pub(crate) use request_id::{RequestId, RequestIds};

use crate::http::addressing::{client_ip, find_tenant};
use crate::http::connections::Connection;
use crate::http::extract::{TokenRefused, VisitPart};
use crate::http::front::{Front, Remembered, split_prefix};
use crate::http::problem::{PROBLEM_JSON, Problem};
use crate::kernel::error::{Code, Kind};
use crate::kernel::ident::TenantId;
use crate::telemetry::metrics::{HttpMetrics, RouteClass};
use crate::telemetry::{self, Access};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{RequestHead, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::error::InternalError;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use door::Arrival;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Ready, ready};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
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

/// The whole chain, around the routes of one worker.
pub(crate) struct Around {
    pub(crate) edge: web::Data<Edge>,
    pub(crate) front: web::Data<Front>,
}

/// [`Around`] with the routes inside.
pub(crate) struct Chain<S> {
    inner: Rc<S>,
    edge: web::Data<Edge>,
    front: web::Data<Front>,
}

type Outcome = Result<ServiceResponse<BoxBody>, actix_web::Error>;

impl<S> Transform<S, ServiceRequest> for Around
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = actix_web::Error> + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = actix_web::Error;
    type Transform = Chain<S>;
    type InitError = ();
    type Future = Ready<Result<Chain<S>, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(Chain { inner: Rc::new(inner), edge: self.edge.clone(), front: self.front.clone() }))
    }
}

impl<S> Service<ServiceRequest> for Chain<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = actix_web::Error> + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Outcome>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let arrival = request.extensions_mut().remove::<Arrival>();
        let arrival = arrival.unwrap_or_else(|| Arrival::now(self.front.part()));
        Box::pin(around(request, Rc::clone(&self.inner), self.edge.clone(), self.front.clone(), arrival))
    }
}

fn text_of(id: &HeaderValue) -> &str {
    id.to_str().expect("invariant: an id is plain text")
}

/// Everything but what leaves from the door.
async fn around<S>(
    mut request: ServiceRequest,
    inner: Rc<S>,
    edge: web::Data<Edge>,
    front: web::Data<Front>,
    arrival: Arrival,
) -> Outcome
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = actix_web::Error>,
{
    let id = edge.ids.take_or_make(request.headers());
    request.extensions_mut().insert(id.clone());
    edge.metrics.begin();
    let mut in_flight = InFlight(&edge.metrics, false);
    let unread = unread::Shared::take(&mut request);
    let Arrival { started, now_ms, found, refused } = arrival;
    let passed = match (&found, refused) {
        (_, Some(refused)) => {
            let (counted, problem) = *refused;
            counted.keep_with(request.request());
            Err(problem)
        }
        (Some(_), None) => count_and_keep(&request, &edge, front.part(), now_ms),
        (None, None) => {
            prefix::strip(&mut request).and_then(|()| count_and_keep(&request, &edge, front.part(), now_ms))
        }
    };
    let origin = request.headers().get(header::ORIGIN).map(|origin| match &found {
        Some((visit, _)) => grant(&edge, front.part(), origin, Some(&visit.tenant)),
        None => grant(&edge, front.part(), origin, find_tenant(request.request(), front.part()).ok().as_ref()),
    });
    let preflight = cors::is_preflight(request.method(), request.headers());
    let preflight = origin.as_ref().filter(|_| preflight).map(|origin| origin.preflight(request.headers()));
    let mut response = match (preflight, passed) {
        (Some(answer), _) => ServiceResponse::new(request.into_parts().0, answer),
        (None, Ok(())) => match guarded(request, &*inner, (&front, found), &edge, &id).await {
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
    let counted = response.request().extensions().get::<Counted>().copied().unwrap_or_default();
    cors::tell_caches(response.headers_mut());
    let status = response.status();
    decorate(response.headers_mut(), status, &id.to_value(), edge.hsts.as_ref());
    rate_limit::describe(response.headers_mut(), &counted);
    if let Some(origin) = &origin {
        origin.open(response.headers_mut());
    }
    in_flight.1 = true;
    {
        let (request, id) = (response.request(), id.to_noted());
        let class = class_of(split_prefix(request.path()).1);
        let extensions = request.extensions();
        let prefix = extensions.get::<TenantPrefix>();
        let answered =
            Answered { head: request.head(), prefix, response: response.response(), class, id: &id, started };
        answered.note(&edge, HttpMetrics::finish);
    }
    Ok(match unread {
        Some(unread) => unread.keep_with(response),
        None => response,
    })
}

fn count_and_keep(request: &ServiceRequest, edge: &Edge, part: &VisitPart, now_ms: i64) -> Result<(), Problem> {
    let mut counted = Counted::default();
    let within = count_address(request.head(), edge, part, &mut counted, now_ms);
    counted.keep_with(request.request());
    within
}

/// What the page that sent the request may do at the tenant it names. A preflight does not carry `X-Tenant`, so pages that
/// address their tenant that way alone meet the list of the tenant `main` there.
fn grant(edge: &Edge, part: &VisitPart, origin: &HeaderValue, tenant: Option<&TenantId>) -> cors::Grant {
    let entry = tenant.and_then(|tenant| part.registry.entry(tenant));
    edge.origins.grant(origin, entry.as_ref().and_then(|entry| entry.cors_origins.as_deref()))
}

/// Probes of the node's health are never refused.
fn count_address(
    head: &RequestHead,
    edge: &Edge,
    part: &VisitPart,
    counted: &mut Counted,
    now_ms: i64,
) -> Result<(), Problem> {
    if ["/livez", "/readyz", "/health", "/metrics"].contains(&head.uri.path()) {
        return Ok(());
    }
    edge.limits.count_address(counted, || client_ip(head, part), now_ms)
}

/// Answers what the worker remembers, or runs the handler; a panic becomes the answer 500 and is counted.
///
/// The request went with the panic, so this answer is finished here instead of at the end of the chain.
async fn guarded<S>(
    request: ServiceRequest,
    inner: &S,
    (front, found): (&Front, Option<Remembered>),
    edge: &Edge,
    id: &RequestId,
) -> Outcome
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = actix_web::Error>,
{
    let (method, class) = (request.method().clone(), class_of(split_prefix(request.path()).1));
    let answering = async {
        let mut request = request;
        if let Some((visit, read)) = &found {
            match again::answer(&request, front, visit, read).await {
                Ok(Some(response)) => return Ok(ServiceResponse::new(request.into_parts().0, response)),
                Ok(None) => {}
                Err(problem) => {
                    let response = HttpResponse::from_error(problem);
                    return Ok(ServiceResponse::new(request.into_parts().0, response));
                }
            }
            if let Err(problem) = prefix::strip(&mut request) {
                return Ok(ServiceResponse::new(request.into_parts().0, HttpResponse::from_error(problem)));
            }
        }
        inner.call(request).await
    };
    match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(panicked(panic, class, &method, edge, &id.to_value())),
    }
}

fn panicked(
    panic: Box<dyn std::any::Any + Send>,
    class: RouteClass,
    method: &Method,
    edge: &Edge,
    id: &HeaderValue,
) -> actix_web::Error {
    let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    edge.metrics.count_panic();
    edge.metrics.finish(class, method.as_str(), 500, 0);
    let text = text_of(id);
    tracing::error!({ request.id = text, panic = said }, "request {text} panicked");
    let mut response = problem_response(&Problem::bare(Code::Internal), text, "");
    cors::tell_caches(response.headers_mut());
    let status = response.status();
    decorate(response.headers_mut(), status, id, edge.hsts.as_ref());
    InternalError::from_response("the handler panicked", response).into()
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
    if problem.code().kind() == Kind::Internal {
        edge.metrics.count_internal_error();
        if let Some(chain) = problem.chain() {
            tracing::error!({ request.id = id.as_str(), error = chain }, "request {} failed inside", id.as_str());
        }
    }
    let note = if counts_as_stranger(&request, problem.code()) { TOKEN_NOTE } else { "" };
    let mut answer = problem_response(problem, id.as_str(), note);
    if request.conn_data::<Connection>().is_some_and(Connection::is_unwanted) {
        answer.head_mut().set_connection_type(ConnectionType::Close);
    }
    for allow in response.headers().get_all(header::ALLOW) {
        answer.headers_mut().append(header::ALLOW, allow.clone());
    }
    ServiceResponse::new(request, answer)
}

/// Said beside a refusal that a token which holds might have spared its sender. What became of the token is told to
/// whoever sends one by every route that needs a login, so this tells nothing new.
const TOKEN_NOTE: &str =
    " The token that came with the request does not hold, so it was answered as a stranger's; log in again.";

fn counts_as_stranger(request: &HttpRequest, code: Code) -> bool {
    let refusal = matches!(
        code,
        Code::CreateRefused | Code::SuperuserRequired | Code::Forbidden | Code::RecordNotFound | Code::FileNotFound
    );
    refusal && request.extensions().get::<TokenRefused>().is_some()
}

/// `note` is added to the sentence for the caller.
fn problem_response(problem: &Problem, id: &str, note: &str) -> HttpResponse {
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
    let mut body = problem.to_json(id);
    for member in ["detail", "message"] {
        if let Some(serde_json::Value::String(text)) = body.get_mut(member) {
            text.push_str(note);
        }
    }
    answer.body(body.to_string())
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

/// What every answer carries. A 304 leaves out what only the answer it stands for needs (RFC 9110, 15.4.5): a cache that
/// has that answer has those headers with it.
fn decorate(headers: &mut HeaderMap, status: StatusCode, id: &HeaderValue, hsts: Option<&HeaderValue>) {
    const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    headers.insert(REQUEST_ID, id.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status != StatusCode::NOT_MODIFIED {
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    if let Some(hsts) = hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
}

/// An answer on its way out.
struct Answered<'answer> {
    head: &'answer RequestHead,
    /// The tenant prefix that was taken off the path.
    prefix: Option<&'answer TenantPrefix>,
    response: &'answer HttpResponse,
    class: RouteClass,
    id: &'answer str,
    started: Instant,
}

impl Answered<'_> {
    /// Counts and logs the answer; `count` is how the metrics hear of it.
    fn note(&self, edge: &Edge, count: impl Fn(&HttpMetrics, RouteClass, &str, u16, u64)) {
        let (method, status) = (self.head.method.as_str(), self.response.status().as_u16());
        let duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (slug, path) = split_prefix(self.head.uri.path());
        count(&edge.metrics, self.class, method, status, duration_us);
        let bytes = match self.response.body().size() {
            BodySize::Sized(bytes) => bytes,
            _ => 0,
        };
        if bytes > 0 {
            edge.metrics.count_sent_bytes(bytes);
        }
        if edge.access_log {
            let tenant = self.prefix.map_or(slug.unwrap_or(""), |prefix| prefix.0.as_str());
            let request_id = self.id;
            telemetry::log_access(&Access { request_id, tenant, method, path, status, duration_us, bytes });
        }
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
