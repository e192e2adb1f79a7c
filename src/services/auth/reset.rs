//! Taking every second factor of somebody else's account away: for a person who lost them all.
//!
//! Keeps true: superusers in person only, and the account's tokens, sessions and half-finished logins end with it, so
//! whoever caused it has to log in again. The password stays. Does not do: proving who lost what.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::events::{Event, Outcome, Who};
use super::{Auth, AuthScope, Identity, passkeys, sessions, totp};
use crate::secrets::opaque;

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
        let done = db.write(scope.meta.clone(), move |tx| {
            let account = account::read(tx, &accounts, &id)?.ok_or(AuthError::NotFound("account"))?;
            totp::forget(tx, &account)?;
            passkeys::forget(tx, &account)?;
            sessions::lock_out(tx, &account, key)?;
            Ok::<_, AuthError>(account)
        });
        let account = done.await?.value;
        let who = Who::Account(&account.collection, account.record.id.as_str());
        self.note(db, &scope.meta, Event { event: "resetFactors", method: "", outcome: Outcome::Ok, who });
        Ok(())
    }
}
