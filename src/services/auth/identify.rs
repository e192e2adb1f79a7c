//! Who a request comes from: its token, checked against the account and the session as they stand now.
//!
//! Keeps true: a token is accepted by the tenant it names and by no other; a rotated token key, a deleted or suspended
//! account and an ended session refuse the next request, also those of a superuser who acts through the account;
//! superusers' tokens name the control database and hold on every tenant.
//! What was checked once is not checked again while nothing it rests on has moved ([`Vouch`]).
//! Does not do: what the caller may do (rules decide), reading the header out of a request.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::impersonation::Impersonator;
use super::known::{Key, Seen};
use super::{Auth, Caller, Identity, suspension};
use crate::kernel::ident::{CollectionId, RecordId};
use crate::query::request::{AuthRecord, RequestContext};
use crate::schema::Collection;
use crate::secrets::token::{Claims, TokenError, TokenKind, UnverifiedToken};
use crate::services::tenants::rows;
use crate::services::tenants::system::{API_KEYS, SESSIONS, SUPERUSERS};
use crate::store::{StoreError, TenantDb};
use std::net::IpAddr;
use std::sync::Arc;

/// Evidence that an identity still holds: everything it rests on is what was checked, and time is left.
#[derive(Debug, Clone)]
pub struct Vouch {
    seen: Vec<Seen>,
    until_ms: i64,
}

impl Auth {
    /// Vouches for an identity that a token just proved at `tenant`; `None` where nothing cheap can tell later.
    ///
    /// API keys are left out: each use of one is checked against its addresses and noted.
    pub fn vouch(&self, tenant: &TenantDb, identity: &Identity) -> Option<Vouch> {
        let account = identity.account().filter(|_| identity.key.is_none())?;
        let control = self.0.registry.control();
        let db = if identity.is_superuser() { control } else { tenant };
        let mut vouch = Vouch { seen: Vec::new(), until_ms: identity.expires_s.saturating_mul(1_000) };
        let present = self.see(db, &account.collection.id, &account.record.id, &mut vouch)?;
        if !Arc::ptr_eq(&present, account) {
            return None;
        }
        self.see_standing(db, account, identity.session.as_deref(), &mut vouch)?;
        if let Some(by) = identity.impersonator.as_ref().filter(|by| !by.is_node()) {
            let superusers = control.schema().find(SUPERUSERS)?.id.clone();
            let superuser = self.see(control, &superusers, &account::record_id(&by.id)?, &mut vouch)?;
            // Looked at again, because what is there now need not be what was checked.
            if !by.is(&superuser) {
                return None;
            }
            self.see_standing(control, &superuser, by.session.as_deref(), &mut vouch)?;
        }
        Some(vouch)
    }

    /// A record in memory, noted in `vouch`.
    fn see(
        &self,
        db: &TenantDb,
        collection: &CollectionId,
        record: &RecordId,
        vouch: &mut Vouch,
    ) -> Option<Arc<AuthRecord>> {
        let key = Key { tenant: db.id().clone(), collection: collection.clone(), record: record.clone() };
        let (present, seen) = self.0.known.find_seen(&key)?;
        vouch.seen.push(seen);
        present
    }

    /// That `account` is not suspended, and until when its session lasts.
    fn see_standing(
        &self,
        db: &TenantDb,
        account: &AuthRecord,
        session: Option<&str>,
        vouch: &mut Vouch,
    ) -> Option<()> {
        if let Some(key) = suspension::key(db, account) {
            let (row, seen) = self.0.known.find_seen(&key)?;
            if row.is_some_and(|row| suspension::is_in_force(&row, self.0.clock.now_ms())) {
                return None;
            }
            vouch.seen.push(seen);
        }
        if let Some(session) = session {
            let sessions = db.schema().find(SESSIONS)?.id.clone();
            let row = self.see(db, &sessions, &account::record_id(session)?, vouch)?;
            vouch.until_ms = vouch.until_ms.min(session_end_ms(&row, account)?);
        }
        Some(())
    }

    /// Whether what was vouched for still holds at `now_ms`. `false` means: check the token again.
    pub fn holds(&self, vouch: &Vouch, now_ms: i64) -> bool {
        now_ms < vouch.until_ms && vouch.seen.iter().all(|seen| self.0.known.stands(*seen))
    }

