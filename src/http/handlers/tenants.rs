//! Tenants and blueprints: what a superuser of the node does with them.
//!
//! Keeps true: every route here asks for a superuser before it looks at anything. Does not do: lifecycle, files.

use crate::cache::kv::Kv;
use crate::http::body::{self, BodyLimits, Json};
use crate::http::extract::NodeVisitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::http::transit::TransitFolder;
use crate::kernel::clock::Clock;
use crate::kernel::datetime;
use crate::kernel::error::{Code, Detail};
use crate::kernel::ident::TenantSlug;
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::services::auth::Auth;
use crate::services::blueprints::{self, Catalog};
use crate::services::budget::{Budgets, TenantLimits};
use crate::services::purging::PurgeHook;
use crate::services::records::RecordTools;
use crate::services::sample::SampleRequest;
use crate::services::tenants::{
    BlueprintRef, Copied, CreateTenant, Registry, RenameTenant, TenantEntry, TenantQuery, TenantState,
};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the routes of tenants need.
pub(crate) struct TenantsPart {
    pub(crate) registry: Registry,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) tools: Arc<RecordTools>,
    pub(crate) values: Kv,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) auth: Auth,
    pub(crate) purges: Option<PurgeHook>,
    /// Where files wait on their way in or out.
    pub(crate) transit: TransitFolder,
}

/// The body of a creation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CreateTenantRequest {
    slug: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    hosts: Vec<String>,
    blueprint: Option<String>,
    #[serde(default)]
    sample: bool,
}

/// The body of a change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct UpdateTenantRequest {
    slug: Option<String>,
    name: Option<String>,
    hosts: Option<Vec<String>>,
    /// By name; null goes back to the node's default.
    limits: Option<BTreeMap<String, Option<u64>>>,
    /// Null goes back to the node's list.
    #[serde(default, deserialize_with = "present")]
    cors_origins: Option<Option<Vec<String>>>,
}

/// Tells `null` from a member that is not there.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// The body of a clone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CloneTenantRequest {
    slug: String,
    #[serde(default)]
    name: String,
}

fn to_wire(entry: &TenantEntry) -> Value {
    json!({
        "id": entry.id.as_str(),
        "slug": entry.slug.as_str(),
        "name": &*entry.name,
        "state": entry.state.as_str(),
        "hosts": entry.hosts,
        "limits": entry.limits,
        "corsOrigins": entry.cors_origins,
        "blueprint": entry.blueprint.as_ref().map(|of| json!({ "name": &*of.name, "version": of.version })),
        "created": datetime::format_ms(entry.created_ms),
        "updated": datetime::format_ms(entry.updated_ms),
    })
}

/// `GET /api/tenants`
pub(crate) async fn list_tenants(visitor: NodeVisitor, part: web::Data<TenantsPart>) -> Result<HttpResponse, Problem> {
    let query = tenant_query(&visitor.0.parameters())?;
    let page = part.registry.list(&query);
    Ok(respond::json(&json!({
        "page": page.page,
        "perPage": page.per_page,
        "totalItems": page.total,
        "totalPages": page.total.div_ceil(page.per_page.max(1)),
        "items": page.items.iter().map(|entry| to_wire(entry)).collect::<Vec<_>>(),
    })))
}

fn tenant_query(parameters: &[(String, String)]) -> Result<TenantQuery, Problem> {
    let text = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let number = |name: &str, fallback: usize| {
        let found = body::number(parameters, name)?;
        Ok::<_, Problem>(found.and_then(|number| usize::try_from(number).ok()).unwrap_or(fallback))
    };
    let state = text("state").filter(|state| !state.is_empty()).map(|state| {
        let message = "The parameter state is one of creating, active, suspended, deleting.";
        TenantState::parse(state).ok_or_else(|| Problem::new(Code::ParameterInvalid, message))
    });
    Ok(TenantQuery {
        state: state.transpose()?,
        slug_prefix: text("slug").unwrap_or_default().to_owned(),
        page: number("page", 1)?.max(1),
        per_page: number("perPage", limits::PAGE_LEN_DEFAULT)?.clamp(1, limits::PAGE_LEN_MAX),
    })
}

/// `POST /api/tenants`
pub(crate) async fn create_tenant(
    visitor: NodeVisitor,
    part: web::Data<TenantsPart>,
    Json(body): Json<CreateTenantRequest>,
) -> Result<HttpResponse, Problem> {
    let slug = slug_of(body.slug.as_deref(), &body.name)?;
    let mut request = CreateTenant { name: body.name, hosts: body.hosts, ..CreateTenant::plain(slug) };
    if let Some(name) = &body.blueprint {
        let blueprint = part.catalog.find(name, None).await?;
        request.blueprint = Some(BlueprintRef { name: Arc::clone(&blueprint.name), version: blueprint.version });
        let sample = body.sample.then(|| (SampleRequest::default(), Arc::clone(&part.clock)));
        let (meta, random) = (visitor.0.write_meta(), Arc::clone(&part.random));
        request.contents = blueprints::contents(blueprint, meta, random, sample);
    }
    let entry = part.registry.create(visitor.0.write_meta(), request).await?;
    Ok(respond::json(&to_wire(&entry)))
}

/// The slug that was sent, or one made of the name: lower case, everything else but letters and digits becomes `-`.
fn slug_of(slug: Option<&str>, name: &str) -> Result<TenantSlug, Problem> {
    let made;
    let text = match slug {
        Some(slug) => slug,
        None => {
            let dashed = name.to_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
            made = dashed.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
            &made
        }
    };
    TenantSlug::parse(text).map_err(|error| {
        let message = format!("The slug {:?} is not allowed; it needs {}.", error.text, error.expected);
        let detail = Detail::new("slug", "validation_invalid_slug", message.clone());
        Problem::new(Code::TenantSlugInvalid, message).with_detail(detail)
    })
}

