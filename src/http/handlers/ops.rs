//! Operations: health, liveness, readiness, metrics.
//!
//! Keeps true: these answer without opening a tenant, so they work when everything else is busy; whoever names a tenant
//! hears whether it answers; metrics, which name tenants, are for the machine itself, for superusers, or for whoever has the
//! token of the configuration. Does not do: deciding health; each part says that itself.

use crate::http::addressing::{find_named_tenant, is_local};
use crate::http::extract::{AtNode, NodeVisitor, VisitPart};
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::clock::Clock;
use crate::kernel::datetime;
use crate::kernel::error::Code;
use crate::secrets::Secret;
use crate::telemetry::health::HealthSource;
use crate::telemetry::metrics::{Exposition, MetricSource};
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the operations routes need.
pub(crate) struct OpsPart {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Vec<Arc<dyn HealthSource>>,
    pub(crate) metrics: Vec<Arc<dyn MetricSource>>,
    pub(crate) metrics_token: Option<Secret>,
    /// Set once, when the node begins to stop.
    pub(crate) draining: Arc<AtomicBool>,
}

/// `GET /health`: every part's own word.
pub(crate) async fn get_health(_: AtNode, part: web::Data<OpsPart>) -> HttpResponse {
    let mut checks = Map::new();
    let mut well = true;
    for source in &part.health {
        let said = source.check();
        well &= said.is_ok();
        checks
            .insert(source.name().to_owned(), said.map_or_else(|why| json!(format!("error: {why}")), |()| json!("ok")));
    }
    let status = if well { "ok" } else { "degraded" };
    let timestamp = datetime::format_ms(part.clock.now_ms());
    respond::json(&json!({ "status": status, "timestamp": timestamp, "checks": Value::Object(checks) }))
}

/// `GET /api/health`, in the form PocketBase clients read; of the tenant that is named, or of the node.
pub(crate) async fn get_api_health(request: HttpRequest, visit: web::Data<VisitPart>) -> Result<HttpResponse, Problem> {
    find_named_tenant(&request, &visit)?;
    Ok(respond::json(&json!({ "status": 200, "code": 200, "message": "API is healthy.", "data": {} })))
}

/// `GET /livez`: the process answers.
pub(crate) async fn get_livez(_: AtNode) -> HttpResponse {
    respond::json(&json!({ "status": "ok" }))
}

/// `GET /readyz`: whether new requests are welcome.
pub(crate) async fn get_readyz(_: AtNode, part: web::Data<OpsPart>) -> Result<HttpResponse, Problem> {
    if part.draining.load(Ordering::Relaxed) {
        return Err(Problem::bare(Code::ShuttingDown));
    }
    Ok(respond::json(&json!({ "status": "ok" })))
}

/// `GET /metrics` in the Prometheus text format.
pub(crate) async fn get_metrics(
    _: AtNode,
    request: HttpRequest,
    part: web::Data<OpsPart>,
) -> Result<HttpResponse, Problem> {
    match &part.metrics_token {
        Some(token) => check_token(&request, token)?,
        None => check_reader(&request).await?,
    }
    let mut out = Exposition::default();
    part.metrics.iter().for_each(|source| source.collect(&mut out));
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(out.into_text()))
}

fn check_token(request: &HttpRequest, token: &Secret) -> Result<(), Problem> {
    let offered = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let offered = offered.and_then(|text| text.strip_prefix("Bearer ")).ok_or(Problem::bare(Code::AuthRequired))?;
    if token.matches(offered) { Ok(()) } else { Err(Problem::bare(Code::TokenInvalid)) }
}

/// Without a token: somebody on this machine, or a superuser from anywhere.
async fn check_reader(request: &HttpRequest) -> Result<(), Problem> {
    if is_local(request) {
        return Ok(());
    }
    match NodeVisitor::from_request(request, &mut Payload::None).await {
        Ok(_) => Ok(()),
        Err(problem) if problem.code() == Code::AuthRequired => {
            let message = "Metrics are for this machine and for superusers: set http.metrics_token and send it as \
                `Authorization: Bearer <token>`, or log in as a superuser.";
            Err(Problem::new(Code::AuthRequired, message))
        }
        Err(problem) => Err(problem),
    }
}
