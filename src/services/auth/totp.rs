//! Authenticator apps: an account's owner sets one up, confirms it with a code, and from then on a login needs it.
//!
//! Keeps true: the secret is stored sealed and shown once; it counts only after a code proved that the app has it; the
//! step of a code is stored with the transaction that accepted it, so a code works once; a wrong code is counted by the
//! same transaction that compared it, and the pause after many is met only by somebody who passed the first factor.
//! Does not do: logging in without a first factor.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::events::Who;
use super::factors::{self, Factor, LoginWish};
use super::login::Grant;
use super::owner::Owner;
use super::recovery_codes::{self, NewCodes};
use super::{Auth, AuthScope, Identity};
use crate::kernel::datetime;
use crate::kernel::ident::{RecordId, TenantId};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::schema::{Collection, Schema};
use crate::secrets::Secret;
use crate::secrets::seal::Sealer;
use crate::secrets::totp::TotpSecret;
use crate::services::tenants::rows;
use crate::services::tenants::sealed;
use crate::services::tenants::system::TOTPS;
use crate::store::{Reader, WriteTx};
use std::sync::Arc;

/// A new authenticator app's secret; shown once.
#[derive(Debug, Clone)]
pub struct TotpEnrolment {
    /// Base32, for people who type.
    pub secret: Secret,
    /// The `otpauth:` address, for a QR code.
    pub uri: Secret,
}

/// Where an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TotpStatus {
    /// Whether logins need the app.
    pub enabled: bool,
    /// Whether an app was set up and waits for its first code.
    pub pending: bool,
    /// Recovery codes that are left.
    pub recovery_codes: usize,
}

/// What a change of an account's factors gives.
#[derive(Debug, Clone)]
pub struct FactorsChanged {
    /// The owner's next token; every older one has ended.
    pub grant: Grant,
    /// New recovery codes, shown once; empty if none were made.
    pub recovery_codes: Vec<Secret>,
}

/// A second factor that is typed in.
#[derive(Debug, Clone)]
pub struct CodeLogin {
    /// The code.
    pub code: Secret,
    /// How the login wants to end; names the half-finished login.
    pub wish: LoginWish,
}

/// The stored state of one account's app.
pub(super) struct TotpRow {
    id: RecordId,
    pub(super) confirmed: bool,
    sealed: String,
    last_step: f64,
    misses: u32,
    missed_ms: i64,
}

/// What became of a code.
enum Check {
    Held,
    Wrong,
    Pause(u32),
    /// Another node sealed the app's secret; no code of it can be compared.
    Unreadable,
}

impl Check {
    fn into_result(self) -> Result<(), AuthError> {
        match self {
            Self::Held => Ok(()),
            Self::Wrong => Err(AuthError::field("code", "validation_invalid_code", "The code does not hold.")),
            Self::Pause(seconds) => Err(pause(seconds)),
            Self::Unreadable => Err(unreadable()),
        }
    }
}

fn unreadable() -> AuthError {
    let message = "The app was set up at another node; use a recovery code, or have a superuser take the app away.";
    AuthError::field("code", "validation_totp_unreadable", message)
}

fn pause(seconds: u32) -> AuthError {
    let message = format!("Too many wrong codes for this account; try again in {seconds} s or use a recovery code.");
    AuthError::Throttled { message, retry_after_s: seconds }
}

/// What checking a code needs besides the transaction.
struct Checker {
    sealer: Sealer,
    tenant: TenantId,
    account: Arc<AuthRecord>,
}

impl Auth {
    /// Where the account of `identity` stands.
    pub async fn totp_status(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
    ) -> Result<TotpStatus, AuthError> {
        let owner = self.owner_of(scope, collection, identity).await?;
        let account = Arc::clone(&owner.account);
        owner
            .db
            .read(move |reader| {
                let row = find(reader, &account)?;
                Ok::<_, AuthError>(TotpStatus {
                    enabled: row.as_ref().is_some_and(|row| row.confirmed),
                    pending: row.as_ref().is_some_and(|row| !row.confirmed),
                    recovery_codes: recovery_codes::count(reader, &account)?,
                })
            })
            .await
    }

