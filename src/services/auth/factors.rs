//! The one place through which every factor that held passes: whether another one is needed, and what the login gets.
//!
//! [`Auth::enter`] is called by each way of logging in once its own proof held, and by nobody else. Where a second factor
//! is needed it keeps a half-finished login and names it to the caller (`mfaId`); the second factor hands that name back.
//!
//! Keeps true: a half-finished login is bound to tenant, collection and account, is good once and for a short time, and
//! only the digest of its name is stored; a new password, or whatever else renews the token key, ends it; the same method never counts twice; an account with an authenticator app is not
//! entered without the app, a recovery code or a passkey. Does not do: checking any factor.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::events::{Event, Outcome, Who};
use super::login::{Grant, TokenMode};
use super::{Auth, AuthScope, sessions, totp};
use crate::kernel::datetime;
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::services::tenants::rows;
use crate::services::tenants::system::MFAS;
use crate::store::{Reader, TenantDb, WriteTx};
use std::sync::Arc;

/// A way of proving who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    /// A password.
    Password,
    /// A one-time code by mail.
    Otp,
    /// An identity provider.
    OAuth2,
    /// The code of an authenticator app.
    Totp,
    /// A recovery code.
    RecoveryCode,
    /// A passkey, which verifies its user by itself.
    Passkey,
}

impl Factor {
    /// The factor's name in the stored row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Otp => "otp",
            Self::OAuth2 => "oauth2",
            Self::Totp => "totp",
            Self::RecoveryCode => "recoveryCode",
            Self::Passkey => "passkey",
        }
    }

    /// Whether the account's owner set it up as proof of something they hold.
    const fn is_enrolled(self) -> bool {
        matches!(self, Self::Totp | Self::RecoveryCode | Self::Passkey)
    }
}

/// How a login wants to end.
#[derive(Debug, Clone)]
pub struct LoginWish {
    /// Which token.
    pub mode: TokenMode,
    /// The half-finished login that this factor completes.
    pub mfa_id: Option<Secret>,
}

impl From<TokenMode> for LoginWish {
    fn from(mode: TokenMode) -> Self {
        Self { mode, mfa_id: None }
    }
}

/// What an account needs besides its first factor.
#[derive(Debug, Clone, Copy)]
struct Demand {
    /// The collection asks for two different methods.
    two: bool,
    /// The account has an authenticator app: one of its enrolled factors must be among those shown.
    enrolled: bool,
}

impl Demand {
    /// A passkey is two factors in one for the account's own sake, but one method for the collection's.
    const fn is_met_by(self, factor: Factor) -> bool {
        !self.two && (!self.enrolled || matches!(factor, Factor::Passkey))
    }
}

/// A half-finished login.
pub(super) struct Half {
    pub(super) id: RecordId,
    /// The account's record id.
    pub(super) account: String,
    method: String,
    key_hash: String,
}

impl Half {
    /// Whether it belongs to `account` as that stands now.
    pub(super) fn is_of(&self, account: &AuthRecord) -> bool {
        self.account == account.record.id.as_str()
            && opaque::matches_digest(account::token_key(account), &self.key_hash)
    }
}

impl Auth {
    /// Lets `account` in after `factor` held: a token, or [`AuthError::MfaRequired`] if another factor is needed.
    pub(super) async fn enter(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        account: Arc<AuthRecord>,
        factor: Factor,
        wish: LoginWish,
    ) -> Result<Grant, AuthError> {
        let entered = self.enter_quietly(db, scope, collection, Arc::clone(&account), factor, wish).await;
        let outcome = match &entered {
            Ok(_) => Some(Outcome::Ok),
            Err(AuthError::MfaRequired { .. }) => Some(Outcome::FactorNeeded),
            Err(AuthError::RuleRefused | AuthError::Suspended) => Some(Outcome::Refused),
            Err(_) => None,
        };
        if let Some(outcome) = outcome {
            let who = Who::Account(&account.collection, account.record.id.as_str());
            let event = Event { event: "login", method: factor.as_str(), outcome, who };
            self.note(db, &sessions::as_account(&scope.meta, &account), event);
        }
        entered
    }

