//! Confirmations by mail: a forgotten password, a new account's address, a changed address.
//!
//! Keeps true: asking answers the same whether or not there is an account; a token confirms the address it was made for
//! and nothing else; setting a password or moving to another address renews the token key, so a token works once and
//! every older credential ends.
//! Does not do: sending mails (a [`super::Mailer`] does), limiting how often one may ask.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::mail_guard::Asked;
use super::mailing::Letter;
use super::oauth::link;
use super::{Auth, AuthScope, Identity};
use super::{factors, keys, otp, passkeys, recovery_codes, sessions, totp};
use crate::kernel::ident::CollectionId;
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::schema::Collection;
use crate::schema::mail_text::MailText;
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::secrets::password::Verdict;
use crate::secrets::token::{self, Claims, TokenKind, UnverifiedToken};
use crate::services::login_guard;
use crate::services::passwords;
use crate::services::tenants::rows;
use crate::store::{StoreError, TenantDb, WriteTx};
use std::sync::Arc;

/// Where links that set a new password lead, below the application's address.
pub(super) const RESET_PATH: &str = "_/#/auth/confirm-password-reset/";
const CONFIRM_PATH: &str = "_/#/auth/confirm-verification/";

/// A new password, and the token that allows to set it.
#[derive(Debug, Clone)]
pub struct ConfirmPasswordReset {
    /// From the mail.
    pub token: Secret,
    /// The new password.
    pub password: Secret,
    /// The new password again.
    pub password_confirm: Secret,
}

/// A new address, and the proof that the account's owner wants it.
#[derive(Debug, Clone)]
pub struct ConfirmEmailChange {
    /// From the mail to the new address.
    pub token: Secret,
    /// The account's password.
    pub password: Secret,
}

/// A link that is sent to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailedLink {
    /// To set a new password.
    PasswordReset,
    /// To confirm the address.
    Verification,
}

