//! Passkeys (WebAuthn 3): an account's owner adds them; logging in names nobody, the passkey does.
//!
//! Keeps true: every ceremony asks for user verification and is answered once; beginning to log in is the same for
//! everybody, so it tells nothing about accounts; a signature counter that does not rise is refused, also between two
//! logins at the same time; whatever does not hold about a login is one and the same refusal.
//! Does not do: attestation: any authenticator the owner trusts will do.

use super::account::{self, AuthCollection};
use super::challenges::{Ceremony, Place};
use super::error::AuthError;
use super::events::Who;
use super::factors::{Factor, LoginWish};
use super::login::{self, Grant};
use super::totp::{self, FactorsChanged};
use super::{Auth, AuthScope, Identity, sessions};
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
use crate::services::tenants::system::PASSKEYS;
use crate::store::{Reader, TenantDb, WriteTx};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::subscriber::{NoSubscriber, with_default};
use webauthn_rs::prelude::{
    AuthenticationResult, Credential, CredentialID, Passkey, PublicKeyCredential, RegisterPublicKeyCredential, Uuid,
    Webauthn, WebauthnBuilder,
};

/// A ceremony that began: what the browser's `navigator.credentials` is given.
#[derive(Debug, Clone)]
pub struct PasskeyChallenge {
    /// Names the ceremony in the answer.
    pub id: Secret,
    /// `{publicKey: …}`.
    pub options: Value,
}

/// A passkey to be added.
#[derive(Debug, Clone)]
pub struct NewPasskey {
    /// From the beginning of the ceremony.
    pub challenge_id: Secret,
    /// What `navigator.credentials.create` gave, as JSON.
    pub credential: Value,
    /// What its owner calls it.
    pub name: String,
}

/// A login with a passkey.
#[derive(Debug, Clone)]
pub struct PasskeyLogin {
    /// From the beginning of the ceremony.
    pub challenge_id: Secret,
    /// What `navigator.credentials.get` gave, as JSON.
    pub credential: Value,
    /// How the login wants to end.
    pub wish: LoginWish,
}

/// What a list shows of a passkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasskeyInfo {
    /// Its id.
    pub id: Arc<str>,
    /// What its owner calls it.
    pub name: String,
    /// For which host it is good.
    pub rp_id: String,
    /// Whether it is kept in more than one place.
    pub backed_up: bool,
    /// When it was added, storage form.
    pub created: String,
    /// When it was last used, storage form; empty is never.
    pub last_used: String,
}

impl Auth {
    /// Begins to add a passkey to the account of `identity`; `host` is the tenant's own, if the request came by one.
    pub async fn begin_passkey(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
        password: Option<Secret>,
        host: Option<&str>,
    ) -> Result<PasskeyChallenge, AuthError> {
        let owner = self.owner_of(scope, collection, identity).await?;
        let (site, place) = self.site(owner.db, &owner.collection, host)?;
        self.prove(&owner, scope, password).await?;
        let account = Arc::clone(&owner.account);
        let known = owner.db.read(move |reader| known_ids(reader, &account)).await?;
        let handle = user_handle(&place, owner.account.record.id.as_str());
        let label = totp::label(&owner.account);
        let begun = quietly(|| site.start_passkey_registration(handle, label, label, Some(known)));
        let (options, state) = begun.map_err(|_| AuthError::MethodDisabled("passkey"))?;
        let mut options = serde_json::to_value(options).unwrap_or_default();
        // Only a passkey that names its account can log in without being asked for one.
        options["publicKey"]["authenticatorSelection"]["residentKey"] = json!("required");
        options["publicKey"]["authenticatorSelection"]["requireResidentKey"] = json!(true);
        let ceremony = Ceremony::Register(state, owner.account.record.id.clone(), handle.to_string());
        Ok(PasskeyChallenge { id: self.keep(scope, place, ceremony), options })
    }