    async fn enter_quietly(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        account: Arc<AuthRecord>,
        factor: Factor,
        wish: LoginWish,
    ) -> Result<Grant, AuthError> {
        self.admit(db, collection, &account, &scope.request).await?;
        let demand = self.demand(db, scope, collection, &account).await?;
        match wish.mfa_id {
            Some(mfa_id) => complete(db, scope, &account, factor, demand, mfa_id).await?,
            None if demand.is_met_by(factor) => {}
            None => {
                let mfa_id = self.keep_half(db, scope, collection, &account, factor).await?;
                return Err(AuthError::MfaRequired { mfa_id });
            }
        }
        let grant = self.grant(db, scope, collection, account, wish.mode).await?;
        self.note_origin(db, scope, collection, &grant.account);
        Ok(grant)
    }

    async fn demand(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        account: &Arc<AuthRecord>,
    ) -> Result<Demand, AuthError> {
        let rule = collection.text("mfa", "rule");
        let two = collection.is_enabled("mfa")
            && (rule.trim().is_empty()
                || match super::rule::admits(db, account, rule, &scope.request, self.0.clock.now_ms()).await {
                    Ok(()) => true,
                    Err(AuthError::RuleRefused) => false,
                    Err(error) => return Err(error),
                });
        let account = Arc::clone(account);
        let enrolled = collection.is_enabled("totp")
            && db
                .read(move |reader| Ok::<_, AuthError>(totp::find(reader, &account)?.is_some_and(|row| row.confirmed)))
                .await?;
        Ok(Demand { two, enrolled })
    }

    /// Stores a half-finished login; returns its name, which is shown once.
    async fn keep_half(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        account: &Arc<AuthRecord>,
        factor: Factor,
    ) -> Result<Secret, AuthError> {
        let id = RecordId::generate(self.0.random.as_ref());
        let secret = opaque::generate(self.0.random.as_ref(), "");
        let name = Secret::new(format!("{id}.{}", secret.expose()));
        let seconds = i64::try_from(collection.number("mfa", "duration", limits::MFA_S)).unwrap_or(0);
        let values = vec![
            ("collectionRef", Stored::text(&account.collection.id)),
            ("recordRef", Stored::text(&account.record.id)),
            ("method", Stored::text(factor.as_str())),
            ("tokenHash", Stored::from(opaque::digest_hex(secret.expose()))),
            ("keyHash", Stored::from(opaque::digest_hex(account::token_key(account)))),
        ];
        let account = Arc::clone(account);
        db.write(sessions::as_account(&scope.meta, &account), move |tx| {
            let halves = halves(tx.schema())?;
            let now_ms = tx.now_ms();
            make_room(tx, &halves, &account, now_ms)?;
            let mut values = values;
            let expires_ms = now_ms.saturating_add(seconds.saturating_mul(1_000));
            values.push(("expires", Stored::from(datetime::format_ms(expires_ms))));
            Ok::<_, AuthError>(tx.insert(&halves, &rows::image(&halves, id, &values, now_ms))?)
        })
        .await?;
        Ok(name)
    }
}

/// Uses up the half-finished login `mfa_id`, if `factor` completes it.
async fn complete(
    db: &TenantDb,
    scope: &AuthScope,
    account: &Arc<AuthRecord>,
    factor: Factor,
    demand: Demand,
    mfa_id: Secret,
) -> Result<(), AuthError> {
    let account = Arc::clone(account);
    db.write(sessions::as_account(&scope.meta, &account), move |tx| {
        let half = find_half(tx, &account.collection, &mfa_id, tx.now_ms())?;
        let half = half.filter(|half| half.is_of(&account)).ok_or_else(refused)?;
        if half.method == factor.as_str() {
            return Err(AuthError::field("mfaId", "validation_mfa_same_method", "A different method is needed."));
        }
        // What was first is never enrolled here: a passkey would have been enough for the account's own sake.
        if demand.enrolled && !factor.is_enrolled() && half.method != Factor::Passkey.as_str() {
            let message = "The account needs its authenticator app, a recovery code or a passkey.";
            return Err(AuthError::field("mfaId", "validation_mfa_enrolled_factor", message));
        }
        Ok(tx.delete(&halves(tx.schema())?, &half.id)?)
    })
    .await?;
    Ok(())
}

