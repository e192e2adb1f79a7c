//! Second factors: authenticator apps and recovery codes, for logging in and for setting them up.
//!
//! Keeps true: secrets and codes go out in bodies only, once, marked `no-store`. Does not do: checking them.

use super::auth::{AuthPart, granted, shown_account};
use crate::http::body::Json;
use crate::http::extract::{SuperVisitor, Visitor};
use crate::http::problem::Problem;
use crate::http::respond;
use crate::secrets::Secret;
use crate::services::auth::{CodeLogin, FactorsChanged};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The body of a login with a code.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CodeLoginRequest {
    mfa_id: Option<Secret>,
    #[serde(default)]
    code: Secret,
}

/// The body of everything that changes an account's factors: what proves that the owner is there.
#[derive(Debug, Deserialize)]
pub(crate) struct ProofRequest {
    pub(super) password: Option<Secret>,
    #[serde(default)]
    code: Secret,
}

/// `POST …/auth-with-totp`
pub(crate) async fn auth_with_totp(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<CodeLoginRequest>,
) -> Result<HttpResponse, Problem> {
    let view = shown_account(&visitor)?;
    let login = CodeLogin { code: body.code, wish: visitor.wish(body.mfa_id) };
    let grant = part.auth.auth_with_totp(&visitor.auth_scope("totp", Map::new()), &collection, login).await?;
    granted(&visitor, grant, &view).await
}

/// `POST …/auth-with-recovery-code`
pub(crate) async fn auth_with_recovery_code(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<CodeLoginRequest>,
) -> Result<HttpResponse, Problem> {
    let view = shown_account(&visitor)?;
    let login = CodeLogin { code: body.code, wish: visitor.wish(body.mfa_id) };
    let scope = visitor.auth_scope("recoveryCode", Map::new());
    let grant = part.auth.auth_with_recovery_code(&scope, &collection, login).await?;
    granted(&visitor, grant, &view).await
}

/// `GET …/totp`
pub(crate) async fn get_totp(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.own_scope()?;
    let status = part.auth.totp_status(&scope, &collection, &visitor.identity).await?;
    Ok(respond::json(&json!({
        "enabled": status.enabled, "pending": status.pending, "recoveryCodesLeft": status.recovery_codes,
    })))
}

/// `POST …/totp`: a new app's secret, which counts once it is confirmed.
pub(crate) async fn enrol_totp(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<ProofRequest>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.own_scope()?;
    let made = part.auth.enrol_totp(&scope, &collection, &visitor.identity, body.password).await?;
    Ok(respond::json(&json!({ "secret": made.secret.expose(), "uri": made.uri.expose() })))
}

/// `POST …/totp/confirm`
pub(crate) async fn confirm_totp(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<ProofRequest>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.own_scope()?;
    let changed = part.auth.confirm_totp(&scope, &collection, &visitor.identity, body.code).await?;
    Ok(factors_changed(&changed))
}

/// `POST …/totp/disable`
pub(crate) async fn disable_totp(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<ProofRequest>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.own_scope()?;
    let auth = &part.auth;
    let changed = auth.disable_totp(&scope, &collection, &visitor.identity, body.password, body.code).await?;
    Ok(factors_changed(&changed))
}

/// `POST …/totp/recovery-codes`: new codes in the place of all older ones.
pub(crate) async fn renew_recovery_codes(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<ProofRequest>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.own_scope()?;
    let auth = &part.auth;
    let changed = auth.renew_recovery_codes(&scope, &collection, &visitor.identity, body.password, body.code).await?;
    Ok(factors_changed(&changed))
}

/// `DELETE …/second-factors/{id}`: for superusers, of somebody who lost them all.
pub(crate) async fn reset_factors(
    SuperVisitor(visitor): SuperVisitor,
    part: web::Data<AuthPart>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.auth_scope("default", Map::new());
    part.auth.reset_factors(&scope, &path.0, &path.1, &visitor.identity).await?;
    Ok(respond::no_content())
}

/// The owner's next token, and new recovery codes if there are any.
pub(super) fn factors_changed(changed: &FactorsChanged) -> HttpResponse {
    let mut body = json!({ "token": changed.grant.token.expose(), "expiresIn": changed.grant.expires_in_s });
    if !changed.recovery_codes.is_empty() {
        body["recoveryCodes"] = changed.recovery_codes.iter().map(|code| Value::from(code.expose())).collect();
    }
    respond::json(&body)
}
