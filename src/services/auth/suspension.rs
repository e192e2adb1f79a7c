//! Keeping an account out for the time being, without deleting anything it has.
//!
//! Keeps true: suspending ends, in one transaction, every token, session, half-finished login and one-time code of the
//! account; its API keys and its passwords are refused until it is resumed or the time is over; all of that acts on the
//! next request, and on those under way. Does not do: deciding whom to suspend; superusers do.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::events::{Event, Outcome, Who};
use super::known::Key;
use super::{Auth, AuthScope, Identity, sessions};
use crate::kernel::datetime;
use crate::kernel::ident::RecordId;
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::secrets::opaque;
use crate::services::tenants::rows;
use crate::services::tenants::system::SUSPENSIONS;
use crate::store::{Reader, StoreError, TenantDb, WriteTx};
use std::sync::Arc;

/// What is said about a suspension.
#[derive(Debug, Clone, Default)]
pub struct Suspend {
    /// Why, for the administrators; 500 characters at most.
    pub reason: String,
    /// When it ends by itself, milliseconds since the Unix epoch; `None` is never.
    pub until_ms: Option<i64>,
}

/// A suspension as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuspensionInfo {
    /// Why.
    pub reason: String,
    /// When it ends by itself, storage form; empty is never.
    pub until: String,
    /// Since when, storage form.
    pub created: String,
}

/// An account that a superuser is about to do something about.
struct Administered<'scope> {
    db: &'scope TenantDb,
    accounts: Arc<Collection>,
    id: String,
}

impl Auth {
    /// Suspends account `id` from now on; one that is suspended already gets the new reason and end.
    pub async fn suspend_account(
        &self,
        scope: &AuthScope,
        collection: &str,
        id: &str,
        wish: Suspend,
        identity: &Identity,
    ) -> Result<SuspensionInfo, AuthError> {
        let of = self.administered(scope, collection, id, identity)?;
        if identity.account().is_some_and(|own| own.collection.id == of.accounts.id && own.record.id.as_str() == id) {
            let message = "Nobody suspends the account they act with; have another superuser do it.";
            return Err(AuthError::field("id", "validation_own_account", message));
        }
        check_wish(&wish, self.0.clock.now_ms())?;
        let key = opaque::generate_token_key(self.0.random.as_ref());
        self.administer(scope, of, "suspend", move |tx, account| {
            let suspensions = suspensions(tx.schema())?;
            for row in of_account(tx, &suspensions, account)? {
                tx.delete(&suspensions, &row.id)?;
            }
            let values = [
                ("collectionRef", Stored::text(&account.collection.id)),
                ("recordRef", Stored::text(&account.record.id)),
                ("reason", Stored::from(wish.reason)),
                ("until", Stored::from(wish.until_ms.map(datetime::format_ms).unwrap_or_default())),
            ];
            let image = rows::image(&suspensions, row_id(account), &values, tx.now_ms());
            tx.insert(&suspensions, &image)?;
            sessions::lock_out(tx, account, key)?;
            Ok(info(&suspensions, &image))
        })
        .await
    }

    /// Lets a suspended account in again.
    pub async fn resume_account(
        &self,
        scope: &AuthScope,
        collection: &str,
        id: &str,
        identity: &Identity,
    ) -> Result<(), AuthError> {
        let of = self.administered(scope, collection, id, identity)?;
        self.administer(scope, of, "resume", |tx, account| {
            let suspensions = suspensions(tx.schema())?;
            let found = of_account(tx, &suspensions, account)?;
            if found.is_empty() {
                return Err(AuthError::NotFound("suspension"));
            }
            found.iter().try_for_each(|row| Ok(tx.delete(&suspensions, &row.id)?))
        })
        .await
    }

    /// The suspension of account `id`, for a while also one whose time is over.
    pub async fn get_suspension(
        &self,
        scope: &AuthScope,
        collection: &str,
        id: &str,
        identity: &Identity,
    ) -> Result<SuspensionInfo, AuthError> {
        let Administered { db, accounts, id } = self.administered(scope, collection, id, identity)?;
        db.read(move |reader| {
            let account = account::read(reader, &accounts, &id)?.ok_or(AuthError::NotFound("account"))?;
            let suspensions = suspensions(reader.schema())?;
            let row = of_account(reader, &suspensions, &account)?.pop().ok_or(AuthError::NotFound("suspension"))?;
            Ok(info(&suspensions, &row))
        })
        .await
    }

    /// Ends every token and session of account `id`.
    pub async fn end_sessions_of(
        &self,
        scope: &AuthScope,
        collection: &str,
        id: &str,
        identity: &Identity,
    ) -> Result<(), AuthError> {
        let of = self.administered(scope, collection, id, identity)?;
        let key = opaque::generate_token_key(self.0.random.as_ref());
        self.administer(scope, of, "endSessions", move |tx, account| sessions::lock_out(tx, account, key)).await
    }