    /// Makes the secret of a new app. Logins do not need it before [`Auth::confirm_totp`].
    pub async fn enrol_totp(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
        password: Option<Secret>,
    ) -> Result<TotpEnrolment, AuthError> {
        let owner = self.owner_of(scope, collection, identity).await?;
        require_totp(&owner.collection)?;
        self.prove(&owner, scope, password).await?;
        let secret = TotpSecret::generate(self.0.random.as_ref());
        let (tenant, account) = (owner.db.id(), Arc::clone(&owner.account));
        let sealed = self.0.sealer.seal(self.0.random.as_ref(), tenant, &place(&account), secret.as_bytes());
        let id = RecordId::generate(self.0.random.as_ref());
        let meta = scope.meta.clone();
        owner.db.write(meta, move |tx| store_pending(tx, &account, id, sealed)).await?;
        let entry = self.0.registry.entry(tenant);
        let configured = owner.collection.text("totp", "issuer");
        let issuer = match (configured, &entry) {
            ("", Some(entry)) => &*entry.name,
            ("", None) => "Tenantry",
            (configured, _) => configured,
        };
        let uri = secret.to_uri(issuer, label(&owner.account)).unwrap_or_default();
        Ok(TotpEnrolment { secret: secret.to_text(), uri })
    }

    /// Switches the app on that [`Auth::enrol_totp`] made, and makes the recovery codes.
    pub async fn confirm_totp(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
        code: Secret,
    ) -> Result<FactorsChanged, AuthError> {
        let owner = self.owner_of(scope, collection, identity).await?;
        require_totp(&owner.collection)?;
        let codes = NewCodes::draw(self.0.random.as_ref());
        let (checker, renewal, shown) = (self.checker(&owner), owner.renewal(self), codes.shown());
        let done = owner.db.write(scope.meta.clone(), move |tx| {
            let row = find(tx, &checker.account)?.filter(|row| !row.confirmed).ok_or(AuthError::NotFound("setup"))?;
            let check = checker.check(tx, row, &code)?;
            if matches!(check, Check::Held) {
                let totps = totps(tx.schema())?;
                let row = find(tx, &checker.account)?.ok_or(AuthError::NotFound("setup"))?;
                let changes = rows::changes_at(&totps, &[("confirmed", Stored::bool(true))], tx.now_ms());
                tx.update(&totps, &row.id, &changes)?;
                codes.store(tx, &checker.account)?;
                renewal.run(tx)?;
            }
            Ok::<_, AuthError>(check)
        });
        done.await?.value.into_result()?;
        Ok(FactorsChanged { grant: self.go_on(owner).await?, recovery_codes: shown })
    }

    /// Takes the app and the recovery codes away; `code` is one of either.
    pub async fn disable_totp(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
        password: Option<Secret>,
        code: Secret,
    ) -> Result<FactorsChanged, AuthError> {
        let owner = self.owner_of(scope, collection, identity).await?;
        self.prove(&owner, scope, password).await?;
        let (checker, renewal) = (self.checker(&owner), owner.renewal(self));
        let done = owner.db.write(scope.meta.clone(), move |tx| {
            let check = checker.check_either(tx, &code)?;
            if matches!(check, Check::Held) {
                forget(tx, &checker.account)?;
                renewal.run(tx)?;
            }
            Ok::<_, AuthError>(check)
        });
        done.await?.value.into_result()?;
        Ok(FactorsChanged { grant: self.go_on(owner).await?, recovery_codes: Vec::new() })
    }

    /// Makes new recovery codes in the place of all older ones.
    pub async fn renew_recovery_codes(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
        password: Option<Secret>,
        code: Secret,
    ) -> Result<FactorsChanged, AuthError> {
        let owner = self.owner_of(scope, collection, identity).await?;
        self.prove(&owner, scope, password).await?;
        let codes = NewCodes::draw(self.0.random.as_ref());
        let (checker, renewal, shown) = (self.checker(&owner), owner.renewal(self), codes.shown());
        let done = owner.db.write(scope.meta.clone(), move |tx| {
            let check = checker.check_either(tx, &code)?;
            if matches!(check, Check::Held) {
                codes.store(tx, &checker.account)?;
                renewal.run(tx)?;
            }
            Ok::<_, AuthError>(check)
        });
        done.await?.value.into_result()?;
        Ok(FactorsChanged { grant: self.go_on(owner).await?, recovery_codes: shown })
    }

    /// Completes a half-finished login with a code of the app.
    pub async fn auth_with_totp(
        &self,
        scope: &AuthScope,
        collection: &str,
        login: CodeLogin,
    ) -> Result<Grant, AuthError> {
        self.auth_with_code(scope, collection, login, Factor::Totp).await
    }

