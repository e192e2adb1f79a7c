//! Taking every second factor of somebody else's account away: for a person who lost them all.
//!
//! Keeps true: superusers in person only, and the account's tokens, sessions and half-finished logins end with it, so
//! whoever caused it has to log in again. The password stays. Does not do: proving who lost what.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::{Auth, AuthScope, Identity, factors, passkeys, sessions, totp};
use crate::kernel::value::Stored;
use crate::secrets::opaque;
use crate::services::tenants::rows;

impl Auth {
    /// Removes authenticator app, recovery codes and passkeys of account `id`.
    pub async fn reset_factors(
        &self,
        scope: &AuthScope,
        collection: &str,
        id: &str,
        identity: &Identity,
    ) -> Result<(), AuthError> {
        if !identity.is_superuser() {
            return Err(AuthError::SuperuserRequired);
        }
        if identity.key.is_some() {
            return Err(AuthError::Forbidden);
        }
        let db = self.db(scope, collection);
        let accounts = AuthCollection::find(&db.schema(), collection)?.collection;
        let (id, key) = (id.to_owned(), opaque::generate_token_key(self.0.random.as_ref()));
        db.write(scope.meta.clone(), move |tx| {
            let account = account::read(tx, &accounts, &id)?.ok_or(AuthError::NotFound("account"))?;
            totp::forget(tx, &account)?;
            passkeys::forget(tx, &account)?;
            factors::end_halves(tx, &account)?;
            let changes = rows::changes_at(&accounts, &[("tokenKey", Stored::from(key))], tx.now_ms());
            tx.update(&accounts, &account.record.id, &changes)?;
            sessions::end_all(tx, &accounts.id, &account.record.id)
        })
        .await?;
        tracing::info!(tenant.id = %db.id(), request.id = %scope.meta.request_id, "second factors of an account were reset");
        Ok(())
    }
}