impl Auth {
    /// Sends `link` to `email`, if there is an account with this address that needs it.
    ///
    /// The account is looked for on the side: the answer must not take longer where there is one.
    pub async fn request_link(
        &self,
        scope: &AuthScope,
        collection: &str,
        link: MailedLink,
        email: &str,
    ) -> Result<(), AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        if link == MailedLink::PasswordReset && !collection.options.password_enabled {
            return Err(AuthError::MethodDisabled("password"));
        }
        check_address(email)?;
        let asked = self.ask_mail(scope, db, email)?;
        let (auth, db_, email) = (self.clone(), db.clone(), email.to_owned());
        self.defer(db, async move { auth.mail_link(&db_, &collection, link, &email, asked).await });
        Ok(())
    }

    async fn mail_link(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        link: MailedLink,
        email: &str,
        asked: Asked,
    ) -> Result<(), AuthError> {
        let kind = match link {
            MailedLink::PasswordReset => TokenKind::PasswordReset,
            MailedLink::Verification => TokenKind::Verification,
        };
        let account = find_address(db, collection, email).await?;
        let needs = |account: &Arc<AuthRecord>| link != MailedLink::Verification || !account::is_verified(account);
        let Some(account) = account.filter(needs) else { return Ok(()) };
        let mut claims = self.mail_claims(db, collection, &account, kind);
        claims.email = Some(account::email(&account).to_owned());
        self.mail_token(db, collection, &account, &claims, account::email(&account), asked).await
    }

    /// Sets a new password; ends every token and session of the account. The address counts as confirmed.
    pub async fn confirm_password_reset(
        &self,
        scope: &AuthScope,
        collection: &str,
        confirm: ConfirmPasswordReset,
    ) -> Result<(), AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        account::check_password(&collection.collection, &confirm.password, &confirm.password_confirm)?;
        let (claims, account) =
            self.check_mail_token(db, &collection, &confirm.token, TokenKind::PasswordReset).await?;
        if claims.email.as_deref() != Some(account::email(&account)) {
            return Err(AuthError::Confirmation);
        }
        self.refuse_common(db, &collection.collection, account::email(&account), &confirm.password).await?;
        let hash = self.0.hasher.hash_in(login_guard::lane(scope.meta.ip.as_deref()), confirm.password).await?;
        let values = vec![("password", Stored::from(hash)), ("verified", Stored::bool(true))];
        self.renew(db, scope, &account, values).await
    }

    /// Marks the address as confirmed, or makes the account that waited for it; that takes the `password` it registered with.
    pub async fn confirm_verification(
        &self,
        scope: &AuthScope,
        collection: &str,
        token: &Secret,
        password: Secret,
    ) -> Result<(), AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        if let Ok(registered) = UnverifiedToken::parse(token.expose())
            && registered.hint().kind == TokenKind::Registration
        {
            return self.confirm_registration(db, scope, &collection, registered, password).await;
        }
        let (claims, account) = self.check_mail_token(db, &collection, token, TokenKind::Verification).await?;
        if claims.email.as_deref() != Some(account::email(&account)) {
            return Err(AuthError::Confirmation);
        }
        if account::is_verified(&account) {
            return Ok(());
        }
        db.write(sessions::as_account(&scope.meta, &account), move |tx| {
            let collection = Arc::clone(&account.collection);
            let now = account::read(tx, &collection, account.record.id.as_str())?.ok_or(AuthError::Confirmation)?;
            if account::email(&now) != account::email(&account) {
                return Err(AuthError::Confirmation);
            }
            let changes = rows::changes_at(&collection, &[("verified", Stored::bool(true))], tx.now_ms());
            Ok::<_, AuthError>(tx.update(&collection, &account.record.id, &changes)?)
        })
        .await?;
        Ok(())
    }

    /// Sends a link to the new address of the logged-in account, unless somebody has that address.
    pub async fn request_email_change(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
        new_email: &str,
    ) -> Result<(), AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        let account = identity.account().ok_or(AuthError::LoginRequired)?;
        if account.collection.id != collection.collection.id {
            return Err(AuthError::Forbidden);
        }
        if !account::is_email(new_email) || new_email == account::email(account) {
            return Err(AuthError::field("newEmail", "validation_is_email", "Must be another valid e-mail address."));
        }
        let mut claims = self.mail_claims(db, &collection, account, TokenKind::EmailChange);
        claims.email = Some(account::email(account).to_owned());
        claims.new_email = Some(new_email.to_owned());
        let asked = self.ask_mail(scope, db, new_email)?;
        let (auth, db_, account, to) = (self.clone(), db.clone(), Arc::clone(account), new_email.to_owned());
        self.defer(db, async move {
            // Whether somebody has the address already is nothing that the answer tells.
            match find_address(&db_, &collection, &to).await? {
                Some(_) => Ok(()),
                None => auth.mail_token(&db_, &collection, &account, &claims, &to, asked).await,
            }
        });
        Ok(())
    }

    /// Moves the account to the new address; ends every token and session of the account.
    pub async fn confirm_email_change(
        &self,
        scope: &AuthScope,
        collection: &str,
        confirm: ConfirmEmailChange,
    ) -> Result<(), AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        let (claims, account) = self.check_mail_token(db, &collection, &confirm.token, TokenKind::EmailChange).await?;
        let new_email = claims.new_email.filter(|_| claims.email.as_deref() == Some(account::email(&account)));
        let new_email = new_email.ok_or(AuthError::Confirmation)?;
        let (lane, stored) = (login_guard::lane(scope.meta.ip.as_deref()), account::password_hash(&account));
        let guess = self.charge(db, scope, &collection, account.record.id.as_str())?;
        let verdict = guess.settle(self.0.hasher.verify_in(lane, confirm.password, stored).await)?;
        if verdict == Verdict::Mismatch {
            return Err(AuthError::field("password", "validation_invalid_password", "Missing or invalid password."));
        }
        let values = vec![("email", Stored::from(new_email)), ("verified", Stored::bool(true))];
        self.renew(db, scope, &account, values).await
    }

    /// Refuses a password that would be guessed.
    pub(super) async fn refuse_common(
        &self,
        db: &TenantDb,
        collection: &Collection,
        email: &str,
        password: &Secret,
    ) -> Result<(), AuthError> {
        match passwords::refusal(Some(&self.0.registry), db, collection, &[email], password).await {
            Some(detail) => Err(AuthError::Invalid(vec![detail])),
            None => Ok(()),
        }
    }

    /// Stores `values`, a new token key, and ends every session; refused if the token key changed meanwhile.
    async fn renew(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        account: &Arc<AuthRecord>,
        mut values: Vec<(&'static str, Stored)>,
    ) -> Result<(), AuthError> {
        values.push(("tokenKey", Stored::from(opaque::generate_token_key(self.0.random.as_ref()))));
        let meta = sessions::as_account(&scope.meta, account);
        let account = Arc::clone(account);
        db.write(meta, move |tx| {
            let collection = Arc::clone(&account.collection);
            let now = account::read(tx, &collection, account.record.id.as_str())?.ok_or(AuthError::Confirmation)?;
            // Two confirmations with one token: the second finds the key changed.
            if account::token_key(&now) != account::token_key(&account) {
                return Err(AuthError::Confirmation);
            }
            let changes = rows::changes_at(&collection, &values, tx.now_ms());
            tx.update(&collection, &account.record.id, &changes)?;
            if !account::is_verified(&now) {
                forget_stranger(tx, &now)?;
            }
            otp::forget(tx, &now)?;
            sessions::end_all(tx, &collection.id, &account.record.id)
        })
        .await?;
        Ok(())
    }

    fn mail_claims(&self, db: &TenantDb, collection: &AuthCollection, account: &AuthRecord, kind: TokenKind) -> Claims {
        self.claims(db, account, kind, collection.duration_s(kind))
    }

    async fn check_mail_token(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        token: &Secret,
        kind: TokenKind,
    ) -> Result<(Claims, Arc<AuthRecord>), AuthError> {
        // Whatever is wrong with it, the answer is the same.
        let refused = |_| AuthError::Confirmation;
        let token = UnverifiedToken::parse(token.expose()).map_err(refused)?;
        let hint = token.hint();
        let id = CollectionId::parse(&hint.collection_id).map_err(|_| AuthError::Confirmation)?;
        if id != collection.collection.id || account::record_id(&hint.id).is_none() {
            return Err(AuthError::Confirmation);
        }
        let (wanted, id) = (Arc::clone(&collection.collection), hint.id.clone());
        let account = db.read(move |reader| account::read(reader, &wanted, &id)).await?;
        let account = account.ok_or(AuthError::Confirmation)?;
        let key = self.token_key(db, collection, &account, kind)?;
        let claims = token.verify(&key, kind, db.id().as_str(), self.0.clock.now_ms()).map_err(refused)?;
        Ok((claims, account))
    }

    pub(super) async fn mail_token(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        account: &AuthRecord,
        claims: &Claims,
        to: &str,
        asked: Asked,
    ) -> Result<(), AuthError> {
        let token = Secret::new(token::sign(claims, &self.token_key(db, collection, account, claims.kind)?));
        let (mail, path) = match claims.kind {
            TokenKind::PasswordReset => (MailText::PasswordReset, RESET_PATH),
            TokenKind::EmailChange => (MailText::EmailChange, "_/#/auth/confirm-email-change/"),
            TokenKind::Registration => (MailText::Registration, CONFIRM_PATH),
            _ => (MailText::Verification, CONFIRM_PATH),
        };
        let letter = Letter { path, token: token.expose(), ..Letter::of(mail) };
        self.post(db, collection, account, letter, to, asked).await
    }
}

