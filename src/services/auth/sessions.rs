//! Sessions: a family of refresh tokens, each good for one use.
//!
//! A refresh token is `tnr_<session>.<family secret>.<rotating secret>`. The family secret stays the same, the rotating
//! one changes with each use. So a token whose family secret holds and whose rotating secret is not the present one was
//! used before: somebody has a copy, and the session ends for both (RFC 9700, 4.14.2). A made-up token does not know the
//! family secret and ends nothing.
//!
//! Keeps true: only digests are stored; using a token and storing its successor is one transaction, so two uses at the
//! same time cannot both succeed; a new password (token key) ends every session; ended means deleted, and the commit
//! observer makes that felt on the next request.
//! Does not do: a grace period for lost answers. A client that lost one logs in again.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::events::{Event, Outcome, Who};
use super::login::{Grant, SessionGrant};
use super::{Auth, AuthScope, Identity, factors, otp};
use crate::kernel::datetime;
use crate::kernel::ident::{CollectionId, RecordId};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::services::tenants::rows;
use crate::services::tenants::system::{SESSIONS, SUPERUSERS};
use crate::store::{Actor, Reader, StoreError, TenantDb, WriteMeta, WriteTx};
use std::sync::Arc;

const PREFIX: &str = "tnr_";

/// What a session list shows of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its id.
    pub id: Arc<str>,
    /// When it was opened, storage form.
    pub created: String,
    /// When it was last refreshed, storage form.
    pub last_used: String,
    /// When it ends unless it is refreshed, storage form.
    pub expires: String,
    /// From where it was opened or refreshed last.
    pub ip: String,
    /// What the client called itself.
    pub user_agent: String,
    /// Whether the request that asks belongs to it.
    pub current: bool,
}

enum Turn {
    Rotated(SessionGrant, Arc<AuthRecord>),
    /// The session and the account.
    Reused(String, String),
    Refused,
}

impl Auth {
    /// Opens a session for `account`; beyond the bound per account, the least recently used ones end.
    pub(super) async fn open_session(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        account: &Arc<AuthRecord>,
    ) -> Result<SessionGrant, AuthError> {
        let id = RecordId::generate(self.0.random.as_ref());
        let family = opaque::generate(self.0.random.as_ref(), "");
        let rotating = opaque::generate(self.0.random.as_ref(), "");
        let refresh_token = Secret::new(format!("{PREFIX}{id}.{}.{}", family.expose(), rotating.expose()));
        let values = vec![
            ("collectionRef", Stored::text(&account.collection.id)),
            ("recordRef", Stored::text(&account.record.id)),
            ("keyHash", Stored::from(opaque::digest_hex(account::token_key(account)))),
            ("familyHash", Stored::from(opaque::digest_hex(family.expose()))),
            ("currentHash", Stored::from(opaque::digest_hex(rotating.expose()))),
        ];
        let (place, session, account) = (Place::of(scope), id.clone(), Arc::clone(account));
        db.write(as_account(&scope.meta, &account), move |tx| {
            let collection = sessions(tx.schema())?;
            let now_ms = tx.now_ms();
            make_room(tx, &collection, &account, now_ms)?;
            let mut values = values;
            values.extend(place.values(now_ms, now_ms));
            tx.insert(&collection, &rows::image(&collection, session, &values, now_ms))?;
            Ok::<_, AuthError>(())
        })
        .await?;
        Ok(SessionGrant { id: Arc::from(id.as_str()), refresh_token, expires_in_s: limits::SESSION_IDLE_S })
    }

