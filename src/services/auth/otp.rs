//! One-time codes by mail.
//!
//! Keeps true: asking for a code answers the same, with the same work, whether or not there is an account; a code works
//! once, for a short time and for few guesses, and ends with the token key; a guess is counted before it is compared, so guesses in parallel are
//! counted too; logging in by code confirms the address it was sent to, and ends what somebody may have set up who
//! registered the address without holding it.
//! Does not do: deciding whether a code is enough (`factors` does).

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::events::Who;
use super::factors::{self, Factor, LoginWish};
use super::login::Grant;
use super::mail_guard::Asked;
use super::mailing::Letter;
use super::{Auth, AuthScope, recovery, sessions};
use crate::kernel::datetime;
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::schema::mail_text::MailText;
use crate::schema::{Collection, Schema};
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::secrets::password::Verdict;
use crate::services::login_guard;
use crate::services::tenants::rows;
use crate::services::tenants::system::OTPS;
use crate::store::{StoreError, TenantDb, WriteMeta, WriteTx};
use std::sync::Arc;

/// The answer to a request for a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtpGrant {
    /// Names the code in the login; made up where there is no account.
    pub otp_id: String,
}

/// A login with a code.
#[derive(Debug, Clone)]
pub struct OtpLogin {
    /// From the answer to the request.
    pub otp_id: String,
    /// The code from the mail.
    pub password: Secret,
}

impl Auth {
    /// Sends a code to `email`, if there is an account with this address.
    pub async fn request_otp(&self, scope: &AuthScope, collection: &str, email: &str) -> Result<OtpGrant, AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        if !collection.is_enabled("otp") {
            return Err(AuthError::MethodDisabled("OTP"));
        }
        recovery::check_address(email)?;
        let asked = self.ask_mail(scope, db, email)?;
        let len = usize::try_from(collection.number("otp", "length", 8).clamp(6, 32)).unwrap_or(8);
        let code = opaque::generate_code(self.0.random.as_ref(), len);
        let code_hash = self.0.hasher.hash_in(login_guard::lane(scope.meta.ip.as_deref()), code.clone()).await?;
        let id = RecordId::generate(self.0.random.as_ref());
        // Looked for, stored and sent on the side: the answer must not take longer for an account that exists.
        let (auth, db_, meta) = (self.clone(), db.clone(), scope.meta.clone());
        let (email, otp) = (email.to_owned(), NewCode { id: id.clone(), code, code_hash, asked });
        self.defer(db, async move { store_and_send(&auth, &db_, meta, &collection, &email, otp).await });
        Ok(OtpGrant { otp_id: id.to_string() })
    }

    /// Logs in with a code.
    pub async fn auth_with_otp(
        &self,
        scope: &AuthScope,
        collection: &str,
        login: OtpLogin,
        wish: impl Into<LoginWish>,
    ) -> Result<Grant, AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        if !collection.is_enabled("otp") {
            return Err(AuthError::MethodDisabled("OTP"));
        }
        let wish = wish.into();
        let account = match self.check_otp(db, scope, &collection, login, wish.mfa_id.clone()).await {
            Ok(account) => account,
            Err((who, error)) => {
                let who = match &who {
                    Some(id) => Who::Account(&collection.collection, id),
                    None => Who::Nobody(&collection.collection),
                };
                return self.note_login(db, &scope.meta, Factor::Otp, who, Err(error));
            }
        };
        self.enter(db, scope, &collection, account, Factor::Otp, wish).await
    }

    /// The account that the code opens; where it opens none, the account it was sent to, if there is one.
    async fn check_otp(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        login: OtpLogin,
        mfa_id: Option<Secret>,
    ) -> Result<Arc<AuthRecord>, (Option<String>, AuthError)> {
        let charged = self.charge(db, scope, collection, &login.otp_id).map_err(|error| (None, error))?;
        let compared = self.compare_otp(db, scope, collection, login, mfa_id).await;
        if !matches!(compared, Err((_, AuthError::Credentials))) {
            charged.held();
        }
        compared
    }

    /// [`Auth::check_otp`], not charged to where it comes from.
    async fn compare_otp(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        login: OtpLogin,
        mfa_id: Option<Secret>,
    ) -> Result<Arc<AuthRecord>, (Option<String>, AuthError)> {
        let nobody = |error: AuthError| (None, error);
        let guess = self.count_otp(db, scope, collection, &login.otp_id).await.map_err(nobody)?;
        let hash = guess.as_ref().map(|guess| guess.code_hash.as_str());
        let verdict = self.0.hasher.verify_in(login_guard::lane(scope.meta.ip.as_deref()), login.password, hash).await;
        let verdict = match verdict {
            Ok(verdict) => verdict,
            // Nothing was compared, so nothing was guessed.
            Err(error) => {
                if let Some(guess) = guess {
                    let given_back = db.write(scope.meta.clone(), move |tx| uncount_guess(tx, &guess.otp)).await;
                    given_back.map_err(nobody)?;
                }
                return Err(nobody(error.into()));
            }
        };
        let Some(guess) = guess else { return Err(nobody(AuthError::Credentials)) };
        let account = guess.account.clone();
        let failed = |error: AuthError| (Some(account.clone()), error);
        if verdict == Verdict::Mismatch {
            return Err(failed(AuthError::Credentials));
        }
        let wanted = Arc::clone(&collection.collection);
        let takeover = Takeover {
            token_key: opaque::generate_token_key(self.0.random.as_ref()),
            mfa_id,
            // Who asks everybody for two methods has a code stand beside the password, which alone opens nothing.
            keeps_password: collection.is_enabled("mfa") && collection.text("mfa", "rule").trim().is_empty(),
        };
        let meta = sessions::as_record(&scope.meta, &wanted, &account);
        let otp = guess.otp.clone();
        match db.write(meta, move |tx| redeem(tx, &wanted, &guess, &takeover)).await {
            Ok(redeemed) => redeemed.value.ok_or(failed(AuthError::Credentials)),
            // The code was right.
            Err(error) => {
                let given_back = db.write(scope.meta.clone(), move |tx| uncount_guess(tx, &otp)).await;
                given_back.map_err(failed)?;
                Err(failed(error))
            }
        }
    }

    /// Counts one guess at the code `id`, if there is such a code.
    async fn count_otp(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        id: &str,
    ) -> Result<Option<Guess>, AuthError> {
        let Some(id) = account::record_id(id) else { return Ok(None) };
        let (wanted, decoy) = (Arc::clone(&collection.collection), RecordId::generate(self.0.random.as_ref()));
        let counted = db.write(scope.meta.clone(), move |tx| match count_guess(tx, &wanted, &id)? {
            Some(guess) => Ok(Some(guess)),
            None => write_decoy(tx, decoy).map(|()| None),
        });
        Ok(counted.await?.value)
    }
}

