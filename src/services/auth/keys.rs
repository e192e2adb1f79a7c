//! API keys: an account's rights, narrowed to collections and operations, for a program.
//!
//! A key is `tnk_<id>.<secret>`; one that belongs to a superuser starts with `tnn_` and lives in the control database.
//!
//! Keeps true: only the digest is stored and the secret is shown once; a key never reaches further than its account, and
//! what its scopes do not name is refused; deleting a key acts on the next request; a key cannot make or change keys.
//! Does not do: deciding which route needs which scope (the transport asks [`KeyScopes::allows`] for each).

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::{Auth, AuthScope, Caller, Identity};
use crate::kernel::datetime;
use crate::kernel::error::Detail;
use crate::kernel::ident::{CollectionId, RecordId};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::request::{AuthRecord, RequestContext};
use crate::query::resolve::Reach;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::services::tenants::rows;
use crate::services::tenants::system::API_KEYS;
use crate::store::{TenantDb, WriteMeta, WriteTx};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

const TENANT_PREFIX: &str = "tnk_";
const NODE_PREFIX: &str = "tnn_";
/// A key's `lastUsed` is written at most this often.
const LAST_USED_EVERY_MS: i64 = 3_600_000;

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyOperation {
    /// List, get, search, subscribe.
    Read,
    /// Create records.
    Create,
    /// Change records.
    Update,
    /// Delete records.
    Delete,
}

impl KeyOperation {
    /// Every operation.
    pub const ALL: [Self; 4] = [Self::Read, Self::Create, Self::Update, Self::Delete];

    /// The operation's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == text)
    }
}

/// To what a key is narrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyScopes {
    /// Names or ids of collections; empty is every collection that the account reaches.
    pub collections: Vec<Arc<str>>,
    /// The operations; empty is none.
    pub operations: Vec<KeyOperation>,
}

impl KeyScopes {
    /// Whether the key may do `operation` in `collection`.
    pub fn allows(&self, collection: &Collection, operation: KeyOperation) -> bool {
        self.operations.contains(&operation) && (!self.is_narrow() || self.names(collection))
    }

    /// The collections into which what the key asks may lead.
    pub fn reach(&self, schema: &Schema) -> Reach {
        if !self.is_narrow() {
            return Reach::EVERYWHERE;
        }
        let named = schema.collections().iter().filter(|collection| self.names(collection));
        Reach::only(named.map(|collection| collection.id.clone()))
    }

    fn names(&self, collection: &Collection) -> bool {
        self.collections.iter().any(|name| is_called(collection, name))
    }

    /// Whether the key is narrowed to certain collections, so that it must not be led into others by `expand` and such.
    pub fn is_narrow(&self) -> bool {
        !self.collections.is_empty()
    }

    fn to_json(&self) -> Value {
        let operations: Vec<&str> = self.operations.iter().map(|operation| operation.as_str()).collect();
        json!({"collections": self.collections, "operations": operations})
    }

    /// [`KeyScopes::from_json`] for a request: a member that is not known is refused, for without it the key would reach
    /// further than was meant.
    pub fn from_request(value: &Value) -> Result<Self, Detail> {
        let members = value.as_object().into_iter().flatten();
        if let Some((unknown, _)) =
            members.into_iter().find(|(name, _)| !["collections", "operations"].contains(&name.as_str()))
        {
            let message = "Is not a member of scopes; collections and operations are.";
            return Err(Detail::new(format!("scopes.{unknown}"), "validation_unknown_member", message));
        }
        let read = Some(value).filter(|value| value.is_object() || value.is_null()).and_then(Self::from_json);
        read.ok_or_else(|| {
            let known: Vec<&str> = KeyOperation::ALL.into_iter().map(KeyOperation::as_str).collect();
            let message = format!("Must be {{collections?: [names], operations: [some of {}]}}.", known.join(", "));
            Detail::new("scopes", "validation_invalid_value", message)
        })
    }

    /// Reads `{collections: […], operations: ["read", …]}`. `None` if anything in it is not understood.
    pub fn from_json(value: &Value) -> Option<Self> {
        let list = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(Value::as_str).collect::<Option<Vec<&str>>>(),
            Some(_) => None,
        };
        Some(Self {
            collections: list("collections")?.into_iter().map(Arc::from).collect(),
            operations: list("operations")?.into_iter().map(KeyOperation::parse).collect::<Option<Vec<_>>>()?,
        })
    }
}

