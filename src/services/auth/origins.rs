//! Places from which an account was entered, and the mail about a new one.
//!
//! Keeps true: a place is the digest of the browser's name and the network (IPv4 whole, IPv6 by /64), so the file does not
//! say where people were; the first place of an account is no news; noting a place never delays or refuses a login.
//! Does not do: guessing at cities.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::mail_guard::Asked;
use super::mailing::Letter;
use super::{Auth, AuthScope, sessions};
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::schema::mail_text::MailText;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::secrets::opaque;
use crate::services::tenants::rows;
use crate::services::tenants::system::AUTH_ORIGINS;
use crate::services::throttle::address_group;
use crate::store::{Reader, TenantDb, WriteTx};
use std::net::IpAddr;
use std::sync::Arc;

impl Auth {
    /// Notes where `account` was entered from, after the answer; a new place is told to its owner.
    pub(super) fn note_origin(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        account: &Arc<AuthRecord>,
    ) {
        let address: Option<IpAddr> = scope.meta.ip.as_deref().and_then(|text| text.parse().ok());
        let (Some(address), true) = (address, collection.is_enabled("authAlert")) else { return };
        let (auth, db_, scope, collection, account) =
            (self.clone(), db.clone(), scope.clone(), collection.clone(), Arc::clone(account));
        self.defer(db, async move {
            let place = format!("{}\n{}", scope.user_agent, address_group(address));
            let fingerprint = opaque::digest_hex(&place);
            if !auth.keep_origin(&db_, &scope, &account, fingerprint).await? {
                return Ok(());
            }
            let to = account::email(&account);
            if to.is_empty() {
                return Ok(());
            }
            let agent: String = scope.user_agent.chars().take(200).collect();
            let info = format!("{address} - {agent}");
            let letter = Letter { alert_info: &info, ..Letter::of(MailText::Alert) };
            auth.post(&db_, &collection, &account, letter, to, Asked::Again).await
        });
    }

    /// Whether the place is one to tell about: new, and not the account's first.
    async fn keep_origin(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        account: &Arc<AuthRecord>,
        fingerprint: String,
    ) -> Result<bool, AuthError> {
        let (wanted, name) = (Arc::clone(account), fingerprint.clone());
        // Most logins come from a known place: these cost a read and no write.
        let known = db.read(move |reader| {
            let origins = origins(reader.schema())?;
            let found = of_account(reader, &origins, &wanted)?;
            Ok::<_, AuthError>(found.iter().any(|row| rows::text(&origins, row, "fingerprint") == name))
        });
        if known.await? {
            return Ok(false);
        }
        let (id, account) = (RecordId::generate(self.0.random.as_ref()), Arc::clone(account));
        let meta = sessions::as_account(&scope.meta, &account);
        let kept = db.write(meta, move |tx| insert(tx, id, &account, &fingerprint));
        Ok(kept.await?.value)
    }
}

fn insert(tx: &mut WriteTx<'_>, id: RecordId, account: &AuthRecord, fingerprint: &str) -> Result<bool, AuthError> {
    let origins = origins(tx.schema())?;
    let mut found = of_account(tx, &origins, account)?;
    // The account may have gone, or the place been noted, since it was read.
    if tx.find_record(&account.collection, account.record.id.as_str())?.is_none()
        || found.iter().any(|row| rows::text(&origins, row, "fingerprint") == fingerprint)
    {
        return Ok(false);
    }
    let is_news = !found.is_empty();
    found.sort_by_key(|row| std::cmp::Reverse(rows::moment_ms(&origins, row, "created").unwrap_or(0)));
    for row in found.iter().skip(limits::ORIGINS_PER_ACCOUNT_MAX - 1) {
        tx.delete(&origins, &row.id)?;
    }
    let values = [
        ("collectionRef", Stored::text(&account.collection.id)),
        ("recordRef", Stored::text(&account.record.id)),
        ("fingerprint", Stored::text(fingerprint)),
    ];
    tx.insert(&origins, &rows::image(&origins, id, &values, tx.now_ms()))?;
    Ok(is_news)
}

fn of_account(reader: &Reader<'_>, origins: &Collection, account: &AuthRecord) -> Result<Vec<RecordImage>, AuthError> {
    let owner = [("collectionRef", account.collection.id.as_str()), ("recordRef", account.record.id.as_str())];
    Ok(rows::find_by_texts(reader, origins, &owner)?)
}

fn origins(schema: &Schema) -> Result<Arc<Collection>, AuthError> {
    schema.find(AUTH_ORIGINS).cloned().ok_or_else(|| AuthError::UnknownCollection(AUTH_ORIGINS.to_owned()))
}