/// A code that nobody has been sent yet.
struct NewCode {
    id: RecordId,
    code: Secret,
    code_hash: String,
    asked: Asked,
}

/// Stores the code and sends it to `email`, if there is an account with this address.
async fn store_and_send(
    auth: &Auth,
    db: &TenantDb,
    meta: WriteMeta,
    collection: &AuthCollection,
    email: &str,
    otp: NewCode,
) -> Result<(), AuthError> {
    let Some(account) = recovery::find_address(db, collection, email).await? else { return Ok(()) };
    let duration_ms = i64::try_from(collection.number("otp", "duration", 180)).unwrap_or(180).saturating_mul(1_000);
    let to = account::email(&account).to_owned();
    let NewCode { id, code, code_hash, asked } = otp;
    let (owner, sent_to, otp_id) = (Arc::clone(&account), to.clone(), id.to_string());
    db.write(meta, move |tx| {
        let otps = otps(tx.schema())?;
        let now_ms = tx.now_ms();
        drop_stale(tx, &otps, &owner, now_ms)?;
        let values = [
            ("collectionRef", Stored::text(&owner.collection.id)),
            ("recordRef", Stored::text(&owner.record.id)),
            ("codeHash", Stored::from(code_hash)),
            ("sentTo", Stored::from(sent_to)),
            ("keyHash", Stored::from(opaque::digest_hex(account::token_key(&owner)))),
            ("expires", Stored::from(datetime::format_ms(now_ms.saturating_add(duration_ms)))),
        ];
        Ok::<_, AuthError>(tx.insert(&otps, &rows::image(&otps, id, &values, now_ms))?)
    })
    .await?;
    let letter = Letter { otp: code.expose(), otp_id: &otp_id, ..Letter::of(MailText::OneTimeCode) };
    auth.post(db, collection, &account, letter, &to, asked).await
}

struct Guess {
    otp: RecordId,
    account: String,
    code_hash: String,
    sent_to: String,
    key_hash: String,
}

/// Counts one guess at a code; `None` if there is no such code, or it is over.
fn count_guess(tx: &mut WriteTx<'_>, accounts: &Arc<Collection>, id: &RecordId) -> Result<Option<Guess>, AuthError> {
    let otps = otps(tx.schema())?;
    let Some(row) = tx.find_record(&otps, id.as_str())? else { return Ok(None) };
    let text = |name: &str| rows::text(&otps, &row, name).to_owned();
    let attempts = rows::number(&otps, &row, "attempts");
    let over = rows::moment_ms(&otps, &row, "expires").is_none_or(|expires| expires <= tx.now_ms());
    if over || attempts >= f64::from(limits::OTP_ATTEMPTS_MAX) {
        tx.delete(&otps, id)?;
        return Ok(None);
    }
    if text("collectionRef") != accounts.id.as_str() {
        return Ok(None);
    }
    tx.update(&otps, id, &rows::changes(&otps, &[("attempts", Stored::Real(attempts + 1.0))]))?;
    Ok(Some(Guess {
        otp: id.clone(),
        account: text("recordRef"),
        code_hash: text("codeHash"),
        sent_to: text("sentTo"),
        key_hash: text("keyHash"),
    }))
}

