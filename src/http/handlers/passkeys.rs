//! Passkeys: adding, listing, renaming, removing, and logging in with one.
//!
//! Keeps true: a ceremony's name goes out in a body marked `no-store`. Does not do: checking what browsers send.

use super::auth::{AuthPart, granted, shown_account};
use super::factors::{ProofRequest, factors_changed};
use crate::http::body::Json;
use crate::http::extract::Visitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::secrets::Secret;
use crate::services::auth::{NewPasskey, PasskeyChallenge, PasskeyInfo, PasskeyLogin};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The body of `auth-with-passkey`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PasskeyLoginRequest {
    mfa_id: Option<Secret>,
    #[serde(default)]
    challenge_id: Secret,
    #[serde(default)]
    credential: Value,
}

/// The body of `POST …/passkeys`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AddPasskeyRequest {
    #[serde(default)]
    challenge_id: Secret,
    #[serde(default)]
    credential: Value,
    #[serde(default)]
    name: String,
}

/// The body of `PATCH …/passkeys/{id}`.
#[derive(Debug, Deserialize)]
pub(crate) struct RenamePasskeyRequest {
    #[serde(default)]
    name: String,
}

/// `POST …/auth-with-passkey/begin`
pub(crate) async fn begin_passkey_login(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.auth_scope("passkey", Map::new());
    let begun = part.auth.begin_passkey_login(&scope, &collection, visitor.own_host().as_deref())?;
    Ok(respond::json(&challenge(begun)))
}

/// `POST …/auth-with-passkey`
pub(crate) async fn auth_with_passkey(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<PasskeyLoginRequest>,
) -> Result<HttpResponse, Problem> {
    let (wish, view) = (visitor.wish(body.mfa_id), shown_account(&visitor)?);
    let login = PasskeyLogin { challenge_id: body.challenge_id, credential: body.credential, wish };
    let scope = visitor.auth_scope("passkey", Map::new());
    let host = visitor.own_host();
    let grant = part.auth.auth_with_passkey(&scope, &collection, login, host.as_deref()).await?;
    granted(&visitor, grant, &view).await
}

/// `GET …/passkeys`
pub(crate) async fn list_passkeys(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.own_scope()?;
    let listed = part.auth.list_passkeys(&scope, &collection, &visitor.identity).await?;
    let items: Vec<Value> = listed.iter().map(shown).collect();
    Ok(respond::json(&json!({ "items": items })))
}

/// `POST …/passkeys/begin`
pub(crate) async fn begin_passkey(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<ProofRequest>,
) -> Result<HttpResponse, Problem> {
    let (scope, host) = (visitor.own_scope()?, visitor.own_host());
    let auth = &part.auth;
    let begun = auth.begin_passkey(&scope, &collection, &visitor.identity, body.password, host.as_deref()).await?;
    Ok(respond::json(&challenge(begun)))
}

/// `POST …/passkeys`
pub(crate) async fn add_passkey(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<AddPasskeyRequest>,
) -> Result<HttpResponse, Problem> {
    let (scope, host) = (visitor.own_scope()?, visitor.own_host());
    let new = NewPasskey { challenge_id: body.challenge_id, credential: body.credential, name: body.name };
    let (added, grant) = part.auth.add_passkey(&scope, &collection, &visitor.identity, new, host.as_deref()).await?;
    let mut body = shown(&added);
    body["token"] = json!(grant.token.expose());
    body["expiresIn"] = json!(grant.expires_in_s);
    Ok(respond::json(&body))
}

/// `PATCH …/passkeys/{id}`
pub(crate) async fn rename_passkey(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    path: web::Path<(String, String)>,
    Json(body): Json<RenamePasskeyRequest>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.own_scope()?;
    let renamed = part.auth.rename_passkey(&scope, &path.0, &visitor.identity, &path.1, &body.name).await?;
    Ok(respond::json(&shown(&renamed)))
}

/// `DELETE …/passkeys/{id}`, with the password in the body.
pub(crate) async fn remove_passkey(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    path: web::Path<(String, String)>,
    Json(body): Json<ProofRequest>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.own_scope()?;
    let changed = part.auth.remove_passkey(&scope, &path.0, &visitor.identity, &path.1, body.password).await?;
    Ok(factors_changed(&changed))
}

/// `{challengeId, publicKey}`
fn challenge(begun: PasskeyChallenge) -> Value {
    let mut body = begun.options;
    body["challengeId"] = json!(begun.id.expose());
    body
}

fn shown(passkey: &PasskeyInfo) -> Value {
    json!({
        "id": &*passkey.id, "name": passkey.name, "rpId": passkey.rp_id, "backedUp": passkey.backed_up,
        "created": passkey.created, "lastUsed": passkey.last_used,
    })
}