fn refused() -> AuthError {
    AuthError::field("mfaId", "validation_invalid_mfa_id", "The login is unknown, used or expired; start again.")
}

/// The half-finished login named `mfa_id`, if there is one of an account of `accounts` that is not over.
pub(super) fn find_half(
    reader: &Reader<'_>,
    accounts: &Collection,
    mfa_id: &Secret,
    now_ms: i64,
) -> Result<Option<Half>, AuthError> {
    let Some((id, secret)) = mfa_id.expose().split_once('.').filter(|_| mfa_id.len() <= 128) else { return Ok(None) };
    let (Some(id), halves) = (account::record_id(id), halves(reader.schema())?) else { return Ok(None) };
    let Some(row) = reader.find_record(&halves, id.as_str())? else { return Ok(None) };
    let text = |name: &str| rows::text(&halves, &row, name);
    let holds = opaque::matches_digest(secret, text("tokenHash"))
        && text("collectionRef") == accounts.id.as_str()
        && !is_over(&halves, &row, now_ms);
    Ok(holds.then(|| Half {
        id,
        account: text("recordRef").to_owned(),
        method: text("method").to_owned(),
        key_hash: text("keyHash").to_owned(),
    }))
}

/// Counts a second factor that did not hold; past the bound the half-finished login ends.
pub(super) fn count_miss(tx: &mut WriteTx<'_>, half: &RecordId) -> Result<(), AuthError> {
    let halves = halves(tx.schema())?;
    let Some(row) = tx.find_record(&halves, half.as_str())? else { return Ok(()) };
    let attempts = rows::number(&halves, &row, "attempts") + 1.0;
    if attempts >= f64::from(limits::MFA_ATTEMPTS_MAX) {
        tx.delete(&halves, half)?;
    } else {
        tx.update(&halves, half, &rows::changes(&halves, &[("attempts", Stored::Real(attempts))]))?;
    }
    Ok(())
}

/// Ends every half-finished login of one account.
pub(super) fn end_halves(tx: &mut WriteTx<'_>, account: &AuthRecord) -> Result<(), AuthError> {
    let halves = halves(tx.schema())?;
    for row in of_account(tx, &halves, account)? {
        tx.delete(&halves, &row.id)?;
    }
    Ok(())
}

/// Ends what is over and, beyond the bound, the oldest.
fn make_room(
    tx: &mut WriteTx<'_>,
    halves: &Arc<Collection>,
    account: &AuthRecord,
    now_ms: i64,
) -> Result<(), AuthError> {
    let mut rows = of_account(tx, halves, account)?;
    rows.sort_by_key(|row| std::cmp::Reverse(rows::moment_ms(halves, row, "created").unwrap_or(0)));
    for (at, row) in rows.iter().enumerate() {
        if is_over(halves, row, now_ms) || at + 1 >= limits::MFAS_PER_ACCOUNT_MAX {
            tx.delete(halves, &row.id)?;
        }
    }
    Ok(())
}

fn is_over(halves: &Collection, row: &RecordImage, now_ms: i64) -> bool {
    rows::moment_ms(halves, row, "expires").is_none_or(|expires| expires <= now_ms)
}

fn of_account(reader: &Reader<'_>, halves: &Collection, account: &AuthRecord) -> Result<Vec<RecordImage>, AuthError> {
    let owner = [("collectionRef", account.collection.id.as_str()), ("recordRef", account.record.id.as_str())];
    Ok(rows::find_by_texts(reader, halves, &owner)?)
}

fn halves(schema: &Schema) -> Result<Arc<Collection>, AuthError> {
    schema.find(MFAS).cloned().ok_or_else(|| AuthError::UnknownCollection(MFAS.to_owned()))
}