    /// Completes a half-finished login with a recovery code.
    pub async fn auth_with_recovery_code(
        &self,
        scope: &AuthScope,
        collection: &str,
        login: CodeLogin,
    ) -> Result<Grant, AuthError> {
        self.auth_with_code(scope, collection, login, Factor::RecoveryCode).await
    }

    async fn auth_with_code(
        &self,
        scope: &AuthScope,
        collection: &str,
        login: CodeLogin,
        factor: Factor,
    ) -> Result<Grant, AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        require_totp(&collection)?;
        let mfa_id = login.wish.mfa_id.clone().unwrap_or_default();
        let nobody = Who::Nobody(&collection.collection);
        let charged = self.charge(db, scope, &collection, mfa_id.expose().get(..15).unwrap_or_default());
        let charged = self.note_login(db, &scope.meta, factor, nobody, charged)?;
        let (wanted, sealer, tenant) = (Arc::clone(&collection.collection), self.0.sealer.clone(), db.id().clone());
        let tried = db.write(scope.meta.clone(), move |tx| {
            let Some(half) = factors::find_half(tx, &wanted, &mfa_id, tx.now_ms())? else { return Ok(None) };
            let Some(account) = account::read(tx, &wanted, &half.account)? else { return Ok(None) };
            let checker = Checker { sealer, tenant, account };
            let check = match factor {
                Factor::RecoveryCode => checker.check_recovery(tx, &login.code)?,
                _ => checker.check_totp(tx, &login.code)?,
            };
            if matches!(check, Check::Wrong) {
                factors::count_miss(tx, &half.id)?;
            }
            Ok::<_, AuthError>(Some((checker.account, check)))
        });
        let tried = match tried.await {
            Ok(tried) => tried.value,
            // Nothing was compared, or what came of it was taken back.
            Err(error) => {
                charged.held();
                return Err(error);
            }
        };
        match tried {
            Some((account, Check::Held)) => {
                charged.held();
                self.enter(db, scope, &collection, account, factor, login.wish).await
            }
            Some((account, Check::Pause(seconds))) => {
                charged.held();
                let who = Who::Account(&account.collection, account.record.id.as_str());
                self.note_login(db, &scope.meta, factor, who, Err(pause(seconds)))
            }
            Some((_, Check::Unreadable)) => {
                charged.held();
                Err(unreadable())
            }
            Some((account, Check::Wrong)) => {
                let who = Who::Account(&account.collection, account.record.id.as_str());
                self.note_login(db, &scope.meta, factor, who, Err(AuthError::Credentials))
            }
            None => self.note_login(db, &scope.meta, factor, nobody, Err(AuthError::Credentials)),
        }
    }

    fn checker(&self, owner: &Owner<'_>) -> Checker {
        let account = Arc::clone(&owner.account);
        Checker { sealer: self.0.sealer.clone(), tenant: owner.db.id().clone(), account }
    }
}

impl Checker {
    /// A code of the confirmed app.
    fn check_totp(&self, tx: &mut WriteTx<'_>, code: &Secret) -> Result<Check, AuthError> {
        match find(tx, &self.account)?.filter(|row| row.confirmed) {
            Some(row) => self.check(tx, row, code),
            None => Ok(Check::Wrong),
        }
    }

    /// A recovery code of an account that has a confirmed app.
    fn check_recovery(&self, tx: &mut WriteTx<'_>, code: &Secret) -> Result<Check, AuthError> {
        let enrolled = find(tx, &self.account)?.is_some_and(|row| row.confirmed);
        let held = enrolled && recovery_codes::redeem(tx, &self.account, code)?;
        Ok(if held { Check::Held } else { Check::Wrong })
    }

    fn check_either(&self, tx: &mut WriteTx<'_>, code: &Secret) -> Result<Check, AuthError> {
        match self.check_recovery(tx, code)? {
            Check::Held => Ok(Check::Held),
            _ => self.check_totp(tx, code),
        }
    }

