//! Coming in with a password, and staying in.
//!
//! Keeps true: a login of an unknown account does the same work as one with a wrong password; a hash made at an older
//! cost is replaced while the password is at hand; `authRule` is asked after the credentials held, never before.
//! Does not do: second factors (`factors`), OAuth2.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::events::Who;
use super::factors::{Factor, LoginWish};
use super::sessions;
use super::{Auth, AuthScope, Identity};
use crate::kernel::error::Detail;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::request::{AuthRecord, RequestContext};
use crate::secrets::Secret;
use crate::secrets::password::Verdict;
use crate::secrets::token::{self, Claims, TokenKind};
use crate::services::login_guard::{self, Guess};
use crate::services::tenants::rows;
use crate::store::{StoreError, TenantDb, WriteMeta};
use std::sync::Arc;

/// A login with a password.
#[derive(Debug, Clone)]
pub struct PasswordLogin {
    /// E-mail address or another identity field's value.
    pub identity: String,
    /// The password.
    pub password: Secret,
    /// The one field to look in; `None` looks in all identity fields.
    pub identity_field: Option<String>,
}

/// What kind of token a login gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenMode {
    /// One long token, as PocketBase gives.
    Long,
    /// A session: a token of minutes and a rotating refresh token.
    Session,
}

/// A successful login.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The token for `Authorization`.
    pub token: Secret,
    /// Seconds the token lives.
    pub expires_in_s: u64,
    /// The account.
    pub account: Arc<AuthRecord>,
    /// The session, if one was opened or extended.
    pub session: Option<SessionGrant>,
}

/// The part of a [`Grant`] that only sessions have.
#[derive(Debug, Clone)]
pub struct SessionGrant {
    /// The session's id.
    pub id: Arc<str>,
    /// Good for exactly one refresh.
    pub refresh_token: Secret,
    /// Seconds the refresh token lives.
    pub expires_in_s: u64,
}

/// How one may log in to a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthMethods {
    /// Whether passwords are allowed.
    pub password: bool,
    /// The fields a password login looks in.
    pub identity_fields: Vec<Arc<str>>,
    /// Whether one-time codes are allowed, and for how many seconds they live.
    pub otp: Option<u64>,
    /// Whether a second factor is asked for, and for how many seconds the first one holds.
    pub mfa: Option<u64>,
    /// Whether accounts may have an authenticator app as their second factor.
    pub totp: bool,
    /// Whether accounts may have passkeys.
    pub passkey: bool,
}

impl Auth {
    /// How one may log in to `collection`.
    pub fn auth_methods(&self, scope: &AuthScope, collection: &str) -> Result<AuthMethods, AuthError> {
        let collection = AuthCollection::find(&self.db(scope, collection).schema(), collection)?;
        let group =
            |name: &str, seconds| collection.is_enabled(name).then(|| collection.number(name, "duration", seconds));
        Ok(AuthMethods {
            password: collection.options.password_enabled,
            identity_fields: collection.options.identity_fields.clone(),
            otp: group("otp", 180),
            mfa: group("mfa", limits::MFA_S),
            totp: collection.is_enabled("totp"),
            passkey: collection.is_enabled("passkey"),
        })
    }