fn is_called(collection: &Collection, name: &str) -> bool {
    name == collection.id.as_str() || name.eq_ignore_ascii_case(collection.name.as_str())
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct CreateKey {
    /// What it is for, in words.
    pub name: String,
    /// To what it is narrowed.
    pub scopes: KeyScopes,
    /// Addresses or networks (`10.0.0.0/8`) it may be used from; empty is anywhere.
    pub ips: Vec<String>,
    /// When it ends, milliseconds since the Unix epoch; `None` is never.
    pub expires_ms: Option<i64>,
}

/// What a list shows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its id.
    pub id: Arc<str>,
    /// What it is for.
    pub name: String,
    /// To what it is narrowed.
    pub scopes: KeyScopes,
    /// From where it may be used.
    pub ips: Vec<String>,
    /// When it was made, storage form.
    pub created: String,
    /// When it was last used, to the hour, storage form; empty is never.
    pub last_used: String,
    /// When it ends, storage form; empty is never.
    pub expires: String,
}

impl Auth {
    /// Makes a key that acts as the account of `identity`. The secret is in the answer and nowhere else.
    pub async fn create_key(
        &self,
        scope: &AuthScope,
        identity: &Identity,
        request: CreateKey,
    ) -> Result<(KeyInfo, Secret), AuthError> {
        let (db, account, prefix) = self.key_owner(scope, identity)?;
        // A superuser's key is good at every tenant; its collections are looked for where it is made, and at the node.
        check_request(&request, &[scope.tenant.schema(), db.schema()], self.0.clock.now_ms())?;
        let id = RecordId::generate(self.0.random.as_ref());
        let secret = opaque::generate(self.0.random.as_ref(), "");
        let values = vec![
            ("name", Stored::text(request.name.trim())),
            ("collectionRef", Stored::text(&account.collection.id)),
            ("recordRef", Stored::text(&account.record.id)),
            ("secretHash", Stored::from(opaque::digest_hex(secret.expose()))),
            ("scopes", Stored::from(request.scopes.to_json().to_string())),
            ("ips", Stored::from(json!(request.ips).to_string())),
            ("expires", Stored::from(request.expires_ms.map(datetime::format_ms).unwrap_or_default())),
        ];
        let (owner, row_id, accounts) = (owner_of(account), id.clone(), Arc::clone(&account.collection));
        let info = db
            .write(scope.meta.clone(), move |tx| {
                let keys = keys(tx.schema())?;
                // The node's own key is a superuser without a record; it cannot own what must end with its owner.
                if tx.find_record(&accounts, owner.1.as_str())?.is_none() {
                    return Err(AuthError::Forbidden);
                }
                if of_owner(tx, &keys, &owner)?.len() >= limits::KEYS_PER_ACCOUNT_MAX {
                    return Err(AuthError::field("name", "validation_max_size", "The account has too many keys."));
                }
                let image = rows::image(&keys, row_id, &values, tx.now_ms());
                tx.insert(&keys, &image)?;
                Ok(info(&keys, &image))
            })
            .await?
            .value;
        Ok((info, Secret::new(format!("{prefix}{id}.{}", secret.expose()))))
    }

    /// The keys of the account of `identity`.
    pub async fn list_keys(&self, scope: &AuthScope, identity: &Identity) -> Result<Vec<KeyInfo>, AuthError> {
        let (db, account, _) = self.key_owner(scope, identity)?;
        let owner = owner_of(account);
        db.read(move |reader| {
            let keys = keys(reader.schema())?;
            Ok::<_, AuthError>(of_owner(reader, &keys, &owner)?.iter().map(|row| info(&keys, row)).collect())
        })
        .await
    }

    /// Gives a key another secret; the old one ends at once.
    pub async fn rotate_key(&self, scope: &AuthScope, identity: &Identity, id: &str) -> Result<Secret, AuthError> {
        let (db, account, prefix) = self.key_owner(scope, identity)?;
        let secret = opaque::generate(self.0.random.as_ref(), "");
        let text = Secret::new(format!("{prefix}{id}.{}", secret.expose()));
        let (owner, id) = (owner_of(account), account::record_id(id).ok_or(AuthError::NotFound("key"))?);
        db.write(scope.meta.clone(), move |tx| {
            let keys = own_key(tx, &owner, &id)?;
            let values = [("secretHash", Stored::from(opaque::digest_hex(secret.expose())))];
            Ok::<_, AuthError>(tx.update(&keys, &id, &rows::changes_at(&keys, &values, tx.now_ms()))?)
        })
        .await?;
        Ok(text)
    }