    /// Trades a refresh token for a new pair of tokens.
    pub async fn refresh_session(
        &self,
        scope: &AuthScope,
        collection: &str,
        refresh_token: &Secret,
    ) -> Result<Grant, AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        let presented = Presented::parse(refresh_token).ok_or(AuthError::Revoked)?;
        let rotating = opaque::generate(self.0.random.as_ref(), "");
        let (wanted, place) = (Arc::clone(&collection.collection), Place::of(scope));
        let meta = self.meta_of(db, scope, &collection.collection, &presented).await?;
        let turn = db.write(meta, move |tx| turn(tx, &wanted, &presented, &rotating, &place)).await?.value;
        match turn {
            Turn::Rotated(session, account) => {
                self.admit(db, &collection, &account, &scope.request).await?;
                self.session_grant(db, &collection, account, session)
            }
            Turn::Reused(session, account) => {
                let who = Who::Account(&collection.collection, &account);
                let event = Event { event: "refresh", method: "", outcome: Outcome::Reused, who };
                self.note(db, &scope.meta, event);
                tracing::warn!(tenant.id = %db.id(), session.id = %session, "a refresh token was used twice; the session was ended");
                Err(AuthError::RefreshReused { session })
            }
            Turn::Refused => Err(AuthError::Revoked),
        }
    }

    /// The meta of a write for whoever presents a refresh token: as the account, once the family secret shows it is theirs.
    async fn meta_of(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        accounts: &Collection,
        presented: &Presented,
    ) -> Result<WriteMeta, AuthError> {
        let sessions = sessions(&db.schema())?;
        let row = self.known_record(db, &sessions, presented.session.as_str()).await?;
        let text = |row: &AuthRecord, name: &str| rows::text(&row.collection, &row.record, name).to_owned();
        let theirs = row.filter(|row| {
            opaque::matches_digest(presented.family.expose(), &text(row, "familyHash"))
                && text(row, "collectionRef") == accounts.id.as_str()
        });
        Ok(match theirs {
            Some(row) => as_record(&scope.meta, accounts, &text(&row, "recordRef")),
            None => scope.meta.clone(),
        })
    }

    /// The sessions of `identity`, or of account `of` (collection and record id) for a superuser.
    pub async fn list_sessions(
        &self,
        scope: &AuthScope,
        identity: &Identity,
        of: Option<(&str, &str)>,
    ) -> Result<Vec<SessionInfo>, AuthError> {
        let (db, owner) = self.owner(scope, identity, of)?;
        let current = identity.session.clone();
        db.read(move |reader| {
            let collection = sessions(reader.schema())?;
            let rows = of_account(reader, &collection, &owner.0, &owner.1)?;
            Ok::<_, AuthError>(rows.iter().map(|row| info(&collection, row, current.as_deref())).collect())
        })
        .await
    }

    /// Ends one session of `identity`, or any session for a superuser.
    pub async fn revoke_session(&self, scope: &AuthScope, identity: &Identity, session: &str) -> Result<(), AuthError> {
        let account = identity.account().ok_or(AuthError::LoginRequired)?;
        let id = account::record_id(session).ok_or(AuthError::NotFound("session"))?;
        let owner = (!identity.is_superuser()).then(|| (account.collection.id.clone(), account.record.id.clone()));
        let ended = scope.tenant.write(scope.meta.clone(), {
            let id = id.clone();
            move |tx| end(tx, &id, owner.as_ref())
        });
        if ended.await?.value {
            return Ok(());
        }
        let control = self.0.registry.control();
        if identity.is_superuser()
            && scope.tenant.id() != control.id()
            && control.write(scope.meta.clone(), move |tx| end(tx, &id, None)).await?.value
        {
            return Ok(());
        }
        Err(AuthError::NotFound("session"))
    }

    /// Ends the session of `identity`. A token without a session cannot be ended alone: the account's token key is
    /// renewed, which ends all of them.
    pub async fn log_out(&self, scope: &AuthScope, identity: &Identity) -> Result<(), AuthError> {
        let account = identity.account().ok_or(AuthError::LoginRequired)?;
        match identity.session.as_deref().and_then(account::record_id) {
            Some(session) => {
                let db = if identity.is_superuser() { self.0.registry.control() } else { &scope.tenant };
                db.write(scope.meta.clone(), move |tx| end(tx, &session, None)).await?;
                self.note_logout(db, scope, account);
                Ok(())
            }
            None if identity.impersonator.is_some() => Ok(()),
            None => self.log_out_everywhere(scope, identity, Arc::clone(account)).await,
        }
    }

    /// Ends every token and session of the account of `identity`.
    pub async fn log_out_all(&self, scope: &AuthScope, identity: &Identity) -> Result<(), AuthError> {
        let account = identity.account().ok_or(AuthError::LoginRequired)?;
        self.log_out_everywhere(scope, identity, Arc::clone(account)).await
    }

    async fn log_out_everywhere(
        &self,
        scope: &AuthScope,
        identity: &Identity,
        account: Arc<AuthRecord>,
    ) -> Result<(), AuthError> {
        let db = if identity.is_superuser() { self.0.registry.control() } else { &scope.tenant };
        let key = opaque::generate_token_key(self.0.random.as_ref());
        let done = db.write(scope.meta.clone(), move |tx| {
            lock_out(tx, &account, key)?;
            Ok::<_, AuthError>(account)
        });
        let account = done.await?.value;
        self.note_logout(db, scope, &account);
        Ok(())
    }

    fn note_logout(&self, db: &TenantDb, scope: &AuthScope, account: &AuthRecord) {
        let who = Who::Account(&account.collection, account.record.id.as_str());
        self.note(db, &scope.meta, Event { event: "logout", method: "", outcome: Outcome::Ok, who });
    }

    fn owner<'scope>(
        &'scope self,
        scope: &'scope AuthScope,
        identity: &Identity,
        of: Option<(&str, &str)>,
    ) -> Result<(&'scope TenantDb, (CollectionId, RecordId)), AuthError> {
        let own = identity.account().ok_or(AuthError::LoginRequired)?;
        let control = self.0.registry.control();
        match of {
            None if identity.is_superuser() => Ok((control, (own.collection.id.clone(), own.record.id.clone()))),
            None => Ok((&scope.tenant, (own.collection.id.clone(), own.record.id.clone()))),
            Some((collection, record)) => {
                let db = self.db(scope, collection);
                let collection = AuthCollection::find(&db.schema(), collection)?.collection;
                let record = account::record_id(record).ok_or(AuthError::NotFound("account"))?;
                let is_own = own.collection.id == collection.id && own.record.id == record;
                if is_own || identity.is_superuser() {
                    Ok((db, (collection.id.clone(), record)))
                } else {
                    Err(AuthError::SuperuserRequired)
                }
            }
        }
    }
}

