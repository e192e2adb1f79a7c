//! An account's owner changes how the account is entered: who counts as the owner, and what ends with such a change.
//!
//! Keeps true: keys and impersonators are not owners; where the account has a password, the owner shows it again; a change
//! of factors renews the token key and ends every other session (OWASP ASVS 5, 7.4.3), while the one that made the change
//! gets a token that goes on. Does not do: any factor itself.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::login::Grant;
use super::{Auth, AuthScope, Identity, factors, otp, sessions};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::secrets::password::Verdict;
use crate::secrets::token::{self, TokenKind};
use crate::services::login_guard;
use crate::services::tenants::rows;
use crate::store::{TenantDb, WriteTx};
use std::sync::Arc;

/// The owner of an account in person, where the account lives.
pub(super) struct Owner<'scope> {
    pub(super) db: &'scope TenantDb,
    pub(super) collection: AuthCollection,
    pub(super) account: Arc<AuthRecord>,
    /// The session the request belongs to.
    session: Option<Arc<str>>,
    /// When the long token's holder logged in, without a session.
    login_s: Option<i64>,
}

impl Owner<'_> {
    /// What giving the account a new token key needs inside a transaction.
    pub(super) fn renewal(&self, auth: &Auth) -> Renewal {
        Renewal {
            account: Arc::clone(&self.account),
            session: self.session.clone(),
            token_key: opaque::generate_token_key(auth.0.random.as_ref()),
        }
    }
}

/// A new token key and the one session that outlives it.
pub(super) struct Renewal {
    account: Arc<AuthRecord>,
    session: Option<Arc<str>>,
    token_key: String,
}

impl Renewal {
    /// Ends every token and session of the account but the one that asked, and every half-finished login.
    pub(super) fn run(&self, tx: &mut WriteTx<'_>) -> Result<(), AuthError> {
        let collection = Arc::clone(&self.account.collection);
        let changes = rows::changes_at(&collection, &[("tokenKey", Stored::text(&self.token_key))], tx.now_ms());
        tx.update(&collection, &self.account.record.id, &changes)?;
        sessions::end_others(tx, &self.account, self.session.as_deref(), &self.token_key)?;
        factors::end_halves(tx, &self.account)?;
        otp::forget(tx, &self.account)
    }
}

impl Auth {
    /// The owner that `identity` is, as the account stands now.
    pub(super) async fn owner_of<'scope>(
        &'scope self,
        scope: &'scope AuthScope,
        collection: &str,
        identity: &Identity,
    ) -> Result<Owner<'scope>, AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        let account = identity.account().ok_or(AuthError::LoginRequired)?;
        let in_person = identity.key.is_none() && identity.impersonator.is_none();
        if account.collection.id != collection.collection.id || !in_person {
            return Err(AuthError::Forbidden);
        }
        let (wanted, id) = (Arc::clone(&collection.collection), account.record.id.to_string());
        // The node's own key is a superuser without a record; it owns no account.
        let account = db.read(move |reader| account::read(reader, &wanted, &id)).await?.ok_or(AuthError::Forbidden)?;
        Ok(Owner { db, collection, account, session: identity.session.clone(), login_s: identity.login_s })
    }

    /// Whether the owner logged in a few minutes ago, by a session or a long token, which is as good as showing a password.
    ///
    /// Extending a token or a session is no login.
    pub(super) async fn has_just_come(&self, owner: &Owner<'_>) -> Result<bool, AuthError> {
        let came_ms = match owner.session.clone() {
            Some(session) => owner.db.read(move |reader| sessions::began_ms(reader, &session)).await?,
            None => owner.login_s.map(|login_s| login_s.saturating_mul(1_000)),
        };
        let age_ms = came_ms.map(|came_ms| self.0.clock.now_ms().saturating_sub(came_ms));
        Ok(age_ms.is_some_and(|age_ms| age_ms < limits::SESSION_FRESH_MS))
    }

    /// Refuses unless the owner shows the password, where the account can be entered by one.
    pub(super) async fn prove(
        &self,
        owner: &Owner<'_>,
        scope: &AuthScope,
        password: Option<Secret>,
    ) -> Result<(), AuthError> {
        let stored = account::password_hash(&owner.account);
        if stored.is_none() || !owner.collection.options.password_enabled {
            return Ok(());
        }
        let refused = || AuthError::field("password", "validation_invalid_password", "Missing or invalid password.");
        let password = password.filter(|password| !password.is_empty()).ok_or_else(refused)?;
        let guess = self.charge(owner.db, scope, &owner.collection, owner.account.record.id.as_str())?;
        let lane = login_guard::lane(scope.meta.ip.as_deref());
        match guess.settle(self.0.hasher.verify_in(lane, password, stored).await)? {
            Verdict::Mismatch => Err(refused()),
            Verdict::Match { .. } => Ok(()),
        }
    }

    /// The token with which the owner goes on after a renewal: of the same session, or a long one.
    pub(super) async fn go_on(&self, owner: Owner<'_>) -> Result<Grant, AuthError> {
        let Owner { db, collection, account, session, login_s } = owner;
        let (wanted, id) = (Arc::clone(&collection.collection), account.record.id.to_string());
        let account = db.read(move |reader| account::read(reader, &wanted, &id)).await?.ok_or(AuthError::Revoked)?;
        let Some(session) = session else {
            return self.long_grant(db, &collection, account, login_s);
        };
        let expires_in_s = limits::SESSION_TOKEN_S.min(collection.duration_s(TokenKind::Auth));
        let mut claims = self.claims(db, &account, TokenKind::Auth, expires_in_s);
        claims.sid = Some(session.to_string());
        let token = Secret::new(token::sign(&claims, &self.token_key(db, &collection, &account, TokenKind::Auth)?));
        Ok(Grant { token, expires_in_s, account, session: None })
    }
}