    /// Deletes a key.
    pub async fn revoke_key(&self, scope: &AuthScope, identity: &Identity, id: &str) -> Result<(), AuthError> {
        let (db, account, _) = self.key_owner(scope, identity)?;
        let (owner, id) = (owner_of(account), account::record_id(id).ok_or(AuthError::NotFound("key"))?);
        db.write(scope.meta.clone(), move |tx| {
            let keys = own_key(tx, &owner, &id)?;
            Ok::<_, AuthError>(tx.delete(&keys, &id)?)
        })
        .await?;
        Ok(())
    }

    /// Whether `token` has the form of a key.
    pub(super) fn is_key(token: &str) -> bool {
        token.starts_with(TENANT_PREFIX) || token.starts_with(NODE_PREFIX)
    }

    /// Who comes with the key `token` from `ip`, if the key's owner may come in at all.
    pub(super) async fn check_key(
        &self,
        tenant: &TenantDb,
        token: &str,
        ip: Option<IpAddr>,
        request: &RequestContext,
    ) -> Result<Identity, AuthError> {
        let control = self.0.registry.control();
        let (db, rest) = match (token.strip_prefix(NODE_PREFIX), token.strip_prefix(TENANT_PREFIX)) {
            (Some(rest), _) => (control, rest),
            (None, Some(rest)) => (tenant, rest),
            (None, None) => return Err(AuthError::Revoked),
        };
        let (id, secret) = rest.split_once('.').filter(|_| rest.len() <= 128).ok_or(AuthError::Revoked)?;
        let row = self.key_row(db, id).await?;
        let text = |name: &str| rows::text(&row.collection, &row.record, name);
        if !opaque::matches_digest(secret, text("secretHash")) || !admits_ip(text("ips"), ip) {
            return Err(AuthError::Revoked);
        }
        let owner = CollectionId::parse(text("collectionRef")).map_err(|_| AuthError::Revoked)?;
        let owner = AuthCollection::find_id(&db.schema(), &owner).ok_or(AuthError::Revoked)?;
        let account = self.known_record(db, &owner.collection, text("recordRef")).await?.ok_or(AuthError::Revoked)?;
        match self.admit(db, &owner, &account, request).await {
            Err(AuthError::Suspended | AuthError::RuleRefused) => return Err(AuthError::Revoked),
            admitted => admitted?,
        }
        self.note_use(db, &row, self.0.clock.now_ms());
        let expires_ms = rows::moment_ms(&row.collection, &row.record, "expires");
        Ok(Identity {
            caller: if db.id() == control.id() { Caller::Superuser(account) } else { Caller::Record(account) },
            session: None,
            impersonator: None,
            key: Some(Arc::new(key_use(&row)?)),
            refreshable: false,
            expires_s: expires_ms.map_or(0, |ms| ms.div_euclid(1_000)),
            login_s: None,
        })
    }

    /// The row of a key that is there and not over.
    async fn key_row(&self, db: &TenantDb, id: &str) -> Result<Arc<AuthRecord>, AuthError> {
        let keys = keys(&db.schema())?;
        let row = self.known_record(db, &keys, id).await?.ok_or(AuthError::Revoked)?;
        let expires_ms = rows::moment_ms(&row.collection, &row.record, "expires");
        if expires_ms.is_some_and(|expires_ms| expires_ms <= self.0.clock.now_ms()) {
            return Err(AuthError::Revoked);
        }
        Ok(row)
    }

    /// What a file token says about the key it is made with. A key that is bound to addresses makes none: the token, as part
    /// of a link, would work from anywhere.
    pub(super) async fn file_token_of_key(&self, db: &TenantDb, key: &KeyUse) -> Result<String, AuthError> {
        let row = self.key_row(db, &key.id).await?;
        if !matches!(rows::text(&row.collection, &row.record, "ips"), "" | "[]") {
            return Err(AuthError::Forbidden);
        }
        Ok(made_with(&row))
    }

    /// The key that a file token was made with, if it still has the secret it had.
    pub(super) async fn key_of_file_token(&self, db: &TenantDb, told: &str) -> Result<KeyUse, AuthError> {
        let id = told.split_once('.').map_or(told, |(id, _)| id);
        let row = self.key_row(db, id).await?;
        if made_with(&row) != told {
            return Err(AuthError::Revoked);
        }
        key_use(&row)
    }