    /// Logs in with a password.
    pub async fn auth_with_password(
        &self,
        scope: &AuthScope,
        collection: &str,
        login: PasswordLogin,
        wish: impl Into<LoginWish>,
    ) -> Result<Grant, AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        if !collection.options.password_enabled {
            return Err(AuthError::MethodDisabled("password"));
        }
        check_form(&login)?;
        let checked = self.guess_password(db, scope, &collection, &login).await;
        let who = Who::Identity(&collection, &login.identity);
        let (account, needs_rehash) = self.note_login(db, &scope.meta, Factor::Password, who, checked)?;
        if needs_rehash {
            self.rehash(db, &scope.meta, &account, login.password).await;
        }
        self.enter(db, scope, &collection, account, Factor::Password, wish.into()).await
    }

    /// [`Auth::check_password`], charged where it fails.
    async fn guess_password(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        login: &PasswordLogin,
    ) -> Result<(Arc<AuthRecord>, bool), AuthError> {
        let guess = self.charge(db, scope, collection, &login.identity)?;
        charged_if_wrong(guess, self.check_password(db, scope, collection, login).await)
    }

    /// The account whose password this is, and whether its hash is of another cost than today's.
    async fn check_password(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        login: &PasswordLogin,
    ) -> Result<(Arc<AuthRecord>, bool), AuthError> {
        let account = find_identity(db, collection, login).await?;
        let stored = account.as_deref().and_then(account::password_hash);
        let lane = login_guard::lane(scope.meta.ip.as_deref());
        match (self.0.hasher.verify_in(lane, login.password.clone(), stored).await?, account) {
            (Verdict::Match { needs_rehash }, Some(account)) => Ok((account, needs_rehash)),
            _ => Err(AuthError::Credentials),
        }
    }

    /// Charges one guess at `identity` to where it comes from.
    pub(super) fn charge(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        identity: &str,
    ) -> Result<Guess<'_>, AuthError> {
        let now_ms = self.0.clock.now_ms();
        let ip = scope.meta.ip.as_deref();
        Ok(self.0.guard.charge(ip, db.id(), &collection.collection.id, identity, now_ms)?)
    }

    /// Extends the token of `identity`; one that must not be extended comes back as it is.
    pub async fn auth_refresh(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
        presented: &Secret,
    ) -> Result<Grant, AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        let account = identity.account().ok_or(AuthError::LoginRequired)?;
        if account.collection.id != collection.collection.id {
            return Err(AuthError::Forbidden);
        }
        self.admit(db, &collection, account, &scope.request).await?;
        let now_s = self.0.clock.now_ms().div_euclid(1_000);
        // The token of a session is extended by its refresh token alone; else it would outlive the rotation.
        if identity.session.is_some() || !identity.refreshable {
            let left = u64::try_from(identity.expires_s.saturating_sub(now_s)).unwrap_or(0);
            return Ok(Grant {
                token: Secret::new(super::identify::strip_bearer(presented.expose())),
                expires_in_s: left,
                account: Arc::clone(account),
                session: None,
            });
        }
        self.long_grant(db, &collection, Arc::clone(account), identity.login_s)
    }

    /// A short token that reads protected files as `identity`, and ends with what that came with.
    pub async fn file_token(&self, scope: &AuthScope, identity: &Identity) -> Result<Secret, AuthError> {
        let account = identity.account().ok_or(AuthError::LoginRequired)?;
        let db = if identity.is_superuser() { self.0.registry.control() } else { &scope.tenant };
        let collection = AuthCollection::of(&account.collection).ok_or(AuthError::LoginRequired)?;
        let mut claims = self.claims(db, account, TokenKind::File, collection.duration_s(TokenKind::File));
        claims.sid = identity.session.as_deref().map(str::to_owned);
        if let Some(by) = &identity.impersonator {
            by.sign(&mut claims);
        }
        if let Some(key) = &identity.key {
            claims.key = Some(self.file_token_of_key(db, key).await?);
            if identity.expires_s > 0 {
                claims.exp = claims.exp.min(identity.expires_s);
            }
        }
        Ok(Secret::new(token::sign(&claims, &self.token_key(db, &collection, account, TokenKind::File)?)))
    }

    /// Signs the token of a login whose credentials held.
    pub(super) async fn grant(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        account: Arc<AuthRecord>,
        mode: TokenMode,
    ) -> Result<Grant, AuthError> {
        match mode {
            TokenMode::Long => {
                let now_s = self.0.clock.now_ms().div_euclid(1_000);
                self.long_grant(db, collection, account, Some(now_s))
            }
            TokenMode::Session => {
                let session = self.open_session(db, scope, &account).await?;
                self.session_grant(db, collection, account, session)
            }
        }
    }

    /// Signs a long token of somebody who logged in at `login_s`, as far as that is known.
    pub(super) fn long_grant(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        account: Arc<AuthRecord>,
        login_s: Option<i64>,
    ) -> Result<Grant, AuthError> {
        let expires_in_s = collection.duration_s(TokenKind::Auth);
        let mut claims = self.claims(db, &account, TokenKind::Auth, expires_in_s);
        (claims.refreshable, claims.login) = (true, login_s);
        let token = Secret::new(token::sign(&claims, &self.token_key(db, collection, &account, TokenKind::Auth)?));
        Ok(Grant { token, expires_in_s, account, session: None })
    }

    /// Signs the short token that goes with `session`.
    pub(super) fn session_grant(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        account: Arc<AuthRecord>,
        session: SessionGrant,
    ) -> Result<Grant, AuthError> {
        let expires_in_s = limits::SESSION_TOKEN_S.min(collection.duration_s(TokenKind::Auth));
        let mut claims = self.claims(db, &account, TokenKind::Auth, expires_in_s);
        claims.sid = Some(session.id.to_string());
        let token = Secret::new(token::sign(&claims, &self.token_key(db, collection, &account, TokenKind::Auth)?));
        Ok(Grant { token, expires_in_s, account, session: Some(session) })
    }

    pub(super) fn claims(&self, db: &TenantDb, account: &AuthRecord, kind: TokenKind, duration_s: u64) -> Claims {
        let now_s = self.0.clock.now_ms().div_euclid(1_000);
        Claims {
            id: account.record.id.to_string(),
            kind,
            collection_id: account.collection.id.to_string(),
            exp: now_s.saturating_add(i64::try_from(duration_s).unwrap_or(i64::MAX)),
            iat: now_s,
            login: None,
            refreshable: false,
            aud: db.id().to_string(),
            sid: None,
            act: None,
            act_key: None,
            act_sid: None,
            key: None,
            email: None,
            new_email: None,
        }
    }

    /// Whether the account may log in at all: it is not suspended and the collection's `authRule` admits it. A missing rule
    /// admits nobody.
    pub(super) async fn admit(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        account: &Arc<AuthRecord>,
        request: &RequestContext,
    ) -> Result<(), AuthError> {
        if self.is_suspended(db, account).await? {
            return Err(AuthError::Suspended);
        }
        match collection.collection.rules.auth.as_deref() {
            None => Err(AuthError::RuleRefused),
            Some(rule) if rule.trim().is_empty() => Ok(()),
            Some(rule) => super::rule::admits(db, account, rule, request, self.0.clock.now_ms()).await,
        }
    }

    /// Stores the password's hash at today's cost. A failure costs nothing but another try at the next login.
    async fn rehash(&self, db: &TenantDb, meta: &WriteMeta, account: &Arc<AuthRecord>, password: Secret) {
        let done = async {
            let hash = self.0.hasher.hash_in(login_guard::lane(meta.ip.as_deref()), password).await?;
            let account = Arc::clone(account);
            db.write(sessions::as_account(meta, &account), move |tx| {
                let collection = Arc::clone(&account.collection);
                let now = account::read(tx, &collection, account.record.id.as_str())?;
                // Somebody may have set a new password meanwhile; that one stays.
                if now.as_deref().and_then(account::password_hash) == account::password_hash(&account) {
                    let changes = rows::changes(&collection, &[("password", Stored::from(hash))]);
                    tx.update(&collection, &account.record.id, &changes)?;
                }
                Ok::<_, StoreError>(())
            })
            .await?;
            Ok::<_, AuthError>(())
        };
        if let Err(error) = done.await {
            tracing::warn!(tenant.id = %db.id(), %error, "a password hash could not be renewed");
        }
    }
}

