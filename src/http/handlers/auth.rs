//! Logging in and out, tokens, sessions, recovery.
//!
//! Keeps true: what a login answers does not depend on whether the account exists; secrets go out in bodies only, marked
//! `no-store`. Does not do: checking; `services::auth` decides.

use crate::http::body::Json;
use crate::http::extract::Visitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::secrets::Secret;
use crate::services::auth::{Auth, Grant, PasswordLogin, SessionInfo};
use crate::services::records::read::{self, View};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What the routes of authentication need.
pub(crate) struct AuthPart {
    pub(crate) auth: Auth,
}

/// The body of a password login; `options` and what else clients send are ignored, as PocketBase does.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PasswordLoginRequest {
    #[serde(default)]
    identity: String,
    #[serde(default)]
    password: Secret,
    identity_field: Option<String>,
    mfa_id: Option<Secret>,
}

/// The body of `auth-refresh`: nothing for a long token, the refresh token for a session.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RefreshRequest {
    refresh_token: Option<Secret>,
}

/// The body of `impersonate`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImpersonateRequest {
    duration: Option<u64>,
}

/// `GET …/auth-methods`
pub(crate) async fn list_auth_methods(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let methods = part.auth.auth_methods(&visitor.auth_scope("default", Map::new()), &collection)?;
    Ok(respond::json(&json!({
        "password": { "enabled": methods.password, "identityFields": methods.identity_fields },
        "otp": { "enabled": methods.otp.is_some(), "duration": methods.otp.unwrap_or(0) },
        "mfa": { "enabled": methods.mfa.is_some(), "duration": methods.mfa.unwrap_or(0) },
        "totp": { "enabled": methods.totp },
        "passkey": { "enabled": methods.passkey },
        "oauth2": super::oauth::methods(&visitor, &part, &collection).await?,
    })))
}

/// `POST …/auth-with-password`, with `?session=1` for a short token and a refresh token.
pub(crate) async fn auth_with_password(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<PasswordLoginRequest>,
) -> Result<HttpResponse, Problem> {
    let (wish, view) = (visitor.wish(body.mfa_id), shown_account(&visitor)?);
    let login = PasswordLogin { identity: body.identity, password: body.password, identity_field: body.identity_field };
    let scope = visitor.auth_scope("password", Map::new());
    let grant = part.auth.auth_with_password(&scope, &collection, login, wish).await?;
    granted(&visitor, grant, &view).await
}

/// `POST …/auth-refresh`
pub(crate) async fn auth_refresh(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<RefreshRequest>,
) -> Result<HttpResponse, Problem> {
    let (scope, view) = (visitor.auth_scope("default", Map::new()), shown_account(&visitor)?);
    let grant = match body.refresh_token {
        Some(token) => part.auth.refresh_session(&scope, &collection, &token).await?,
        None => {
            visitor.require_login()?;
            let presented = Secret::new(visitor.header("authorization").unwrap_or_default());
            part.auth.auth_refresh(&scope, &collection, &visitor.identity, &presented).await?
        }
    };
    granted(&visitor, grant, &view).await
}

/// `POST …/impersonate/{id}`
pub(crate) async fn impersonate(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    path: web::Path<(String, String)>,
    Json(body): Json<ImpersonateRequest>,
) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let ((collection, id), view) = (path.into_inner(), shown_account(&visitor)?);
    let scope = visitor.auth_scope("default", Map::new());
    let grant = part.auth.impersonate(&scope, &collection, &id, body.duration, &visitor.identity).await?;
    granted(&visitor, grant, &view).await
}

/// `POST …/auth-logout`; `?everywhere=1` ends every session of the account.
pub(crate) async fn auth_logout(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    _: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    visitor.require_login()?;
    let scope = visitor.auth_scope("default", Map::new());
    if visitor.flag("everywhere") {
        part.auth.log_out_all(&scope, &visitor.identity).await?;
    } else {
        part.auth.log_out(&scope, &visitor.identity).await?;
    }
    Ok(respond::no_content())
}

/// `GET …/sessions`: the caller's own.
pub(crate) async fn list_sessions(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    _: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    visitor.require_login()?;
    let scope = visitor.auth_scope("default", Map::new());
    let sessions = part.auth.list_sessions(&scope, &visitor.identity, None).await?;
    Ok(sessions_shown(&sessions))
}

/// A list of sessions.
pub(super) fn sessions_shown(sessions: &[SessionInfo]) -> HttpResponse {
    let items: Vec<Value> = sessions
        .iter()
        .map(|session| {
            json!({
                "id": &*session.id, "created": session.created, "lastUsed": session.last_used,
                "expires": session.expires, "ip": session.ip, "userAgent": session.user_agent,
                "current": session.current,
            })
        })
        .collect();
    respond::json(&json!({ "items": items }))
}

/// `DELETE …/sessions/{session}`
pub(crate) async fn revoke_session(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    visitor.require_login()?;
    let scope = visitor.auth_scope("default", Map::new());
    part.auth.revoke_session(&scope, &visitor.identity, &path.1).await?;
    Ok(respond::no_content())
}

/// `POST /api/files/token`
pub(crate) async fn create_file_token(visitor: Visitor, part: web::Data<AuthPart>) -> Result<HttpResponse, Problem> {
    visitor.require_login()?;
    let token = part.auth.file_token(&visitor.auth_scope("default", Map::new()), &visitor.identity).await?;
    Ok(respond::json(&json!({ "token": token.expose() })))
}

/// What a login shows of the account. Read before anything is checked: what was asked wrongly uses up no code and no token.
pub(super) fn shown_account(visitor: &Visitor) -> Result<View, Problem> {
    Ok(View::from_pairs(&visitor.parameters())?)
}

/// `{token, record, meta}` as PocketBase answers a login, with the session's part where there is one.
pub(super) async fn granted(visitor: &Visitor, grant: Grant, view: &View) -> Result<HttpResponse, Problem> {
    granted_with(visitor, grant, view, Map::new()).await
}

/// [`granted`] with something in `meta`.
pub(super) async fn granted_with(
    visitor: &Visitor,
    grant: Grant,
    view: &View,
    meta: Map<String, Value>,
) -> Result<HttpResponse, Problem> {
    let record = read::get_own(&visitor.scope_as(&grant.account), view).await?;
    let record: Value = serde_json::from_slice(&record.body).map_err(|error| Problem::internal(&error))?;
    let mut body = json!({ "token": grant.token.expose(), "record": record, "meta": meta });
    if let Some(session) = grant.session {
        body["refreshToken"] = json!(session.refresh_token.expose());
        body["expiresIn"] = json!(grant.expires_in_s);
        body["sessionId"] = json!(&*session.id);
        body["refreshExpiresIn"] = json!(session.expires_in_s);
    }
    Ok(respond::json(&body))
}