    /// Writes `lastUsed` on the side, seldom.
    fn note_use(&self, db: &TenantDb, row: &Arc<AuthRecord>, now_ms: i64) {
        let last_ms = rows::moment_ms(&row.collection, &row.record, "lastUsed").unwrap_or(0);
        if now_ms.saturating_sub(last_ms) < LAST_USED_EVERY_MS {
            return;
        }
        let (db, row) = (db.clone(), Arc::clone(row));
        tokio::spawn(async move {
            let used = db.write(WriteMeta::system("key-use"), move |tx| {
                // Others came with it at the same time, or it is gone.
                let now = tx.find_record(&row.collection, row.record.id.as_str())?;
                if now.is_none_or(|now| rows::text(&row.collection, &now, "lastUsed") != last_used(&row)) {
                    return Ok(());
                }
                let values = [("lastUsed", Stored::from(datetime::format_ms(now_ms)))];
                tx.update(&row.collection, &row.record.id, &rows::changes(&row.collection, &values))
            });
            if let Err(error) = used.await {
                tracing::debug!(%error, "a key's last use was not noted");
            }
        });
    }

    fn key_owner<'scope>(
        &'scope self,
        scope: &'scope AuthScope,
        identity: &'scope Identity,
    ) -> Result<(&'scope TenantDb, &'scope Arc<AuthRecord>, &'static str), AuthError> {
        if identity.key.is_some() || identity.impersonator.is_some() {
            return Err(AuthError::Forbidden);
        }
        match &identity.caller {
            Caller::Anonymous => Err(AuthError::LoginRequired),
            Caller::Record(account) => Ok((&scope.tenant, account, TENANT_PREFIX)),
            Caller::Superuser(account) => Ok((self.0.registry.control(), account, NODE_PREFIX)),
        }
    }
}

/// The key a request came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// Its id.
    pub id: Arc<str>,
    /// To what it is narrowed.
    pub scopes: KeyScopes,
    /// Itself and the secret it was shown with, see [`made_with`].
    shown: Arc<str>,
}

impl KeyUse {
    /// Whether `row` still is that key, with the secret it was shown with.
    pub(super) fn is_of(&self, row: &AuthRecord) -> bool {
        *self.shown == *made_with(row)
    }
}

/// Scopes that cannot be read allow nothing.
fn key_use(row: &AuthRecord) -> Result<KeyUse, AuthError> {
    let scopes = serde_json::from_str(rows::text(&row.collection, &row.record, "scopes")).ok();
    let scopes = scopes.as_ref().and_then(KeyScopes::from_json).ok_or(AuthError::Revoked)?;
    Ok(KeyUse { id: Arc::from(row.record.id.as_str()), scopes, shown: Arc::from(made_with(row)) })
}

fn last_used(row: &AuthRecord) -> &str {
    rows::text(&row.collection, &row.record, "lastUsed")
}

/// Names a key and its present secret without telling either's.
fn made_with(row: &AuthRecord) -> String {
    let digest = opaque::digest_hex(&format!("file/{}", rows::text(&row.collection, &row.record, "secretHash")));
    format!("{}.{}", row.record.id, digest.get(..16).unwrap_or_default())
}

type Owner = (CollectionId, RecordId);

fn owner_of(account: &AuthRecord) -> Owner {
    (account.collection.id.clone(), account.record.id.clone())
}

/// Ends every key of one account.
pub(super) fn forget(tx: &mut WriteTx<'_>, account: &AuthRecord) -> Result<(), AuthError> {
    let keys = keys(tx.schema())?;
    for row in of_owner(tx, &keys, &owner_of(account))? {
        tx.delete(&keys, &row.id)?;
    }
    Ok(())
}

fn own_key(tx: &WriteTx<'_>, owner: &Owner, id: &RecordId) -> Result<Arc<Collection>, AuthError> {
    let keys = keys(tx.schema())?;
    let row = tx.find_record(&keys, id.as_str())?.ok_or(AuthError::NotFound("key"))?;
    let text = |name: &str| rows::text(&keys, &row, name);
    if text("collectionRef") == owner.0.as_str() && text("recordRef") == owner.1.as_str() {
        Ok(keys)
    } else {
        Err(AuthError::NotFound("key"))
    }
}

fn of_owner(
    reader: &crate::store::Reader<'_>,
    keys: &Arc<Collection>,
    owner: &Owner,
) -> Result<Vec<RecordImage>, AuthError> {
    Ok(rows::find_by_texts(reader, keys, &[("collectionRef", owner.0.as_str()), ("recordRef", owner.1.as_str())])?)
}