    /// Adds the passkey that a browser made, and ends every session but the one that asks.
    pub async fn add_passkey(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
        new: NewPasskey,
        host: Option<&str>,
    ) -> Result<(PasskeyInfo, Grant), AuthError> {
        let owner = self.owner_of(scope, collection, identity).await?;
        let (site, place) = self.site(owner.db, &owner.collection, host)?;
        let name = check_name(&new.name)?;
        let refused =
            || AuthError::field("credential", "validation_invalid_passkey", "The passkey does not hold; begin again.");
        let ceremony = self.0.challenges.take(&new.challenge_id, &place, self.0.clock.now_ms());
        let Some(Ceremony::Register(state, account, handle)) = ceremony else { return Err(refused()) };
        if account != owner.account.record.id {
            return Err(refused());
        }
        let answer: RegisterPublicKeyCredential = serde_json::from_value(new.credential).map_err(|_| refused())?;
        let passkey = quietly(|| site.finish_passkey_registration(&answer, &state)).map_err(|_| refused())?;
        let id = RecordId::generate(self.0.random.as_ref());
        let values = vec![
            ("name", Stored::from(name)),
            ("rpId", Stored::from(place.party)),
            ("userHandle", Stored::from(handle)),
        ];
        let (account, renewal) = (Arc::clone(&owner.account), owner.renewal(self));
        let written = owner.db.write(scope.meta.clone(), move |tx| {
            let added = store(tx, &account, id, passkey, values)?;
            renewal.run(tx)?;
            Ok::<_, AuthError>(added)
        });
        let added = written.await?.value;
        Ok((added, self.go_on(owner).await?))
    }

    /// The passkeys of the account of `identity`.
    pub async fn list_passkeys(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
    ) -> Result<Vec<PasskeyInfo>, AuthError> {
        let owner = self.owner_of(scope, collection, identity).await?;
        let account = Arc::clone(&owner.account);
        owner
            .db
            .read(move |reader| {
                let passkeys = passkeys(reader.schema())?;
                let rows = of_account(reader, &passkeys, &account)?;
                Ok::<_, AuthError>(rows.iter().map(|row| info(&passkeys, row)).collect())
            })
            .await
    }

    /// Calls a passkey something else.
    pub async fn rename_passkey(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
        id: &str,
        name: &str,
    ) -> Result<PasskeyInfo, AuthError> {
        let owner = self.owner_of(scope, collection, identity).await?;
        let (name, id) = (check_name(name)?, account::record_id(id).ok_or(AuthError::NotFound("passkey"))?);
        let account = Arc::clone(&owner.account);
        let written = owner.db.write(scope.meta.clone(), move |tx| {
            let (passkeys, _) = own(tx, &account, &id)?;
            tx.update(&passkeys, &id, &rows::changes_at(&passkeys, &[("name", Stored::from(name))], tx.now_ms()))?;
            Ok::<_, AuthError>(info(&passkeys, &own(tx, &account, &id)?.1))
        });
        Ok(written.await?.value)
    }

    /// Takes a passkey away, and ends every session but the one that asks.
    pub async fn remove_passkey(
        &self,
        scope: &AuthScope,
        collection: &str,
        identity: &Identity,
        id: &str,
        password: Option<Secret>,
    ) -> Result<FactorsChanged, AuthError> {
        let owner = self.owner_of(scope, collection, identity).await?;
        let id = account::record_id(id).ok_or(AuthError::NotFound("passkey"))?;
        self.prove(&owner, scope, password).await?;
        let (account, renewal) = (Arc::clone(&owner.account), owner.renewal(self));
        let done = owner.db.write(scope.meta.clone(), move |tx| {
            let (passkeys, row) = own(tx, &account, &id)?;
            tx.delete(&passkeys, &row.id)?;
            renewal.run(tx)
        });
        done.await?;
        Ok(FactorsChanged { grant: self.go_on(owner).await?, recovery_codes: Vec::new() })
    }

