//! The superusers of the node: made from the command line, by the first start, or by another superuser.
//!
//! Keeps true: resetting a password ends every token and session of that superuser.
//! Does not do: logging in (superusers log in like any account, in the control database).

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::{Auth, otp, sessions};
use crate::kernel::ident::RecordId;
use crate::kernel::value::Stored;
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::services::tenants::rows;
use crate::services::tenants::system::SUPERUSERS;
use crate::store::{StoreError, WriteMeta};
use std::sync::Arc;

/// What saving a superuser did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SuperuserSaved {
    /// It is new; its record id.
    Created(RecordId),
    /// It was there and has the new password; its record id.
    Reset(RecordId),
}

/// What to do with an address that has a superuser, or has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intent {
    Create,
    Reset,
    Upsert,
}

impl Auth {
    /// Makes a superuser; the address must be free.
    pub async fn create_superuser(
        &self,
        meta: WriteMeta,
        email: &str,
        password: Secret,
    ) -> Result<SuperuserSaved, AuthError> {
        self.save_superuser(meta, email, password, Intent::Create).await
    }

    /// Gives a superuser another password; the address must have one.
    pub async fn reset_superuser(
        &self,
        meta: WriteMeta,
        email: &str,
        password: Secret,
    ) -> Result<SuperuserSaved, AuthError> {
        self.save_superuser(meta, email, password, Intent::Reset).await
    }

    /// Makes a superuser or gives it another password.
    pub async fn upsert_superuser(
        &self,
        meta: WriteMeta,
        email: &str,
        password: Secret,
    ) -> Result<SuperuserSaved, AuthError> {
        self.save_superuser(meta, email, password, Intent::Upsert).await
    }

    /// Whether the node has a superuser at all.
    pub async fn has_superuser(&self) -> Result<bool, AuthError> {
        let found = self.0.registry.control().read(|reader| {
            let Some(collection) = reader.schema().find(SUPERUSERS) else { return Ok(false) };
            let sql = format!("SELECT 1 FROM \"{}\" LIMIT 1", collection.table());
            Ok::<_, StoreError>(reader.find_one(&sql, &[], |_| Ok(()))?.is_some())
        });
        Ok(found.await?)
    }

    async fn save_superuser(
        &self,
        meta: WriteMeta,
        email: &str,
        password: Secret,
        intent: Intent,
    ) -> Result<SuperuserSaved, AuthError> {
        if !account::is_email(email) {
            return Err(AuthError::field("email", "validation_is_email", "Must be a valid e-mail address."));
        }
        let control = self.0.registry.control();
        let collection = AuthCollection::find(&control.schema(), SUPERUSERS)?.collection;
        account::check_password(&collection, &password, &password)?;
        self.refuse_common(control, &collection, email, &password).await?;
        let hash = self.0.hasher.hash(password).await?;
        let key = opaque::generate_token_key(self.0.random.as_ref());
        let (id, email) = (RecordId::generate(self.0.random.as_ref()), email.to_owned());
        let saved = control.write(meta, move |tx| {
            let mut values = vec![
                ("password", Stored::from(hash)),
                ("tokenKey", Stored::from(key)),
                ("verified", Stored::bool(true)),
            ];
            match (account::find_by(tx, &collection, "email", &email)?, intent) {
                (Some(_), Intent::Create) => {
                    Err(AuthError::field("email", "validation_not_unique", "A superuser with this address exists."))
                }
                (None, Intent::Reset) => Err(AuthError::NotFound("superuser")),
                (Some(account), _) => {
                    let changes = rows::changes_at(&collection, &values, tx.now_ms());
                    tx.update(&collection, &account.record.id, &changes)?;
                    sessions::end_all(tx, &collection.id, &account.record.id)?;
                    otp::forget(tx, &account)?;
                    Ok(SuperuserSaved::Reset(account.record.id.clone()))
                }
                (None, _) => {
                    values.push(("email", Stored::from(email)));
                    let image = rows::image(&Arc::clone(&collection), id.clone(), &values, tx.now_ms());
                    tx.insert(&collection, &image)?;
                    Ok(SuperuserSaved::Created(id))
                }
            }
        });
        Ok(saved.await?.value)
    }
}
