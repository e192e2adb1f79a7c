//! API keys of the logged-in account.
//!
//! Keeps true: a key's secret is in the answer that makes it and in no other.
//! Does not do: checking keys (that is `services::auth`) or what they are good for (that is `key_gate`).

use super::auth::AuthPart;
use crate::http::body::Json;
use crate::http::extract::Visitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::datetime;
use crate::kernel::error::{Code, Detail};
use crate::services::auth::{CreateKey, KeyInfo, KeyScopes};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The body of `POST /api/keys`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKeyRequest {
    #[serde(default)]
    name: String,
    #[serde(default)]
    scopes: Value,
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    expires: String,
}

/// `GET /api/keys`
pub(crate) async fn list_keys(visitor: Visitor, part: web::Data<AuthPart>) -> Result<HttpResponse, Problem> {
    visitor.require_login()?;
    let keys = part.auth.list_keys(&visitor.auth_scope("default", Map::new()), &visitor.identity).await?;
    Ok(respond::json(&json!({ "items": keys.iter().map(shown).collect::<Vec<_>>() })))
}

/// `POST /api/keys`: `{name, scopes: {collections?, operations}, ips?, expires?}`
pub(crate) async fn create_key(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    Json(body): Json<CreateKeyRequest>,
) -> Result<HttpResponse, Problem> {
    visitor.require_login()?;
    let scopes = KeyScopes::from_request(&body.scopes).map_err(refused)?;
    let expires_ms = match body.expires.as_str() {
        "" => None,
        text => Some(datetime::parse_ms(text).ok_or_else(expires_refused)?),
    };
    let request = CreateKey { name: body.name, scopes, ips: body.ips, expires_ms };
    let scope = visitor.auth_scope("default", Map::new());
    let (info, secret) = part.auth.create_key(&scope, &visitor.identity, request).await?;
    let mut body = shown(&info);
    if let Some(body) = body.as_object_mut() {
        body.insert("key".to_owned(), Value::from(secret.expose()));
    }
    Ok(respond::json(&body))
}

/// `POST /api/keys/{key}/rotate`
pub(crate) async fn rotate_key(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    key: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    visitor.require_login()?;
    let scope = visitor.auth_scope("default", Map::new());
    let secret = part.auth.rotate_key(&scope, &visitor.identity, &key).await?;
    Ok(respond::json(&json!({ "id": *key, "key": secret.expose() })))
}

/// `DELETE /api/keys/{key}`
pub(crate) async fn revoke_key(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    key: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    visitor.require_login()?;
    part.auth.revoke_key(&visitor.auth_scope("default", Map::new()), &visitor.identity, &key).await?;
    Ok(respond::no_content())
}

fn expires_refused() -> Problem {
    let message = "Must be a date and time such as 2030-01-31 12:00:00.000Z, or empty for a key that stays.";
    refused(Detail::new("expires", "validation_invalid_date", message))
}

fn refused(detail: Detail) -> Problem {
    Problem::bare(Code::ValidationFailed).with_detail(detail)
}

fn shown(key: &KeyInfo) -> Value {
    let operations: Vec<&str> = key.scopes.operations.iter().map(|operation| operation.as_str()).collect();
    json!({
        "id": &*key.id, "name": key.name,
        "scopes": { "collections": key.scopes.collections, "operations": operations },
        "ips": key.ips, "created": key.created, "lastUsed": key.last_used, "expires": key.expires,
    })
}
