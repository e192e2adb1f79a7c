//! Other people's access, for superusers: suspending accounts, and their sessions.
//!
//! Keeps true: superusers only; nothing is cached. Does not do: ending anything; `services::auth` does.

use super::auth::{AuthPart, sessions_shown};
use crate::http::body::Json;
use crate::http::extract::SuperVisitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::datetime;
use crate::kernel::error::{Code, Detail};
use crate::services::auth::{Suspend, SuspensionInfo};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The body of `suspend`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SuspendRequest {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    until: String,
}

/// `GET …/records/{id}/suspend`
pub(crate) async fn get_suspension(
    SuperVisitor(visitor): SuperVisitor,
    part: web::Data<AuthPart>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.auth_scope("default", Map::new());
    let found = part.auth.get_suspension(&scope, &path.0, &path.1, &visitor.identity).await?;
    Ok(respond::json(&shown(&found)))
}

/// `POST …/records/{id}/suspend`: `{reason?, until?}`
pub(crate) async fn suspend_account(
    SuperVisitor(visitor): SuperVisitor,
    part: web::Data<AuthPart>,
    path: web::Path<(String, String)>,
    Json(body): Json<SuspendRequest>,
) -> Result<HttpResponse, Problem> {
    let until_ms = match body.until.as_str() {
        "" => None,
        text => Some(datetime::parse_ms(text).ok_or_else(until_refused)?),
    };
    let wish = Suspend { reason: body.reason, until_ms };
    let scope = visitor.auth_scope("default", Map::new());
    let made = part.auth.suspend_account(&scope, &path.0, &path.1, wish, &visitor.identity).await?;
    Ok(respond::json(&shown(&made)))
}

/// `DELETE …/records/{id}/suspend`
pub(crate) async fn resume_account(
    SuperVisitor(visitor): SuperVisitor,
    part: web::Data<AuthPart>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.auth_scope("default", Map::new());
    part.auth.resume_account(&scope, &path.0, &path.1, &visitor.identity).await?;
    Ok(respond::no_content())
}

/// `GET …/records/{id}/sessions`
pub(crate) async fn list_sessions_of(
    SuperVisitor(visitor): SuperVisitor,
    part: web::Data<AuthPart>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.auth_scope("default", Map::new());
    let sessions = part.auth.list_sessions(&scope, &visitor.identity, Some((&path.0, &path.1))).await?;
    Ok(sessions_shown(&sessions))
}

/// `DELETE …/records/{id}/sessions`: every token and session; one of them goes by `DELETE …/sessions/{session}`.
pub(crate) async fn end_sessions_of(
    SuperVisitor(visitor): SuperVisitor,
    part: web::Data<AuthPart>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let scope = visitor.auth_scope("default", Map::new());
    part.auth.end_sessions_of(&scope, &path.0, &path.1, &visitor.identity).await?;
    Ok(respond::no_content())
}

fn until_refused() -> Problem {
    let message = "Must be a date and time such as 2030-01-31 12:00:00.000Z, or empty for no end.";
    Problem::bare(Code::ValidationFailed).with_detail(Detail::new("until", "validation_invalid_date", message))
}

fn shown(suspension: &SuspensionInfo) -> Value {
    json!({ "reason": suspension.reason, "until": suspension.until, "created": suspension.created })
}