    /// Who sent `header` (the value of `Authorization`, with or without `Bearer`) to `tenant`.
    ///
    /// No header is [`Caller::Anonymous`]. A token that does not hold is an error; PocketBase treats such a request as
    /// anonymous, and whether to do so is the transport's choice.
    pub async fn authenticate(&self, tenant: &TenantDb, header: Option<&str>) -> Result<Identity, AuthError> {
        self.authenticate_from(tenant, header, None, RequestContext::default).await
    }

    /// [`Auth::authenticate`] for a caller whose address is known; keys that are bound to addresses need it, and the
    /// `authRule` is asked about a key's owner with the `request` it came with.
    pub async fn authenticate_from(
        &self,
        tenant: &TenantDb,
        header: Option<&str>,
        ip: Option<IpAddr>,
        request: impl FnOnce() -> RequestContext,
    ) -> Result<Identity, AuthError> {
        let Some(token) = header.map(strip_bearer).filter(|token| !token.is_empty()) else {
            return Ok(Identity::anonymous());
        };
        if Self::is_key(token) {
            return self.check_key(tenant, token, ip, &request()).await;
        }
        let (claims, account) = self.check_token(tenant, token, TokenKind::Auth).await?;
        Ok(self.identity_of(&claims, account))
    }

    fn identity_of(&self, claims: &Claims, account: Arc<AuthRecord>) -> Identity {
        Identity {
            caller: if is_superuser(claims, self) { Caller::Superuser(account) } else { Caller::Record(account) },
            session: claims.sid.as_deref().map(Arc::from),
            impersonator: Impersonator::of(claims).map(Arc::new),
            key: None,
            refreshable: claims.refreshable,
            expires_s: claims.exp,
            login_s: claims.login,
        }
    }

    /// Who may read protected files with `token`, which `POST /api/files/token` handed out.
    ///
    /// It ends with whatever it was made with: the session, the API key, the superuser who acts through the account.
    pub async fn authenticate_file_token(&self, tenant: &TenantDb, token: &str) -> Result<Identity, AuthError> {
        let (claims, account) = self.check_token(tenant, token, TokenKind::File).await?;
        let mut identity = self.identity_of(&claims, account);
        if let Some(made_with) = &claims.key {
            let db = if identity.is_superuser() { self.0.registry.control() } else { tenant };
            identity.key = Some(Arc::new(self.key_of_file_token(db, made_with).await?));
        }
        Ok(identity)
    }

    /// Whether what `identity` came with still holds: the account and its token key, the session, the API key, whoever acts
    /// through it. For requests that last; that a token expires meanwhile does not end them.
    pub async fn still_holds(&self, tenant: &TenantDb, identity: &Identity) -> Result<bool, AuthError> {
        let Some(account) = identity.account() else { return Ok(true) };
        let db = if identity.is_superuser() { self.0.registry.control() } else { tenant };
        if !self.still_stands(db, identity, account).await? {
            return Ok(false);
        }
        let checked = match &identity.impersonator {
            Some(by) => self.check_impersonator(by).await,
            None => Ok(()),
        };
        match checked {
            Err(AuthError::Revoked) => Ok(false),
            other => other.map(|()| true),
        }
    }

    async fn still_stands(
        &self,
        db: &TenantDb,
        identity: &Identity,
        account: &Arc<AuthRecord>,
    ) -> Result<bool, AuthError> {
        let schema = db.schema();
        let Some(collection) = schema.find_id(&account.collection.id) else { return Ok(false) };
        let Some(now) = self.known_record(db, collection, account.record.id.as_str()).await? else { return Ok(false) };
        if self.is_suspended(db, &now).await? {
            return Ok(false);
        }
        let owns = |row: &AuthRecord| {
            let text = |name: &str| rows::text(&row.collection, &row.record, name);
            text("collectionRef") == account.collection.id.as_str() && text("recordRef") == account.record.id.as_str()
        };
        let (name, id) = match (&identity.key, &identity.session) {
            (Some(key), _) => (API_KEYS, &key.id),
            (None, _) if account::token_key(&now) != account::token_key(account) => return Ok(false),
            (None, Some(session)) => (SESSIONS, session),
            (None, None) => return Ok(true),
        };
        let Some(rows) = schema.find(name) else { return Ok(false) };
        let shown = |row: &AuthRecord| identity.key.as_ref().is_none_or(|key| key.is_of(row));
        Ok(self.known_record(db, rows, id).await?.is_some_and(|row| owns(&row) && shown(&row)))
    }

