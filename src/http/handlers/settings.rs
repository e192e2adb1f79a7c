//! A tenant's settings, and a mail that tries them out.
//!
//! Keeps true: superusers alone; secrets go in and never come out. Does not do: the node's configuration.

use crate::http::body::Json;
use crate::http::extract::Visitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::error::Detail;
use crate::kernel::random::Random;
use crate::secrets::seal::Sealer;
use crate::services::mail::{Courier, MailTrial};
use crate::services::settings::{self, SettingsError};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What the routes of settings need.
pub(crate) struct SettingsPart {
    pub(crate) random: Arc<dyn Random>,
    pub(crate) sealer: Sealer,
    pub(crate) courier: Courier,
}

/// The body of `test/email`; PocketBase's `template` and `collection` are taken and not needed.
#[derive(Debug, Deserialize)]
pub(crate) struct TestEmailRequest {
    #[serde(default)]
    email: String,
}

/// `GET /api/settings`
pub(crate) async fn get_settings(visitor: Visitor) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let found = settings::read(&visitor.tenant).await?;
    Ok(respond::json(&found.to_wire()))
}

/// `PATCH /api/settings`
pub(crate) async fn update_settings(
    visitor: Visitor,
    part: web::Data<SettingsPart>,
    Json(body): Json<Map<String, Value>>,
) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let changed = settings::update(&visitor.tenant, visitor.write_meta(), &part.random, &part.sealer, &body).await?;
    Ok(respond::json(&changed.to_wire()))
}

/// `POST /api/settings/test/email`: sends one mail at once and says what the mail server said.
pub(crate) async fn test_email(
    visitor: Visitor,
    part: web::Data<SettingsPart>,
    Json(body): Json<TestEmailRequest>,
) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    match part.courier.try_out(visitor.tenant.id(), &body.email).await {
        Ok(()) => Ok(respond::no_content()),
        Err(MailTrial::Address) => {
            let detail = Detail::new("email", "validation_is_email", "Must be a valid e-mail address.");
            Err(SettingsError::Invalid(vec![detail]).into())
        }
        Err(MailTrial::Failed(why)) => {
            let detail = Detail::new("smtp", "validation_smtp", format!("The mail was not taken: {why}"));
            Err(SettingsError::Invalid(vec![detail]).into())
        }
    }
}