    /// Compares, and stores what became of it: the step that is used up, or the miss.
    fn check(&self, tx: &mut WriteTx<'_>, row: TotpRow, code: &Secret) -> Result<Check, AuthError> {
        let now_ms = tx.now_ms();
        let free_ms = row.missed_ms.saturating_add(pause_ms(row.misses));
        if now_ms < free_ms {
            let seconds = u32::try_from((free_ms - now_ms + 999) / 1_000).unwrap_or(u32::MAX);
            return Ok(Check::Pause(seconds));
        }
        let opened = self.sealer.open(&self.tenant, &place(&self.account), &row.sealed);
        let Some(secret) = opened.and_then(TotpSecret::from_bytes) else { return Ok(Check::Unreadable) };
        let step = secret.check(code.expose(), now_ms).map(step_number).filter(|step| *step > row.last_step);
        let values = match step {
            Some(step) => vec![("lastStep", Stored::Real(step)), ("misses", Stored::Real(0.0))],
            None => vec![
                ("misses", Stored::Real(f64::from(row.misses.saturating_add(1)))),
                ("missed", Stored::from(datetime::format_ms(now_ms))),
            ],
        };
        let totps = totps(tx.schema())?;
        tx.update(&totps, &row.id, &rows::changes(&totps, &values))?;
        Ok(if step.is_some() { Check::Held } else { Check::Wrong })
    }
}

/// The step as it is stored; exact for the next quarter of a billion years.
#[expect(clippy::cast_precision_loss, reason = "steps stay far below 2^52")]
fn step_number(step: u64) -> f64 {
    step as f64
}

/// How long an account waits after so many misses in a row.
fn pause_ms(misses: u32) -> i64 {
    let Some(beyond) = misses.checked_sub(limits::TOTP_FREE_MISSES) else { return 0 };
    let seconds = limits::TOTP_PAUSE_S.saturating_mul(1_u64 << beyond.min(16)).min(limits::TOTP_PAUSE_S_MAX);
    i64::try_from(seconds).unwrap_or(0) * 1_000
}

fn require_totp(collection: &AuthCollection) -> Result<(), AuthError> {
    if collection.is_enabled("totp") { Ok(()) } else { Err(AuthError::MethodDisabled("TOTP")) }
}

/// What the app calls the account.
pub(super) fn label(account: &AuthRecord) -> &str {
    Some(account::email(account)).filter(|email| !email.is_empty()).unwrap_or_else(|| account.record.id.as_str())
}

/// Where the secret is sealed for.
fn place(account: &AuthRecord) -> String {
    sealed::totp_place(account.collection.id.as_str(), account.record.id.as_str())
}

/// The account's app, if it has one.
pub(super) fn find(reader: &Reader<'_>, account: &AuthRecord) -> Result<Option<TotpRow>, AuthError> {
    let totps = totps(reader.schema())?;
    let owner = [("collectionRef", account.collection.id.as_str()), ("recordRef", account.record.id.as_str())];
    let row = rows::find_by_texts(reader, &totps, &owner)?.pop();
    Ok(row.map(|row| TotpRow {
        confirmed: rows::flag(&totps, &row, "confirmed"),
        sealed: rows::text(&totps, &row, "sealed").to_owned(),
        last_step: rows::number(&totps, &row, "lastStep"),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        misses: rows::number(&totps, &row, "misses") as u32,
        missed_ms: rows::moment_ms(&totps, &row, "missed").unwrap_or(0),
        id: row.id,
    }))
}

/// Keeps a secret that no code has proved yet, in the place of an older one of that kind.
fn store_pending(tx: &mut WriteTx<'_>, account: &AuthRecord, id: RecordId, sealed: String) -> Result<(), AuthError> {
    let totps = totps(tx.schema())?;
    match find(tx, account)? {
        Some(row) if row.confirmed => {
            return Err(AuthError::field("totp", "validation_totp_enabled", "An authenticator app is set up already."));
        }
        Some(row) => tx.delete(&totps, &row.id)?,
        None => {}
    }
    let values = [
        ("collectionRef", Stored::text(&account.collection.id)),
        ("recordRef", Stored::text(&account.record.id)),
        ("sealed", Stored::from(sealed)),
    ];
    Ok(tx.insert(&totps, &rows::image(&totps, id, &values, tx.now_ms()))?)
}

/// Takes the app and the recovery codes of an account away.
pub(super) fn forget(tx: &mut WriteTx<'_>, account: &AuthRecord) -> Result<(), AuthError> {
    let totps = totps(tx.schema())?;
    if let Some(row) = find(tx, account)? {
        tx.delete(&totps, &row.id)?;
    }
    recovery_codes::forget(tx, account)
}

fn totps(schema: &Schema) -> Result<Arc<Collection>, AuthError> {
    schema.find(TOTPS).cloned().ok_or_else(|| AuthError::UnknownCollection(TOTPS.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_and_is_bounded() {
        let seconds: Vec<i64> = (0..14).map(|misses| pause_ms(misses) / 1_000).collect();
        assert_eq!(seconds, [0, 0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900, 900, 900]);
        assert_eq!(pause_ms(u32::MAX), 900_000);
    }
}