/// Whoever registered the address may not have been who holds it: what else opens the account goes with the password.
pub(super) fn forget_stranger(tx: &mut WriteTx<'_>, account: &AuthRecord) -> Result<(), AuthError> {
    keys::forget(tx, account)?;
    link::forget(tx, account)?;
    totp::forget(tx, account)?;
    recovery_codes::forget(tx, account)?;
    passkeys::forget(tx, account)?;
    factors::end_halves(tx, account)
}

/// Refuses what is no e-mail address.
pub(super) fn check_address(email: &str) -> Result<(), AuthError> {
    if email.is_empty() {
        return Err(AuthError::field("email", "validation_required", "Cannot be blank."));
    }
    if !account::is_email(email) {
        return Err(AuthError::field("email", "validation_is_email", "Must be a valid e-mail address."));
    }
    Ok(())
}

/// The account with this e-mail address.
pub(super) async fn find_address(
    db: &TenantDb,
    collection: &AuthCollection,
    email: &str,
) -> Result<Option<Arc<AuthRecord>>, AuthError> {
    let (wanted, email) = (Arc::clone(&collection.collection), email.to_owned());
    let found = db.read(move |reader| account::find_by(reader, &wanted, "email", &email)).await;
    found.map_err(|error: StoreError| error.into())
}