    /// Begins a login; the same for everybody.
    pub fn begin_passkey_login(
        &self,
        scope: &AuthScope,
        collection: &str,
        host: Option<&str>,
    ) -> Result<PasskeyChallenge, AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        let (site, place) = self.site(db, &collection, host)?;
        let begun = quietly(|| site.start_discoverable_authentication());
        let (mut options, state) = begun.map_err(|_| AuthError::MethodDisabled("passkey"))?;
        // Whether to ask in a dialogue or while typing is the page's choice.
        options.mediation = None;
        let options = serde_json::to_value(options).unwrap_or_default();
        Ok(PasskeyChallenge { id: self.keep(scope, place, Ceremony::Login(state)), options })
    }

    /// Logs in with a passkey.
    pub async fn auth_with_passkey(
        &self,
        scope: &AuthScope,
        collection: &str,
        login: PasskeyLogin,
        host: Option<&str>,
    ) -> Result<Grant, AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        let wish = login.wish.clone();
        let held = self.guess_passkey(db, scope, &collection, login, host).await;
        let who = Who::Nobody(&collection.collection);
        let account = self.note_login(db, &scope.meta, Factor::Passkey, who, held)?;
        self.enter(db, scope, &collection, account, Factor::Passkey, wish).await
    }

    /// [`Auth::check_passkey`], charged where it fails.
    async fn guess_passkey(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        login: PasskeyLogin,
        host: Option<&str>,
    ) -> Result<Arc<AuthRecord>, AuthError> {
        let at = self.site(db, collection, host)?;
        let guess = self.charge(db, scope, collection, "passkey")?;
        login::charged_if_wrong(guess, self.check_passkey(db, scope, collection, login, at).await)
    }

    /// The account whose passkey answered.
    async fn check_passkey(
        &self,
        db: &TenantDb,
        scope: &AuthScope,
        collection: &AuthCollection,
        login: PasskeyLogin,
        (site, place): (Webauthn, Place),
    ) -> Result<Arc<AuthRecord>, AuthError> {
        let ceremony = self.0.challenges.take(&login.challenge_id, &place, self.0.clock.now_ms());
        let Some(Ceremony::Login(state)) = ceremony else { return Err(AuthError::Credentials) };
        let answer = serde_json::from_value::<PublicKeyCredential>(login.credential);
        let answer = answer.map_err(|_| AuthError::Credentials)?;
        let (wanted, id) = (Arc::clone(&collection.collection), answer.raw_id.clone());
        let found = db.read(move |reader| find(reader, &wanted, &id)).await?.ok_or(AuthError::Credentials)?;
        let is_owner = answer.get_user_unique_id().and_then(|handle| Uuid::from_slice(handle).ok());
        if is_owner.map(|handle| handle.to_string()).as_deref() != Some(found.handle.as_str()) {
            return Err(AuthError::Credentials);
        }
        let held = quietly(|| site.finish_discoverable_authentication_v2(&answer, state, Credential::from(found.key)));
        let held = held.ok().filter(AuthenticationResult::user_verified).ok_or(AuthError::Credentials)?;
        let wanted = Arc::clone(&collection.collection);
        let meta = sessions::as_record(&scope.meta, &wanted, &found.account);
        let used = db.write(meta, move |tx| note_use(tx, &wanted, &found.id, &held));
        used.await?.value.ok_or(AuthError::Credentials)
    }

    /// Who this node is to passkeys of `collection` at `host`.
    fn site(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        host: Option<&str>,
    ) -> Result<(Webauthn, Place), AuthError> {
        let none = || AuthError::MethodDisabled("passkey");
        if !collection.is_enabled("passkey") {
            return Err(none());
        }
        let party = self.0.party.party(host).ok_or_else(none)?;
        let entry = self.0.registry.entry(db.id());
        let name = entry.as_ref().map_or("Tenantry", |entry| &entry.name);
        let first = party.origins.first().ok_or_else(none)?;
        let builder = quietly(|| WebauthnBuilder::new(&party.id, first)).map_err(|_| none())?.rp_name(name);
        let builder =
            party.origins.iter().skip(1).fold(builder, |builder, origin| builder.append_allowed_origin(origin));
        let site = builder.build().map_err(|_| none())?;
        let (tenant, collection) = (db.id().clone(), collection.collection.id.clone());
        Ok((site, Place { tenant, collection, party: party.id }))
    }

    fn keep(&self, scope: &AuthScope, place: Place, ceremony: Ceremony) -> Secret {
        let address = scope.meta.ip.as_deref().and_then(|text| text.parse().ok());
        self.0.challenges.keep(self.0.random.as_ref(), place, ceremony, address, self.0.clock.now_ms())
    }
}