    /// Checks signature, audience, expiry and, where the token belongs to one, the session.
    pub(super) async fn check_token(
        &self,
        tenant: &TenantDb,
        token: &str,
        kind: TokenKind,
    ) -> Result<(Claims, Arc<AuthRecord>), AuthError> {
        let token = UnverifiedToken::parse(token)?;
        let hint = token.hint();
        let control = self.0.registry.control();
        let db = if hint.aud == control.id().as_str() { control } else { tenant };
        if hint.aud != db.id().as_str() {
            return Err(TokenError::Audience.into());
        }
        let id = CollectionId::parse(&hint.collection_id).map_err(|_| TokenError::Malformed)?;
        let collection = AuthCollection::find_id(&db.schema(), &id).ok_or(AuthError::Revoked)?;
        let account = self.known_record(db, &collection.collection, &hint.id).await?.ok_or(AuthError::Revoked)?;
        let key = self.token_key(db, &collection, &account, kind)?;
        let claims = token.verify(&key, kind, db.id().as_str(), self.0.clock.now_ms())?;
        if let Some(session) = &claims.sid {
            self.check_session(db, &account, session).await?;
        }
        if self.is_suspended(db, &account).await? {
            return Err(AuthError::Revoked);
        }
        if let Some(by) = Impersonator::of(&claims) {
            self.check_impersonator(&by).await?;
        }
        Ok((claims, account))
    }

    pub(super) async fn check_session(
        &self,
        db: &TenantDb,
        account: &AuthRecord,
        session: &str,
    ) -> Result<(), AuthError> {
        let sessions = db.schema().find(SESSIONS).cloned().ok_or(AuthError::Revoked)?;
        let row = self.known_record(db, &sessions, session).await?.ok_or(AuthError::Revoked)?;
        let end_ms = session_end_ms(&row, account).ok_or(AuthError::Revoked)?;
        if end_ms > self.0.clock.now_ms() { Ok(()) } else { Err(AuthError::Revoked) }
    }

    /// A record from memory if it is known and of the present schema, from the file otherwise.
    pub(super) async fn known_record(
        &self,
        db: &TenantDb,
        collection: &Arc<Collection>,
        id: &str,
    ) -> Result<Option<Arc<AuthRecord>>, AuthError> {
        let Ok(record) = RecordId::parse(id) else { return Ok(None) };
        let key = Key { tenant: db.id().clone(), collection: collection.id.clone(), record };
        let ticket = match self.0.known.find(&key) {
            Ok(Some(known)) if Arc::ptr_eq(&known.collection, collection) => return Ok(Some(known)),
            // Known under an older schema: read again, under a ticket that is at least as old as the read.
            Ok(_) => self.0.known.ticket(&key),
            Err(ticket) => ticket,
        };
        let wanted = Arc::clone(collection);
        let id = id.to_owned();
        let read =
            db.read(move |reader| account::read(reader, &wanted, &id)).await.map_err(|error: StoreError| error)?;
        if let Some(record) = &read {
            self.0.known.keep(key, ticket, Some(Arc::clone(record)));
        }
        Ok(read)
    }
}

/// When the session in `row` ends, if it is one of `account`.
fn session_end_ms(row: &AuthRecord, account: &AuthRecord) -> Option<i64> {
    let text = |name: &str| rows::text(&row.collection, &row.record, name);
    let own =
        text("collectionRef") == account.collection.id.as_str() && text("recordRef") == account.record.id.as_str();
    own.then(|| rows::moment_ms(&row.collection, &row.record, "expires").unwrap_or(0))
}

fn is_superuser(claims: &Claims, auth: &Auth) -> bool {
    let control = auth.0.registry.control();
    claims.aud == control.id().as_str()
        && control.schema().find(SUPERUSERS).is_some_and(|superusers| superusers.id.as_str() == claims.collection_id)
}

/// The token of an `Authorization` header, whose scheme `Bearer` is optional.
pub(super) fn strip_bearer(header: &str) -> &str {
    let header = header.trim();
    match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => header,
    }
}