/// Ends every session of one account; returns how many there were.
pub(super) fn end_all(tx: &mut WriteTx<'_>, collection: &CollectionId, record: &RecordId) -> Result<usize, AuthError> {
    let sessions = sessions(tx.schema())?;
    let rows = of_account(tx, &sessions, collection, record)?;
    for row in &rows {
        tx.delete(&sessions, &row.id)?;
    }
    Ok(rows.len())
}

/// Ends every token, session, half-finished login and one-time code of `account`.
pub(super) fn lock_out(tx: &mut WriteTx<'_>, account: &AuthRecord, token_key: String) -> Result<(), AuthError> {
    let changes = rows::changes_at(&account.collection, &[("tokenKey", Stored::from(token_key))], tx.now_ms());
    tx.update(&account.collection, &account.record.id, &changes)?;
    end_all(tx, &account.collection.id, &account.record.id)?;
    factors::end_halves(tx, account)?;
    otp::forget(tx, account)
}

/// Ends every session of `account` but `kept`, which goes on under the new `token_key`.
pub(super) fn end_others(
    tx: &mut WriteTx<'_>,
    account: &AuthRecord,
    kept: Option<&str>,
    token_key: &str,
) -> Result<(), AuthError> {
    let sessions = sessions(tx.schema())?;
    for row in of_account(tx, &sessions, &account.collection.id, &account.record.id)? {
        if kept == Some(row.id.as_str()) {
            let values = [("keyHash", Stored::from(opaque::digest_hex(token_key)))];
            tx.update(&sessions, &row.id, &rows::changes(&sessions, &values))?;
        } else {
            tx.delete(&sessions, &row.id)?;
        }
    }
    Ok(())
}