/// Runs a ceremony without its own log lines: what a stranger sends is no error of this node.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    with_default(NoSubscriber::default(), run)
}

/// What authenticators call the account: not its id, which pages of other tenants at the same host could see.
fn user_handle(place: &Place, record: &str) -> Uuid {
    let digest = opaque::digest_hex(&format!("passkey/{}/{}/{record}", place.tenant, place.collection));
    let half = digest.get(..32).and_then(|half| u128::from_str_radix(half, 16).ok());
    Uuid::from_u128(half.expect("invariant: a digest is hexadecimal"))
}

fn check_name(name: &str) -> Result<String, AuthError> {
    match name.trim() {
        "" => Ok("Passkey".to_owned()),
        name if name.chars().count() <= 100 => Ok(name.to_owned()),
        _ => Err(AuthError::field("name", "validation_length_out_of_range", "Must have at most 100 characters.")),
    }
}

/// A stored passkey.
struct Found {
    id: RecordId,
    /// The account's record id.
    account: String,
    handle: String,
    key: Passkey,
}

/// The passkey with this credential id, if it belongs to an account of `accounts`.
fn find(reader: &Reader<'_>, accounts: &Collection, credential: &[u8]) -> Result<Option<Found>, AuthError> {
    let passkeys = passkeys(reader.schema())?;
    let wanted = [("credentialId", URL_SAFE_NO_PAD.encode(credential))];
    let row = rows::find_by_texts(reader, &passkeys, &wanted.each_ref().map(|(name, id)| (*name, id.as_str())))?.pop();
    let Some(row) = row.filter(|row| rows::text(&passkeys, row, "collectionRef") == accounts.id.as_str()) else {
        return Ok(None);
    };
    let Some(key) = key_of(&passkeys, &row) else { return Ok(None) };
    let text = |name: &str| rows::text(&passkeys, &row, name).to_owned();
    let (handle, account) = (text("userHandle"), text("recordRef"));
    Ok(Some(Found { id: row.id, account, handle, key }))
}

fn key_of(passkeys: &Collection, row: &RecordImage) -> Option<Passkey> {
    serde_json::from_str(rows::text(passkeys, row, "credential")).ok()
}

/// Stores what the use of a passkey says about it; the account, if passkey and account are still there.
fn note_use(
    tx: &mut WriteTx<'_>,
    accounts: &Arc<Collection>,
    id: &RecordId,
    held: &AuthenticationResult,
) -> Result<Option<Arc<AuthRecord>>, AuthError> {
    let passkeys = passkeys(tx.schema())?;
    let Some(row) = tx.find_record(&passkeys, id.as_str())? else { return Ok(None) };
    let Some(mut key) = key_of(&passkeys, &row) else { return Ok(None) };
    let counter = Credential::from(key.clone()).counter;
    // Checked against the stored counter before; another login may have raised it meanwhile.
    if (counter > 0 || held.counter() > 0) && held.counter() <= counter {
        return Ok(None);
    }
    let mut values = vec![
        ("lastUsed", Stored::from(datetime::format_ms(tx.now_ms()))),
        ("backedUp", Stored::bool(held.backup_state())),
    ];
    if key.update_credential(held) == Some(true) {
        values.push(("credential", Stored::from(serde_json::to_string(&key).unwrap_or_default())));
    }
    tx.update(&passkeys, id, &rows::changes(&passkeys, &values))?;
    Ok(account::read(tx, accounts, rows::text(&passkeys, &row, "recordRef"))?)
}