    /// Somebody else's account, for a superuser.
    fn administered<'scope>(
        &'scope self,
        scope: &'scope AuthScope,
        collection: &str,
        id: &str,
        identity: &Identity,
    ) -> Result<Administered<'scope>, AuthError> {
        if !identity.is_superuser() {
            return Err(AuthError::SuperuserRequired);
        }
        let db = self.db(scope, collection);
        let accounts = AuthCollection::find(&db.schema(), collection)?.collection;
        Ok(Administered { db, accounts, id: id.to_owned() })
    }

    /// Does `work` on the account in one transaction and notes it as `event`.
    async fn administer<T: Send + 'static>(
        &self,
        scope: &AuthScope,
        of: Administered<'_>,
        event: &'static str,
        work: impl FnOnce(&mut WriteTx<'_>, &Arc<AuthRecord>) -> Result<T, AuthError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let Administered { db, accounts, id } = of;
        let done = db.write(scope.meta.clone(), move |tx| {
            let account = account::read(tx, &accounts, &id)?.ok_or(AuthError::NotFound("account"))?;
            Ok::<_, AuthError>((work(tx, &account)?, account))
        });
        let (done, account) = done.await?.value;
        self.note_about(db, scope, event, &account);
        Ok(done)
    }

    fn note_about(&self, db: &TenantDb, scope: &AuthScope, event: &'static str, account: &AuthRecord) {
        let who = Who::Account(&account.collection, account.record.id.as_str());
        self.note(db, &scope.meta, Event { event, method: "", outcome: Outcome::Ok, who });
    }

    /// Whether `account` is suspended now; from memory, also that it is not.
    pub(super) async fn is_suspended(&self, db: &TenantDb, account: &AuthRecord) -> Result<bool, AuthError> {
        let Some(key) = key(db, account) else { return Ok(false) };
        let row = match self.0.known.find(&key) {
            Ok(row) => row,
            Err(ticket) => {
                let id = key.record.clone();
                let read = db.read(move |reader| match reader.schema().find(SUSPENSIONS) {
                    Some(suspensions) => account::read(reader, suspensions, id.as_str()),
                    None => Ok::<_, StoreError>(None),
                });
                let row = read.await?;
                self.0.known.keep(key, ticket, row.clone());
                row
            }
        };
        Ok(row.is_some_and(|row| is_in_force(&row, self.0.clock.now_ms())))
    }
}

/// Where the suspension of `account` would be; `None` in a file of an older version.
pub(super) fn key(db: &TenantDb, account: &AuthRecord) -> Option<Key> {
    let collection = db.schema().find(SUSPENSIONS)?.id.clone();
    Some(Key { tenant: db.id().clone(), collection, record: row_id(account) })
}

pub(super) fn is_in_force(row: &AuthRecord, now_ms: i64) -> bool {
    rows::moment_ms(&row.collection, &row.record, "until").is_none_or(|until_ms| until_ms > now_ms)
}

fn row_id(account: &AuthRecord) -> RecordId {
    let digest = opaque::digest_hex(&format!("suspension/{}/{}", account.collection.id, account.record.id));
    let id = digest.get(..15).and_then(|id| RecordId::parse(id).ok());
    id.expect("invariant: fifteen hexadecimal digits are a record id")
}

fn check_wish(wish: &Suspend, now_ms: i64) -> Result<(), AuthError> {
    if wish.reason.chars().count() > 500 {
        return Err(AuthError::field("reason", "validation_length_out_of_range", "Must have at most 500 characters."));
    }
    if wish.until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
        return Err(AuthError::field("until", "validation_date_too_early", "Must lie in the future, or be empty."));
    }
    Ok(())
}

fn info(suspensions: &Collection, row: &RecordImage) -> SuspensionInfo {
    let text = |name: &str| rows::text(suspensions, row, name).to_owned();
    SuspensionInfo { reason: text("reason"), until: text("until"), created: text("created") }
}

fn of_account(
    reader: &Reader<'_>,
    suspensions: &Collection,
    account: &AuthRecord,
) -> Result<Vec<RecordImage>, AuthError> {
    let owner = [("collectionRef", account.collection.id.as_str()), ("recordRef", account.record.id.as_str())];
    Ok(rows::find_by_texts(reader, suspensions, &owner)?)
}

fn suspensions(schema: &Schema) -> Result<Arc<Collection>, AuthError> {
    schema.find(SUSPENSIONS).cloned().ok_or_else(|| AuthError::UnknownCollection(SUSPENSIONS.to_owned()))
}
