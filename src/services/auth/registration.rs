//! Registering where nobody is to learn who has an account (`quietRegistration`): the mails and the link in them.
//!
//! Keeps true: which of the two mails is written is decided after the answer; whoever has the address learns by mail what
//! nobody else learns at all; the link makes the account once. Does not do: deciding who may register, and keeping the
//! registration until its link comes back (`records::registering`).

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::mail_guard::Asked;
use super::mailing::Letter;
use super::{Auth, AuthScope, recovery, sessions};
use crate::kernel::ident::{RecordId, TenantId};
use crate::query::request::AuthRecord;
use crate::schema::mail_text::MailText;
use crate::secrets::Secret;
use crate::secrets::password::Verdict;
use crate::secrets::token::{self, TokenKind, UnverifiedToken};
use crate::services::login_guard::{self, GuessRefused};
use crate::services::records::RecordError;
use crate::services::records::registering::{self, CountMail, MailGate, Waiting};
use crate::store::{TenantDb, WriteMeta};
use std::sync::{Arc, OnceLock};

/// Counts the mail of one registration, and remembers how it was counted.
#[derive(Clone)]
pub struct Registrar(Arc<Counter>);

struct Counter {
    auth: Auth,
    meta: WriteMeta,
    tenant: TenantId,
    asked: OnceLock<Asked>,
}

impl Registrar {
    /// What the write asks before it keeps the registration.
    pub fn gate(&self) -> MailGate {
        MailGate::new(Arc::clone(&self.0) as Arc<dyn CountMail>)
    }
}

impl CountMail for Counter {
    fn ask(&self, email: &str) -> Result<(), GuessRefused> {
        let (guard, now_ms) = (&self.auth.0.mail_guard, self.auth.0.clock.now_ms());
        let counted = guard.ask(&self.meta, &self.tenant, email, now_ms)?;
        self.asked.get_or_init(|| counted);
        Ok(())
    }

    fn look(&self, email: &str) -> Result<(), GuessRefused> {
        self.auth.0.mail_guard.look(&self.meta, &self.tenant, email, self.auth.0.clock.now_ms())
    }
}

impl Auth {
    /// Counts mails to whoever registers in `collection` among those that the caller's address asks for.
    pub fn registrar(&self, scope: &AuthScope, collection: &str) -> Registrar {
        let (auth, meta, tenant) = (self.clone(), scope.meta.clone(), self.db(scope, collection).id().clone());
        Registrar(Arc::new(Counter { auth, meta, tenant, asked: OnceLock::new() }))
    }

    /// Writes to whoever has the address of registration `waiting`: how to complete it, or that there is an account already.
    pub fn write_to_registrant(
        &self,
        scope: &AuthScope,
        collection: &str,
        registrar: &Registrar,
        waiting: RecordId,
    ) -> Result<(), AuthError> {
        let db = self.db(scope, collection);
        let accounts = AuthCollection::find(&db.schema(), collection)?;
        // What was kept was counted.
        let Some(asked) = registrar.0.asked.get().copied() else { return Ok(()) };
        let (auth, db_) = (self.clone(), db.clone());
        self.defer(db, async move {
            let Some(waiting) = auth.find_waiting(&db_, &accounts, waiting.as_str()).await? else { return Ok(()) };
            let to = account::email(&waiting.account);
            match recovery::find_address(&db_, &accounts, to).await? {
                Some(owner) => auth.mail_notice(&db_, &accounts, &owner, asked).await,
                None => auth.mail_completion(&db_, &accounts, &waiting, to, asked).await,
            }
        });
        Ok(())
    }

    async fn mail_completion(
        &self,
        db: &TenantDb,
        accounts: &AuthCollection,
        waiting: &Waiting,
        to: &str,
        asked: Asked,
    ) -> Result<(), AuthError> {
        let kind = TokenKind::Registration;
        let mut claims = self.claims(db, &waiting.account, kind, accounts.duration_s(kind));
        (claims.id, claims.email) = (waiting.id.to_string(), Some(to.to_owned()));
        self.mail_token(db, accounts, &waiting.account, &claims, to, asked).await
    }

    /// Nothing that whoever registered chose is in it.
    async fn mail_notice(
        &self,
        db: &TenantDb,
        accounts: &AuthCollection,
        owner: &Arc<AuthRecord>,
        asked: Asked,
    ) -> Result<(), AuthError> {
        let to = account::email(owner);
        if !accounts.options.password_enabled {
            return self.post(db, accounts, owner, Letter::of(MailText::RegistrationNotice), to, asked).await;
        }
        let kind = TokenKind::PasswordReset;
        let mut claims = self.claims(db, owner, kind, accounts.duration_s(kind));
        claims.email = Some(to.to_owned());
        let token = Secret::new(token::sign(&claims, &self.token_key(db, accounts, owner, kind)?));
        let letter =
            Letter { path: recovery::RESET_PATH, token: token.expose(), ..Letter::of(MailText::RegistrationNotice) };
        self.post(db, accounts, owner, letter, to, asked).await
    }

    /// Makes the account whose link this is, for whoever knows the password it registered with.
    pub(super) async fn confirm_registration(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        accounts: &AuthCollection,
        token: UnverifiedToken<'_>,
        password: Secret,
    ) -> Result<(), AuthError> {
        let (kind, id) = (TokenKind::Registration, token.hint().id.clone());
        let waiting = self.find_waiting(db, accounts, &id).await?.ok_or(AuthError::Confirmation)?;
        let key = self.token_key(db, accounts, &waiting.account, kind)?;
        let claims = token.verify(&key, kind, db.id().as_str(), self.0.clock.now_ms());
        let claims = claims.map_err(|_| AuthError::Confirmation)?;
        if claims.email.as_deref() != Some(account::email(&waiting.account)) {
            return Err(AuthError::Confirmation);
        }
        // Whoever has the address did not necessarily register: who does not know the password makes no account of it.
        let (lane, stored) = (login_guard::lane(scope.meta.ip.as_deref()), account::password_hash(&waiting.account));
        let guess = self.charge(db, scope, accounts, waiting.account.record.id.as_str())?;
        if guess.settle(self.0.hasher.verify_in(lane, password, stored).await)? == Verdict::Mismatch {
            let message = "Must be the password that was chosen when the account was registered.";
            return Err(AuthError::field("password", "validation_invalid_password", message));
        }
        let meta = sessions::as_record(&scope.meta, &accounts.collection, waiting.account.record.id.as_str());
        let wanted = Arc::clone(&accounts.collection);
        let made = db.write(meta, move |tx| registering::admit(tx, &wanted, &waiting.id));
        made.await.map(drop).map_err(|error| match error {
            RecordError::NotFound => AuthError::Confirmation,
            error => error.into(),
        })
    }

    async fn find_waiting(
        &self,
        db: &TenantDb,
        accounts: &AuthCollection,
        id: &str,
    ) -> Result<Option<Waiting>, AuthError> {
        let Some(id) = account::record_id(id) else { return Ok(None) };
        let (wanted, now_ms) = (Arc::clone(&accounts.collection), self.0.clock.now_ms());
        Ok(db.read(move |reader| registering::find(reader, &wanted, id.as_str(), now_ms)).await?)
    }
}