fn end(tx: &mut WriteTx<'_>, id: &RecordId, owner: Option<&(CollectionId, RecordId)>) -> Result<bool, AuthError> {
    let collection = sessions(tx.schema())?;
    let Some(row) = tx.find_record(&collection, id.as_str())? else { return Ok(false) };
    let text = |name: &str| rows::text(&collection, &row, name);
    if owner.is_some_and(|(c, r)| text("collectionRef") != c.as_str() || text("recordRef") != r.as_str()) {
        return Ok(false);
    }
    tx.delete(&collection, id)?;
    Ok(true)
}

/// The one step of the family: rotate, end, or refuse.
fn turn(
    tx: &mut WriteTx<'_>,
    accounts: &Arc<Collection>,
    presented: &Presented,
    rotating: &Secret,
    place: &Place,
) -> Result<Turn, AuthError> {
    let collection = sessions(tx.schema())?;
    let now_ms = tx.now_ms();
    let Some(row) = tx.find_record(&collection, presented.session.as_str())? else { return Ok(Turn::Refused) };
    let text = |name: &str| rows::text(&collection, &row, name);
    if !opaque::matches_digest(presented.family.expose(), text("familyHash"))
        || text("collectionRef") != accounts.id.as_str()
    {
        return Ok(Turn::Refused);
    }
    if !opaque::matches_digest(presented.rotating.expose(), text("currentHash")) {
        tx.delete(&collection, &row.id)?;
        return Ok(Turn::Reused(row.id.to_string(), text("recordRef").to_owned()));
    }
    let opened_ms = rows::moment_ms(&collection, &row, "created").unwrap_or(0);
    let expires_ms = rows::moment_ms(&collection, &row, "expires").unwrap_or(0);
    let account = account::read(tx, accounts, text("recordRef"))?;
    let account = account.filter(|account| opaque::matches_digest(account::token_key(account), text("keyHash")));
    let Some(account) = account.filter(|_| expires_ms > now_ms) else {
        tx.delete(&collection, &row.id)?;
        return Ok(Turn::Refused);
    };
    let mut values = vec![
        ("currentHash", Stored::from(opaque::digest_hex(rotating.expose()))),
        ("rotation", Stored::Real(rows::number(&collection, &row, "rotation") + 1.0)),
    ];
    values.extend(place.values(now_ms, opened_ms));
    tx.update(&collection, &row.id, &rows::changes_at(&collection, &values, now_ms))?;
    let refresh_token = Secret::new(format!("{PREFIX}{}.{}.{}", row.id, presented.family.expose(), rotating.expose()));
    let expires_in_s = u64::try_from((expiry_ms(now_ms, opened_ms) - now_ms) / 1_000).unwrap_or(0);
    Ok(Turn::Rotated(SessionGrant { id: Arc::from(row.id.as_str()), refresh_token, expires_in_s }, account))
}

/// Ends what has expired and, beyond the bound, what was used least recently.
fn make_room(
    tx: &mut WriteTx<'_>,
    collection: &Arc<Collection>,
    account: &AuthRecord,
    now_ms: i64,
) -> Result<(), AuthError> {
    let mut rows = of_account(tx, collection, &account.collection.id, &account.record.id)?;
    let last_used = |row: &RecordImage| rows::moment_ms(collection, row, "lastUsed").unwrap_or(0);
    rows.sort_by_key(|row| std::cmp::Reverse(last_used(row)));
    for (at, row) in rows.iter().enumerate() {
        let expired = rows::moment_ms(collection, row, "expires").is_none_or(|expires| expires <= now_ms);
        if expired || at + 1 >= limits::SESSIONS_PER_ACCOUNT_MAX {
            tx.delete(collection, &row.id)?;
        }
    }
    Ok(())
}