/// Gives the guess back unless it was wrong: where the database failed, nothing was compared.
pub(super) fn charged_if_wrong<T>(guess: Guess<'_>, checked: Result<T, AuthError>) -> Result<T, AuthError> {
    if !matches!(checked, Err(AuthError::Credentials)) {
        guess.held();
    }
    checked
}

fn check_form(login: &PasswordLogin) -> Result<(), AuthError> {
    let mut details = Vec::new();
    if login.identity.is_empty() {
        details.push(Detail::new("identity", "validation_required", "Cannot be blank."));
    } else if login.identity.len() > limits::IDENTITY_BYTES_MAX {
        details.push(Detail::new("identity", "validation_length_out_of_range", "Too long."));
    }
    if login.password.is_empty() {
        details.push(Detail::new("password", "validation_required", "Cannot be blank."));
    }
    if details.is_empty() { Ok(()) } else { Err(AuthError::Invalid(details)) }
}

async fn find_identity(
    db: &TenantDb,
    collection: &AuthCollection,
    login: &PasswordLogin,
) -> Result<Option<Arc<AuthRecord>>, AuthError> {
    let allowed = &collection.options.identity_fields;
    let fields: Vec<Arc<str>> = match &login.identity_field {
        Some(one) if allowed.iter().any(|field| **field == **one) => vec![Arc::from(one.as_str())],
        Some(_) => {
            return Err(AuthError::field(
                "identityField",
                "validation_in_invalid",
                "Must be one of the identity fields.",
            ));
        }
        None => allowed.clone(),
    };
    let (wanted, identity) = (Arc::clone(&collection.collection), login.identity.clone());
    let found = db
        .read(move |reader| {
            for field in &fields {
                if let Some(account) = account::find_by(reader, &wanted, field, &identity)? {
                    return Ok::<_, StoreError>(Some(account));
                }
            }
            Ok(None)
        })
        .await?;
    Ok(found)
}
