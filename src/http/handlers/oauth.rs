//! Signing in at an identity provider, and the page a provider may send people back to.
//!
//! Keeps true: codes, verifiers and the provider's tokens travel in bodies that are never stored; the page repeats nothing
//! of what the provider put into its address, so there is nothing to inject.
//! Does not do: the pop-up of PocketBase's clients, which needs realtime to hand the code over.

use super::auth::{AuthPart, granted_with, shown_account};
use crate::http::body::Json;
use crate::http::extract::Visitor;
use crate::http::problem::Problem;
use crate::secrets::Secret;
use crate::services::auth::OAuthLogin;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The body of `auth-with-oauth2`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OAuthLoginRequest {
    #[serde(default)]
    provider: String,
    #[serde(default)]
    code: Secret,
    #[serde(default)]
    code_verifier: Secret,
    #[serde(default, rename = "redirectURL", alias = "redirectUrl")]
    redirect_url: String,
    state: Option<String>,
    create_data: Option<Map<String, Value>>,
    password: Option<Secret>,
    mfa_id: Option<Secret>,
}

/// `POST …/auth-with-oauth2`
pub(crate) async fn auth_with_oauth2(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<OAuthLoginRequest>,
) -> Result<HttpResponse, Problem> {
    let (wish, view) = (visitor.wish(body.mfa_id), shown_account(&visitor)?);
    let login = OAuthLogin {
        provider: body.provider,
        code: body.code,
        code_verifier: body.code_verifier,
        redirect_url: body.redirect_url,
        state: body.state,
        create_data: body.create_data.unwrap_or_default(),
        password: body.password,
    };
    let scope = visitor.auth_scope("oauth2", Map::new());
    let creator = visitor.scope(Map::new());
    let done = part.auth.auth_with_oauth2(&scope, &creator, &collection, login, &visitor.identity, wish).await?;
    granted_with(&visitor, done.grant, &view, done.meta).await
}

/// The member `oauth2` of `auth-methods`.
pub(super) async fn methods(visitor: &Visitor, part: &AuthPart, collection: &str) -> Result<Value, Problem> {
    let found = part.auth.oauth_providers(&visitor.auth_scope("default", Map::new()), collection).await?;
    let enabled = found.is_some();
    let providers: Vec<Value> = found
        .unwrap_or_default()
        .iter()
        .map(|provider| {
            json!({
                "name": provider.name, "displayName": provider.display_name, "state": provider.state,
                "authURL": provider.auth_url, "authUrl": provider.auth_url,
                "codeVerifier": provider.code_verifier.expose(), "codeChallenge": provider.code_challenge,
                "codeChallengeMethod": if provider.code_challenge.is_empty() { "" } else { "S256" },
            })
        })
        .collect();
    Ok(json!({ "enabled": enabled, "providers": providers }))
}

const PAGE: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Sign-in</title></head><body>\
    <h1>The sign-in could not be handed over</h1><p>This address serves the pop-up sign-in of PocketBase's clients, which \
    needs realtime. Use a page of your application as the redirect URL and send its code to \
    <code>auth-with-oauth2</code>.</p></body></html>\n";

/// `GET` and `POST /api/oauth2-redirect`
pub(crate) async fn oauth2_redirect() -> HttpResponse {
    HttpResponse::NotImplemented()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
        .body(PAGE)
}
