//! Operations: health, liveness, readiness, metrics.
//!
//! Keeps true: these answer without touching a tenant, so they work when everything else is busy.
//! Does not do: deciding health; each part says that itself.

use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::clock::Clock;
use crate::kernel::datetime;
use crate::kernel::error::Code;
use crate::secrets::Secret;
use crate::telemetry::health::HealthSource;
use crate::telemetry::metrics::{Exposition, MetricSource};
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
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
pub(crate) async fn get_health(part: web::Data<OpsPart>) -> HttpResponse {
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

/// `GET /api/health`, in the form PocketBase clients read.
pub(crate) async fn get_api_health() -> HttpResponse {
    respond::json(&json!({ "status": 200, "code": 200, "message": "API is healthy.", "data": {} }))
}

/// `GET /livez`: the process answers.
pub(crate) async fn get_livez() -> HttpResponse {
    respond::json(&json!({ "status": "ok" }))
}

/// `GET /readyz`: whether new requests are welcome.
pub(crate) async fn get_readyz(part: web::Data<OpsPart>) -> Result<HttpResponse, Problem> {
    if part.draining.load(Ordering::Relaxed) {
        return Err(Problem::bare(Code::ShuttingDown));
    }
    Ok(respond::json(&json!({ "status": "ok" })))
}

/// `GET /metrics` in the Prometheus text format.
pub(crate) async fn get_metrics(request: HttpRequest, part: web::Data<OpsPart>) -> Result<HttpResponse, Problem> {
    if let Some(token) = &part.metrics_token {
        let offered = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let offered = offered.and_then(|text| text.strip_prefix("Bearer ")).ok_or(Problem::bare(Code::AuthRequired))?;
        if !token.matches(offered) {
            return Err(Problem::bare(Code::TokenInvalid));
        }
    }
    let mut out = Exposition::default();
    part.metrics.iter().for_each(|source| source.collect(&mut out));
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(out.into_text()))
}
