//! Mails about accounts: written after the request was answered.
//!
//! Keeps true: everything that depends on whether an account exists happens after the answer, so its time tells nothing;
//! how much waits is bounded. Does not do: what a token in a mail is good for (`recovery`, `otp`).

use super::account::AuthCollection;
use super::error::AuthError;
use super::mail_guard::Asked;
use super::{Auth, AuthScope};
use crate::kernel::limits;
use crate::query::request::AuthRecord;
use crate::schema::mail_text::MailText;
use crate::services::mail::{self, Fillings};
use crate::services::settings;
use crate::services::tenants::MAIN;
use crate::store::TenantDb;
use std::future::Future;
use std::sync::Arc;

/// A mail about an account, without what the tenant and the account fill in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Letter<'a> {
    pub(super) mail: MailText,
    /// Below the application's address; empty if the mail leads nowhere.
    pub(super) path: &'a str,
    pub(super) token: &'a str,
    pub(super) otp: &'a str,
    pub(super) otp_id: &'a str,
    pub(super) alert_info: &'a str,
}

impl<'a> Letter<'a> {
    pub(super) const fn of(mail: MailText) -> Self {
        Self { mail, path: "", token: "", otp: "", otp_id: "", alert_info: "" }
    }
}

impl Auth {
    /// Counts a request for a mail to `recipient`, or refuses it.
    pub(super) fn ask_mail(&self, scope: &AuthScope, db: &TenantDb, recipient: &str) -> Result<Asked, AuthError> {
        Ok(self.0.mail_guard.ask(&scope.meta, db.id(), recipient, self.0.clock.now_ms())?)
    }

    /// Does `work` after the request was answered; past the bound it is dropped, and the log says so.
    pub(super) fn defer(&self, db: &TenantDb, work: impl Future<Output = Result<(), AuthError>> + Send + 'static) {
        let tenant = db.id().clone();
        let Ok(turn) = Arc::clone(&self.0.mail_work).try_acquire_owned() else {
            tracing::error!(tenant.id = %tenant, "too much work on mails is under way; a mail was dropped");
            return;
        };
        tokio::spawn(async move {
            if let Err(error) = work.await {
                tracing::error!(tenant.id = %tenant, %error, "a mail could not be written");
            }
            drop(turn);
        });
    }

    /// Waits until all work that was put off is done.
    pub async fn mail_work_done(&self) {
        let all = u32::try_from(limits::MAIL_WORK_MAX).unwrap_or(u32::MAX);
        // An error says that the semaphore is closed, which it never is.
        drop(self.0.mail_work.acquire_many(all).await);
    }

    /// Where the tenant called `slug` is reached as long as it has set no address of its own.
    fn address_of(&self, slug: Option<&str>) -> String {
        match slug {
            Some(slug) if slug != MAIN => format!("{}/t/{slug}", self.0.app_url),
            _ => self.0.app_url.to_string(),
        }
    }

    /// Writes `letter` to `to` and hands it over, within the limits of recipient and tenant.
    pub(super) async fn post(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        account: &AuthRecord,
        letter: Letter<'_>,
        to: &str,
        asked: Asked,
    ) -> Result<(), AuthError> {
        if !self.0.mail_guard.lets_leave(db.id(), to, asked, self.0.clock.now_ms()) {
            return Ok(());
        }
        let set = settings::read(db).await?;
        let entry = self.0.registry.entry(db.id());
        let own = |own: &str, fallback: &str| if own.is_empty() { fallback.to_owned() } else { own.to_owned() };
        let app_name = own(&set.meta.app_name, entry.as_ref().map_or("Tenantry", |entry| &entry.name));
        let app_url = own(&set.meta.app_url, &self.address_of(entry.as_deref().map(|entry| entry.slug.as_str())));
        let action_url = format!("{app_url}/{}{}", letter.path, letter.token);
        let fillings = Fillings {
            app_name: &app_name,
            app_url: &app_url,
            token: letter.token,
            action_url: &action_url,
            otp: letter.otp,
            otp_id: letter.otp_id,
            alert_info: letter.alert_info,
            record: Some(account),
        };
        self.0.mailer.hand_over(db.id(), mail::render(&collection.options.rest, letter.mail, &fillings, to));
        Ok(())
    }
}