fn store(
    tx: &mut WriteTx<'_>,
    account: &AuthRecord,
    id: RecordId,
    passkey: Passkey,
    mut values: Vec<(&'static str, Stored)>,
) -> Result<PasskeyInfo, AuthError> {
    let passkeys = passkeys(tx.schema())?;
    if of_account(tx, &passkeys, account)?.len() >= limits::PASSKEYS_PER_ACCOUNT_MAX {
        return Err(AuthError::field("credential", "validation_max_size", "The account has too many passkeys."));
    }
    let credential_id = URL_SAFE_NO_PAD.encode(passkey.cred_id());
    if !rows::find_by_texts(tx, &passkeys, &[("credentialId", &credential_id)])?.is_empty() {
        return Err(AuthError::field("credential", "validation_not_unique", "The passkey is known already."));
    }
    let text = serde_json::to_string(&passkey).unwrap_or_default();
    values.extend([
        ("collectionRef", Stored::text(&account.collection.id)),
        ("recordRef", Stored::text(&account.record.id)),
        ("credentialId", Stored::from(credential_id)),
        ("credential", Stored::from(text)),
        ("backedUp", Stored::bool(Credential::from(passkey).backup_state)),
    ]);
    let image = rows::image(&passkeys, id, &values, tx.now_ms());
    tx.insert(&passkeys, &image)?;
    Ok(info(&passkeys, &image))
}

fn own(reader: &Reader<'_>, account: &AuthRecord, id: &RecordId) -> Result<(Arc<Collection>, RecordImage), AuthError> {
    let passkeys = passkeys(reader.schema())?;
    let row = reader.find_record(&passkeys, id.as_str())?.ok_or(AuthError::NotFound("passkey"))?;
    let text = |name: &str| rows::text(&passkeys, &row, name);
    let is_own =
        text("collectionRef") == account.collection.id.as_str() && text("recordRef") == account.record.id.as_str();
    if is_own { Ok((passkeys, row)) } else { Err(AuthError::NotFound("passkey")) }
}

fn known_ids(reader: &Reader<'_>, account: &AuthRecord) -> Result<Vec<CredentialID>, AuthError> {
    let passkeys = passkeys(reader.schema())?;
    let rows = of_account(reader, &passkeys, account)?;
    Ok(rows.iter().filter_map(|row| Some(key_of(&passkeys, row)?.cred_id().clone())).collect())
}

/// Takes every passkey of an account away.
pub(super) fn forget(tx: &mut WriteTx<'_>, account: &AuthRecord) -> Result<(), AuthError> {
    let passkeys = passkeys(tx.schema())?;
    for row in of_account(tx, &passkeys, account)? {
        tx.delete(&passkeys, &row.id)?;
    }
    Ok(())
}

fn of_account(reader: &Reader<'_>, passkeys: &Collection, account: &AuthRecord) -> Result<Vec<RecordImage>, AuthError> {
    let owner = [("collectionRef", account.collection.id.as_str()), ("recordRef", account.record.id.as_str())];
    Ok(rows::find_by_texts(reader, passkeys, &owner)?)
}

fn info(passkeys: &Collection, row: &RecordImage) -> PasskeyInfo {
    let text = |name: &str| rows::text(passkeys, row, name).to_owned();
    PasskeyInfo {
        id: Arc::from(row.id.as_str()),
        name: text("name"),
        rp_id: text("rpId"),
        backed_up: rows::flag(passkeys, row, "backedUp"),
        created: text("created"),
        last_used: text("lastUsed"),
    }
}

fn passkeys(schema: &Schema) -> Result<Arc<Collection>, AuthError> {
    schema.find(PASSKEYS).cloned().ok_or_else(|| AuthError::UnknownCollection(PASSKEYS.to_owned()))
}
