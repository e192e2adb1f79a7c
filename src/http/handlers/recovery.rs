//! One-time codes, forgotten passwords, verified and changed addresses.
//!
//! Keeps true: a request about an address is answered the same whether or not anybody has it.
//! Does not do: sending mail, checking tokens.

use super::auth::{AuthPart, granted, shown_account};
use crate::http::body::Json;
use crate::http::extract::Visitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::secrets::Secret;
use crate::services::auth::{ConfirmEmailChange, ConfirmPasswordReset, MailedLink, OtpLogin};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, json};

/// The body of everything that asks for a mail to an address.
#[derive(Debug, Deserialize)]
pub(crate) struct EmailRequest {
    #[serde(default)]
    email: String,
}

/// The body of `auth-with-otp`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OtpLoginRequest {
    #[serde(default)]
    otp_id: String,
    #[serde(default)]
    password: Secret,
    mfa_id: Option<Secret>,
}

/// The body of `confirm-password-reset`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfirmPasswordResetRequest {
    #[serde(default)]
    token: Secret,
    #[serde(default)]
    password: Secret,
    #[serde(default)]
    password_confirm: Secret,
}

/// The body of `confirm-verification`.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenRequest {
    #[serde(default)]
    token: Secret,
    /// Of a registration that is completed.
    #[serde(default)]
    password: Secret,
}

/// The body of `request-email-change`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EmailChangeRequest {
    #[serde(default)]
    new_email: String,
}

/// The body of `confirm-email-change`.
#[derive(Debug, Deserialize)]
pub(crate) struct ConfirmEmailChangeRequest {
    #[serde(default)]
    token: Secret,
    #[serde(default)]
    password: Secret,
}

/// `POST …/request-otp`
pub(crate) async fn request_otp(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<EmailRequest>,
) -> Result<HttpResponse, Problem> {
    let grant = part.auth.request_otp(&visitor.auth_scope("otp", Map::new()), &collection, &body.email).await?;
    Ok(respond::json(&json!({ "otpId": grant.otp_id })))
}

/// `POST …/auth-with-otp`
pub(crate) async fn auth_with_otp(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<OtpLoginRequest>,
) -> Result<HttpResponse, Problem> {
    let (wish, view) = (visitor.wish(body.mfa_id), shown_account(&visitor)?);
    let login = OtpLogin { otp_id: body.otp_id, password: body.password };
    let grant = part.auth.auth_with_otp(&visitor.auth_scope("otp", Map::new()), &collection, login, wish).await?;
    granted(&visitor, grant, &view).await
}

/// `POST …/request-password-reset`
pub(crate) async fn request_password_reset(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<EmailRequest>,
) -> Result<HttpResponse, Problem> {
    request_link(&visitor, &part, &collection, MailedLink::PasswordReset, &body.email).await
}

async fn request_link(
    visitor: &Visitor,
    part: &AuthPart,
    collection: &str,
    link: MailedLink,
    email: &str,
) -> Result<HttpResponse, Problem> {
    part.auth.request_link(&visitor.auth_scope("default", Map::new()), collection, link, email).await?;
    Ok(respond::no_content())
}

/// `POST …/confirm-password-reset`
pub(crate) async fn confirm_password_reset(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<ConfirmPasswordResetRequest>,
) -> Result<HttpResponse, Problem> {
    let confirm =
        ConfirmPasswordReset { token: body.token, password: body.password, password_confirm: body.password_confirm };
    part.auth.confirm_password_reset(&visitor.auth_scope("default", Map::new()), &collection, confirm).await?;
    Ok(respond::no_content())
}

/// `POST …/request-verification`
pub(crate) async fn request_verification(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<EmailRequest>,
) -> Result<HttpResponse, Problem> {
    request_link(&visitor, &part, &collection, MailedLink::Verification, &body.email).await
}

/// `POST …/confirm-verification`
pub(crate) async fn confirm_verification(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<TokenRequest>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.auth_scope("default", Map::new());
    part.auth.confirm_verification(&scope, &collection, &body.token, body.password).await?;
    Ok(respond::no_content())
}

/// `POST …/request-email-change`
pub(crate) async fn request_email_change(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<EmailChangeRequest>,
) -> Result<HttpResponse, Problem> {
    visitor.require_login()?;
    let scope = visitor.auth_scope("default", Map::new());
    part.auth.request_email_change(&scope, &collection, &visitor.identity, &body.new_email).await?;
    Ok(respond::no_content())
}

/// `POST …/confirm-email-change`
pub(crate) async fn confirm_email_change(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    Json(body): Json<ConfirmEmailChangeRequest>,
) -> Result<HttpResponse, Problem> {
    let confirm = ConfirmEmailChange { token: body.token, password: body.password };
    part.auth.confirm_email_change(&visitor.auth_scope("default", Map::new()), &collection, confirm).await?;
    Ok(respond::no_content())
}
