//! Collection definitions of a tenant.
//!
//! Keeps true: every route here asks for a superuser first. Does not do: planning or applying a change.

use crate::http::body::Json;
use crate::http::extract::Visitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::random::Random;
use crate::services::collections::{self, CollectionsQuery};
use actix_web::{HttpResponse, web};
use serde_json::Value;
use std::sync::Arc;

/// What the routes of collections need.
pub(crate) struct CollectionsPart {
    pub(crate) random: Arc<dyn Random>,
}

/// `GET /api/collections`
pub(crate) async fn list_collections(visitor: Visitor) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let query = CollectionsQuery {
        page: visitor.number("page")?,
        per_page: visitor.number("perPage")?,
        sort: visitor.text("sort"),
        skip_total: visitor.flag("skipTotal"),
    };
    Ok(respond::json(&collections::list(&visitor.tenant.schema(), &query)?))
}

/// `POST /api/collections`
pub(crate) async fn create_collection(
    visitor: Visitor,
    part: web::Data<CollectionsPart>,
    Json(body): Json<Value>,
) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let random = Arc::clone(&part.random);
    let made = collections::create(&visitor.tenant, visitor.write_meta(), random, &body).await?;
    Ok(respond::with_write_token(respond::json(&made.value), made.token.as_ref(), false))
}

/// `GET /api/collections/{collection}`
pub(crate) async fn get_collection(visitor: Visitor, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    Ok(respond::json(&collections::get(&visitor.tenant.schema(), &name)?))
}

/// `PATCH /api/collections/{collection}`
pub(crate) async fn update_collection(
    visitor: Visitor,
    part: web::Data<CollectionsPart>,
    name: web::Path<String>,
    Json(body): Json<Value>,
) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let random = Arc::clone(&part.random);
    let changed = collections::update(&visitor.tenant, visitor.write_meta(), random, &name, &body).await?;
    Ok(respond::with_write_token(respond::json(&changed.value), changed.token.as_ref(), false))
}

/// `DELETE /api/collections/{collection}`
pub(crate) async fn delete_collection(
    visitor: Visitor,
    part: web::Data<CollectionsPart>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let random = Arc::clone(&part.random);
    let gone = collections::delete(&visitor.tenant, visitor.write_meta(), random, &name).await?;
    Ok(respond::with_write_token(respond::no_content(), gone.token.as_ref(), false))
}

/// `DELETE /api/collections/{collection}/truncate`
pub(crate) async fn truncate_collection(visitor: Visitor, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    collections::truncate(&visitor.tenant, visitor.write_meta(), &name, || visitor.has_room()).await?;
    Ok(respond::no_content())
}

/// `PUT /api/collections/import`
pub(crate) async fn import_collections(
    visitor: Visitor,
    part: web::Data<CollectionsPart>,
    Json(body): Json<Value>,
) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let random = Arc::clone(&part.random);
    let done = collections::import(&visitor.tenant, visitor.write_meta(), random, &body).await?;
    Ok(respond::with_write_token(respond::no_content(), done.token.as_ref(), false))
}

/// `GET /api/collections/meta/scaffolds`
pub(crate) async fn list_scaffolds(
    visitor: Visitor,
    part: web::Data<CollectionsPart>,
) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    Ok(respond::json(&collections::scaffolds(part.random.as_ref())?))
}