/// `GET /api/tenants/{tenant}`
pub(crate) async fn get_tenant(
    _: NodeVisitor,
    part: web::Data<TenantsPart>,
    tenant: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let report = part.registry.show(&tenant).await?;
    let mut shown = to_wire(&report.entry);
    shown["sizeBytes"] = json!(report.size_bytes);
    shown["records"] = json!(report.records);
    shown["collections"] = json!(report.collections);
    shown["position"] = json!(report.position);
    Ok(respond::json(&shown))
}

/// `PATCH /api/tenants/{tenant}`
pub(crate) async fn update_tenant(
    visitor: NodeVisitor,
    part: web::Data<TenantsPart>,
    tenant: web::Path<String>,
    Json(body): Json<UpdateTenantRequest>,
) -> Result<HttpResponse, Problem> {
    let slug = body.slug.map(|slug| slug_of(Some(&slug), "")).transpose()?;
    let limits = body.limits.map(|wanted| changed_limits(part.registry.find(&tenant)?.limits, wanted)).transpose()?;
    let request = RenameTenant { slug, name: body.name, hosts: body.hosts, limits, cors_origins: body.cors_origins };
    let entry = part.registry.rename(visitor.0.write_meta(), &tenant, request).await?;
    Ok(respond::json(&to_wire(&entry)))
}

/// `limits` with the named ones changed.
fn changed_limits(mut limits: TenantLimits, wanted: BTreeMap<String, Option<u64>>) -> Result<TenantLimits, Problem> {
    for (name, value) in wanted {
        if !limits.set(&name, value) {
            let message = format!("There is no limit {name:?}; there are {}.", TenantLimits::NAMES.join(", "));
            let detail = Detail::new(format!("limits.{name}"), "validation_unknown", message.clone());
            return Err(Problem::new(Code::ValidationFailed, message).with_detail(detail));
        }
    }
    Ok(limits)
}

/// `POST /api/tenants/{tenant}/suspend`
pub(crate) async fn suspend_tenant(
    visitor: NodeVisitor,
    part: web::Data<TenantsPart>,
    tenant: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let entry = part.registry.suspend(visitor.0.write_meta(), &tenant).await?;
    if let Some(hook) = &part.purges {
        hook.note_tenant(&entry.id);
    }
    Ok(respond::json(&to_wire(&entry)))
}

/// `POST /api/tenants/{tenant}/resume`
pub(crate) async fn resume_tenant(
    visitor: NodeVisitor,
    part: web::Data<TenantsPart>,
    tenant: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let entry = part.registry.resume(visitor.0.write_meta(), &tenant).await?;
    Ok(respond::json(&to_wire(&entry)))
}

/// `POST /api/tenants/{tenant}/clone`
pub(crate) async fn clone_tenant(
    visitor: NodeVisitor,
    part: web::Data<TenantsPart>,
    tenant: web::Path<String>,
    Json(body): Json<CloneTenantRequest>,
) -> Result<HttpResponse, Problem> {
    let slug = slug_of(Some(&body.slug), "")?;
    let copied = part.registry.clone_tenant(visitor.0.write_meta(), &tenant, slug, &body.name).await?;
    Ok(respond::json(&copied_to_wire(&copied)))
}

/// `DELETE /api/tenants/{tenant}`
pub(crate) async fn delete_tenant(
    visitor: NodeVisitor,
    part: web::Data<TenantsPart>,
    tenant: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let gone = part.registry.delete(visitor.0.write_meta(), &tenant).await?;
    if let Some(cache) = &part.tools.cache {
        cache.forget(&gone);
    }
    part.values.forget(&gone);
    part.budgets.forget(&gone);
    part.auth.forget_tenant(&gone);
    if let Some(hook) = &part.purges {
        hook.note_tenant(&gone);
    }
    Ok(respond::no_content())
}

/// `GET /api/tenants/{tenant}/export`: the tenant as one file.
pub(crate) async fn export_tenant(
    visitor: NodeVisitor,
    part: web::Data<TenantsPart>,
    tenant: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let transit = part.transit.fresh();
    let entry = part.registry.export(&tenant, transit.path().to_owned()).await?;
    let name = format!("attachment; filename=\"{}.tenant\"", entry.slug);
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header(("content-disposition", name))
        .streaming(visitor.0.guard(transit.into_stream().await?)))
}

/// `POST /api/tenants/import?slug=&name=`: a tenant from an exported file, which is the body.
pub(crate) async fn import_tenant(
    visitor: NodeVisitor,
    part: web::Data<TenantsPart>,
    limits: web::Data<BodyLimits>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let parameters = visitor.0.parameters();
    let text = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let (slug, name) = (slug_of(text("slug").as_deref(), "")?, text("name").unwrap_or_default());
    let transit = part.transit.fresh();
    let received = transit.receive(visitor.0.request(), &limits, payload, || visitor.0.has_room());
    visitor.0.outlast(received).await?;
    let copied = part.registry.import(visitor.0.write_meta(), transit.path().to_owned(), slug, &name).await?;
    Ok(respond::json(&copied_to_wire(&copied)))
}

/// The tenant, and what has to be set anew in it, if anything.
fn copied_to_wire(copied: &Copied) -> Value {
    let mut shown = to_wire(&copied.entry);
    if !copied.unreadable.is_empty() {
        shown["secretsToSet"] = json!(copied.unreadable);
    }
    shown
}