/// Takes back what [`count_guess`] counted.
fn uncount_guess(tx: &mut WriteTx<'_>, id: &RecordId) -> Result<(), AuthError> {
    let otps = otps(tx.schema())?;
    let Some(row) = tx.find_record(&otps, id.as_str())? else { return Ok(()) };
    let attempts = (rows::number(&otps, &row, "attempts") - 1.0).max(0.0);
    Ok(tx.update(&otps, id, &rows::changes(&otps, &[("attempts", Stored::Real(attempts))]))?)
}

/// Writes as much as a counted guess does, and leaves nothing: a name that was made up must not be told from that of a code
/// by the time a commit takes.
fn write_decoy(tx: &mut WriteTx<'_>, id: RecordId) -> Result<(), AuthError> {
    let otps = otps(tx.schema())?;
    let now_ms = tx.now_ms();
    tx.insert(&otps, &rows::image(&otps, id.clone(), &[], now_ms))?;
    Ok(tx.delete(&otps, &id)?)
}

/// What becomes of an account whose address a code confirms for the first time.
struct Takeover {
    token_key: String,
    /// The login that the code completes: whoever began it is known to the account already.
    mfa_id: Option<Secret>,
    keeps_password: bool,
}

/// Uses the code up and returns the account as it stands then.
fn redeem(
    tx: &mut WriteTx<'_>,
    accounts: &Arc<Collection>,
    guess: &Guess,
    takeover: &Takeover,
) -> Result<Option<Arc<AuthRecord>>, AuthError> {
    let otps = otps(tx.schema())?;
    if tx.find_record(&otps, guess.otp.as_str())?.is_none() {
        return Ok(None);
    }
    tx.delete(&otps, &guess.otp)?;
    let account = account::read(tx, accounts, &guess.account)?;
    // A new password or address, or whatever else renewed the token key, ended the code.
    let is_same = |account: &Arc<AuthRecord>| opaque::matches_digest(account::token_key(account), &guess.key_hash);
    let Some(account) = account.filter(is_same) else { return Ok(None) };
    if !account::is_verified(&account) && account::email(&account) == guess.sent_to {
        let mut values = vec![("verified", Stored::bool(true))];
        let half = match &takeover.mfa_id {
            Some(mfa_id) => factors::find_half(tx, accounts, mfa_id, tx.now_ms())?,
            None => None,
        };
        if !half.is_some_and(|half| half.is_of(&account)) {
            values.push(("tokenKey", Stored::text(&takeover.token_key)));
            if !takeover.keeps_password {
                values.push(("password", Stored::text("")));
            }
            recovery::forget_stranger(tx, &account)?;
            sessions::end_all(tx, &accounts.id, &account.record.id)?;
        }
        tx.update(accounts, &account.record.id, &rows::changes_at(accounts, &values, tx.now_ms()))?;
        return Ok(account::read(tx, accounts, &guess.account)?);
    }
    Ok(Some(account))
}

/// Ends every code of one account.
pub(super) fn forget(tx: &mut WriteTx<'_>, account: &AuthRecord) -> Result<(), AuthError> {
    let otps = otps(tx.schema())?;
    let owner = [("collectionRef", account.collection.id.as_str()), ("recordRef", account.record.id.as_str())];
    for row in rows::find_by_texts(tx, &otps, &owner)? {
        tx.delete(&otps, &row.id)?;
    }
    Ok(())
}

/// Removes what is over, and all but the newest few codes of one account.
fn drop_stale(
    tx: &mut WriteTx<'_>,
    otps: &Arc<Collection>,
    account: &AuthRecord,
    now_ms: i64,
) -> Result<(), AuthError> {
    let owner = [("collectionRef", account.collection.id.as_str()), ("recordRef", account.record.id.as_str())];
    let mut codes = rows::find_by_texts(tx, otps, &owner)?;
    codes.sort_by_key(|row| std::cmp::Reverse(rows::moment_ms(otps, row, "created").unwrap_or(0)));
    for (at, row) in codes.iter().enumerate() {
        let over = rows::moment_ms(otps, row, "expires").is_none_or(|ms| ms <= now_ms);
        if over || at + 1 >= limits::OTPS_PER_ACCOUNT_MAX {
            tx.delete(otps, &row.id)?;
        }
    }
    Ok(())
}

fn otps(schema: &Schema) -> Result<Arc<Collection>, AuthError> {
    schema.find(OTPS).cloned().ok_or_else(|| AuthError::Store(StoreError::Sql(Arc::from("no collection _otps"))))
}