fn keys(schema: &Schema) -> Result<Arc<Collection>, AuthError> {
    schema.find(API_KEYS).cloned().ok_or_else(|| AuthError::UnknownCollection(API_KEYS.to_owned()))
}

fn info(keys: &Collection, row: &RecordImage) -> KeyInfo {
    let text = |name: &str| rows::text(keys, row, name).to_owned();
    let json = |name: &str| serde_json::from_str::<Value>(&text(name)).unwrap_or_default();
    KeyInfo {
        id: Arc::from(row.id.as_str()),
        name: text("name"),
        scopes: KeyScopes::from_json(&json("scopes"))
            .unwrap_or(KeyScopes { collections: Vec::new(), operations: Vec::new() }),
        ips: serde_json::from_value(json("ips")).unwrap_or_default(),
        created: text("created"),
        last_used: text("lastUsed"),
        expires: text("expires"),
    }
}

fn check_request(request: &CreateKey, schemas: &[Arc<Schema>], now_ms: i64) -> Result<(), AuthError> {
    let mut details = Vec::new();
    if request.name.trim().is_empty() || request.name.chars().count() > 100 {
        details.push(Detail::new("name", "validation_length_out_of_range", "Must have 1 to 100 characters."));
    }
    if request.scopes.operations.is_empty() {
        let message = "Name at least one of read, create, update, delete.";
        details.push(Detail::new("scopes.operations", "validation_required", message));
    }
    if request.scopes.collections.len() > 100 {
        details.push(Detail::new("scopes.collections", "validation_max_size", "At most 100 collections."));
    }
    let known = |name: &str| schemas.iter().flat_map(|schema| schema.collections()).any(|known| is_called(known, name));
    for (at, name) in request.scopes.collections.iter().enumerate().take(100).filter(|(_, name)| !known(name)) {
        let message =
            format!("There is no collection {name:?} here; a key is made at the tenant that has its collections.");
        let field = format!("scopes.collections.{at}");
        details.push(Detail::new(field, "validation_missing_collection", message));
    }
    if request.ips.len() > 100 || !request.ips.iter().all(|text| Network::parse(text).is_some()) {
        let message = "At most 100 addresses or networks such as 10.0.0.0/8.";
        details.push(Detail::new("ips", "validation_invalid_ip", message));
    }
    if request.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
        details.push(Detail::new("expires", "validation_min_greater_than_required", "Must lie in the future."));
    }
    if details.is_empty() { Ok(()) } else { Err(AuthError::Invalid(details)) }
}

/// An address with the number of leading bits that count.
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.trim().parse().ok()?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(widest), |bits| bits.parse().ok().filter(|bits| *bits <= widest))?;
        Some(Self { address, bits })
    }

    fn contains(&self, ip: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| a.checked_shr(width - self.bits) == b.checked_shr(width - self.bits);
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

/// Whether the stored list of networks admits `ip`. A list that cannot be read admits nobody.
fn admits_ip(stored: &str, ip: Option<IpAddr>) -> bool {
    let Ok(networks) = serde_json::from_str::<Vec<String>>(stored) else { return stored.is_empty() };
    networks.is_empty()
        || ip.is_some_and(|ip| {
            networks.iter().filter_map(|text| Network::parse(text)).any(|network| network.contains(ip))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_they_should() {
        for (network, ip, expected) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::/0", "10.0.0.1", false),
        ] {
            let network = Network::parse(network).unwrap();
            assert_eq!(network.contains(ip.parse().unwrap()), expected, "{ip}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "x", "::/129", "10.0.0.1/-1"] {
            assert!(Network::parse(text).is_none(), "{text}");
        }
        assert!(admits_ip("[]", None) && admits_ip("", None));
        assert!(!admits_ip(r#"["10.0.0.1"]"#, None) && !admits_ip("damaged", Some("10.0.0.1".parse().unwrap())));
    }

    #[test]
    fn scopes_read_back_and_unknown_ones_are_refused() {
        let scopes = KeyScopes { collections: vec![Arc::from("posts")], operations: vec![KeyOperation::Read] };
        assert_eq!(KeyScopes::from_json(&scopes.to_json()), Some(scopes));
        for refused in
            [json!({"operations": ["everything"]}), json!({"operations": "read"}), json!({"collections": [1]})]
        {
            assert_eq!(KeyScopes::from_json(&refused), None);
        }
        assert_eq!(KeyScopes::from_json(&json!({})).map(|scopes| scopes.operations.len()), Some(0));
    }
}
