//! Blueprints: which there are, publishing, looking ahead, applying, running their promises about rules.
//!
//! Keeps true: every route here asks for a superuser first. Does not do: planning or applying.

use crate::http::body::Json;
use crate::http::extract::NodeVisitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::clock::Clock;
use crate::kernel::random::Random;
use crate::services::blueprints::{self, Catalog};
use crate::services::tenants::{BlueprintRef, Registry};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What the routes of blueprints need.
pub(crate) struct BlueprintsPart {
    pub(crate) catalog: Catalog,
    pub(crate) registry: Registry,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The body of an application; `dryRun` only tells what would change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ApplyRequest {
    name: String,
    version: Option<u32>,
    #[serde(default)]
    dry_run: bool,
}

/// `GET /api/blueprints`
pub(crate) async fn list_blueprints(_: NodeVisitor, part: web::Data<BlueprintsPart>) -> Result<HttpResponse, Problem> {
    let items: Vec<Value> = part.catalog.list().await?.iter().map(blueprints::summary).collect();
    Ok(respond::json(&json!({ "items": items })))
}

/// `POST /api/blueprints`
pub(crate) async fn publish_blueprint(
    visitor: NodeVisitor,
    part: web::Data<BlueprintsPart>,
    Json(body): Json<Value>,
) -> Result<HttpResponse, Problem> {
    let published = part.catalog.publish(visitor.0.write_meta(), &body).await?;
    Ok(respond::json(&blueprints::summary(&published.value)))
}

/// `GET /api/blueprints/{name}?version=`, without secrets
pub(crate) async fn get_blueprint(
    visitor: NodeVisitor,
    part: web::Data<BlueprintsPart>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let version = u32::try_from(visitor.0.number("version")?).ok().filter(|version| *version > 0);
    Ok(respond::json(&blueprints::shown(&part.catalog.find(&name, version).await?)))
}

/// `POST /api/blueprints/{name}/test?tenant=`: the promises about rules, each with how it held in a new tenant, or under the
/// rules that a tenant has now.
pub(crate) async fn test_blueprint(
    visitor: NodeVisitor,
    part: web::Data<BlueprintsPart>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let blueprint = part.catalog.find(&name, None).await?;
    let (tenant, now_ms) = (visitor.0.text("tenant"), part.clock.now_ms());
    let outcomes = if tenant.is_empty() {
        blueprints::run_rule_tests(&blueprint, part.random.as_ref(), now_ms)?
    } else {
        let db = part.registry.open_any(&part.registry.find(&tenant)?.id).await?;
        blueprints::run_rule_tests_on(&db.schema(), &blueprint, now_ms)
    };
    let items: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            let why = outcome.explanation.as_ref().map(|why| why.reason.clone()).or_else(|| outcome.problem.clone());
            json!({ "name": outcome.test.name, "kept": outcome.kept, "reason": why })
        })
        .collect();
    let kept = outcomes.iter().filter(|outcome| outcome.kept).count();
    Ok(respond::json(&json!({ "kept": kept, "broken": outcomes.len() - kept, "items": items })))
}

/// `POST /api/tenants/{tenant}/blueprint`: brings a tenant to a blueprint.
pub(crate) async fn apply_blueprint(
    visitor: NodeVisitor,
    part: web::Data<BlueprintsPart>,
    tenant: web::Path<String>,
    Json(body): Json<ApplyRequest>,
) -> Result<HttpResponse, Problem> {
    let blueprint = part.catalog.find(&body.name, body.version).await?;
    let entry = part.registry.find(&tenant)?;
    let db = part.registry.open_any(&entry.id).await?;
    let changed = if body.dry_run {
        let plan = blueprints::preview(&db.schema(), &blueprint, part.random.as_ref(), part.clock.now_ms())?;
        plan.changed().into_iter().filter_map(|(_, _, after)| Some(after?.name.to_string())).collect()
    } else {
        let meta = visitor.0.write_meta();
        let changed = blueprints::apply(&db, meta.clone(), Arc::clone(&part.random), &blueprint).await?.value;
        let made_from = BlueprintRef { name: Arc::clone(&blueprint.name), version: blueprint.version };
        part.registry.set_blueprint(meta, &tenant, Some(made_from)).await?;
        changed
    };
    let name = json!({ "name": &*blueprint.name, "version": blueprint.version });
    Ok(respond::json(&json!({ "blueprint": name, "dryRun": body.dry_run, "collections": changed })))
}