fn of_account(
    reader: &Reader<'_>,
    collection: &Arc<Collection>,
    account_collection: &CollectionId,
    record: &RecordId,
) -> Result<Vec<RecordImage>, StoreError> {
    let owner = [("collectionRef", account_collection.as_str()), ("recordRef", record.as_str())];
    rows::find_by_texts(reader, collection, &owner)
}

/// When the session `id` was opened; `None` if there is none.
pub(super) fn began_ms(reader: &Reader<'_>, id: &str) -> Result<Option<i64>, AuthError> {
    let sessions = sessions(reader.schema())?;
    let row = reader.find_record(&sessions, id)?;
    Ok(row.and_then(|row| rows::moment_ms(&sessions, &row, "created")))
}

fn sessions(schema: &Schema) -> Result<Arc<Collection>, AuthError> {
    schema.find(SESSIONS).cloned().ok_or_else(|| AuthError::UnknownCollection(SESSIONS.to_owned()))
}

fn expiry_ms(now_ms: i64, opened_ms: i64) -> i64 {
    let after = |from: i64, seconds: u64| from.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX) * 1_000);
    after(now_ms, limits::SESSION_IDLE_S).min(after(opened_ms, limits::SESSION_AGE_MAX_S))
}

fn info(collection: &Collection, row: &RecordImage, current: Option<&str>) -> SessionInfo {
    let text = |name: &str| rows::text(collection, row, name).to_owned();
    SessionInfo {
        id: Arc::from(row.id.as_str()),
        created: text("created"),
        last_used: text("lastUsed"),
        expires: text("expires"),
        ip: text("ip"),
        user_agent: text("userAgent"),
        current: current == Some(row.id.as_str()),
    }
}

/// From where a session is used.
struct Place {
    ip: Arc<str>,
    user_agent: String,
}

impl Place {
    fn of(scope: &AuthScope) -> Self {
        let ip = scope.meta.ip.clone().unwrap_or_else(|| Arc::from(""));
        Self { ip, user_agent: scope.user_agent.chars().take(300).collect() }
    }

    fn values(&self, now_ms: i64, opened_ms: i64) -> [(&'static str, Stored); 4] {
        [
            ("ip", Stored::Text(Arc::clone(&self.ip))),
            ("userAgent", Stored::text(&self.user_agent)),
            ("lastUsed", Stored::from(datetime::format_ms(now_ms))),
            ("expires", Stored::from(datetime::format_ms(expiry_ms(now_ms, opened_ms)))),
        ]
    }
}

/// A refresh token taken apart; nothing about it is believed yet.
struct Presented {
    session: RecordId,
    family: Secret,
    rotating: Secret,
}

impl Presented {
    fn parse(token: &Secret) -> Option<Self> {
        let rest = token.expose().strip_prefix(PREFIX).filter(|rest| rest.len() <= 256)?;
        let mut parts = rest.split('.');
        let (session, family, rotating) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || family.is_empty() || rotating.is_empty() {
            return None;
        }
        Some(Self { session: account::record_id(session)?, family: family.into(), rotating: rotating.into() })
    }
}

/// The meta of a write made by somebody who just proved to be `account`.
pub(super) fn as_account(meta: &WriteMeta, account: &AuthRecord) -> WriteMeta {
    as_record(meta, &account.collection, account.record.id.as_str())
}

/// [`as_account`] where only the account's id is at hand.
pub(super) fn as_record(meta: &WriteMeta, accounts: &Collection, id: &str) -> WriteMeta {
    let actor = match accounts.name.as_str() {
        SUPERUSERS => Actor::Superuser(Arc::from(id)),
        name => Actor::Record(Arc::from(name), Arc::from(id)),
    };
    WriteMeta { actor, ..meta.clone() }
}
