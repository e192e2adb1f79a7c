//! Accounts: auth collections with their options in hand, and the system fields of their records.
//!
//! Keeps true: every token kind is signed with the account's `tokenKey` and a secret of its own kind.
//! Does not do: deciding who may come in.

use super::Auth;
use super::error::AuthError;
use crate::kernel::error::Detail;
use crate::kernel::ident::{CollectionId, RecordId};
use crate::kernel::limits::PASSWORD_BYTES_MAX;
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::schema::field::{FieldKind, Storage};
use crate::schema::{AuthOptions, Collection, Schema};
use crate::secrets::Secret;
use crate::secrets::token::{TokenKey, TokenKind};
use crate::services::tenants::rows;
use crate::store::{Reader, StoreError, TenantDb};
use std::sync::Arc;

/// An auth collection and its login options.
#[derive(Debug, Clone)]
pub(super) struct AuthCollection {
    pub(super) collection: Arc<Collection>,
    pub(super) options: Arc<AuthOptions>,
}

impl AuthCollection {
    pub(super) fn find(schema: &Schema, name_or_id: &str) -> Result<Self, AuthError> {
        let unknown = || AuthError::UnknownCollection(name_or_id.to_owned());
        Self::of(schema.find(name_or_id).ok_or_else(unknown)?).ok_or_else(unknown)
    }

    pub(super) fn find_id(schema: &Schema, id: &CollectionId) -> Option<Self> {
        Self::of(schema.find_id(id)?)
    }

    pub(super) fn of(collection: &Arc<Collection>) -> Option<Self> {
        let options = collection.auth.clone().filter(|_| collection.is_auth())?;
        Some(Self { collection: Arc::clone(collection), options })
    }

    /// The secret that is mixed into tokens of `kind`.
    fn secret(&self, kind: TokenKind) -> Arc<str> {
        let own = member(kind).and_then(|member| self.options.rest.get(member)?.get("secret")?.as_str());
        match (kind, own) {
            (TokenKind::Auth, _) => Arc::clone(&self.options.token_secret),
            (_, Some(secret)) if !secret.is_empty() => Arc::from(secret),
            // Still a secret of its own kind: no token of another kind is signed with it.
            _ if self.options.token_secret.is_empty() => Arc::from(""),
            (kind, _) => Arc::from(format!("{}/{kind:?}", self.options.token_secret)),
        }
    }

    /// Seconds a token of `kind` lives.
    pub(super) fn duration_s(&self, kind: TokenKind) -> u64 {
        let fallback = match kind {
            TokenKind::Auth => return self.options.token_duration_s,
            TokenKind::File => 180,
            TokenKind::Verification | TokenKind::Registration => 259_200,
            TokenKind::PasswordReset | TokenKind::EmailChange => 1_800,
        };
        let own = member(kind).and_then(|member| self.options.rest.get(member)?.get("duration")?.as_u64());
        own.unwrap_or(fallback)
    }

    /// Whether the option group `name` (`otp`, `mfa`) is switched on. What an account's owner has to set up first is,
    /// unless it is said otherwise; collections of older files do not say.
    pub(super) fn is_enabled(&self, name: &str) -> bool {
        let said = self.options.rest.get(name).and_then(|group| group.get("enabled")?.as_bool());
        said.unwrap_or(matches!(name, "totp" | "passkey"))
    }

    /// A text of the option group `name`, empty if there is none.
    pub(super) fn text(&self, name: &str, member: &str) -> &str {
        self.options.rest.get(name).and_then(|group| group.get(member)?.as_str()).unwrap_or_default()
    }

    /// A number of the option group `name`.
    pub(super) fn number(&self, name: &str, member: &str, fallback: u64) -> u64 {
        self.options.rest.get(name).and_then(|group| group.get(member)?.as_u64()).unwrap_or(fallback)
    }
}

impl Auth {
    /// The key of tokens of `kind` for `account` of `accounts`, which live in `db`.
    pub(super) fn token_key(
        &self,
        db: &TenantDb,
        accounts: &AuthCollection,
        account: &AuthRecord,
        kind: TokenKind,
    ) -> Result<TokenKey, AuthError> {
        TokenKey::join(&self.0.sealer.token_part(db.id()), token_key(account), &accounts.secret(kind))
            .ok_or_else(|| AuthError::NoTokenKey(accounts.collection.name.to_string()))
    }
}

const fn member(kind: TokenKind) -> Option<&'static str> {
    match kind {
        TokenKind::Auth => None,
        TokenKind::File => Some("fileToken"),
        // What follows is signed with one secret and told apart by its kind.
        TokenKind::Verification | TokenKind::Registration => Some("verificationToken"),
        TokenKind::PasswordReset => Some("passwordResetToken"),
        TokenKind::EmailChange => Some("emailChangeToken"),
    }
}

/// The account's key part of every token.
pub(super) fn token_key(account: &AuthRecord) -> &str {
    rows::text(&account.collection, &account.record, "tokenKey")
}

/// The stored password hash, if the account has one.
pub(super) fn password_hash(account: &AuthRecord) -> Option<&str> {
    Some(rows::text(&account.collection, &account.record, "password")).filter(|hash| !hash.is_empty())
}

/// The e-mail address, empty if there is none.
pub(super) fn email(account: &AuthRecord) -> &str {
    rows::text(&account.collection, &account.record, "email")
}

/// Whether the e-mail address is confirmed.
pub(super) fn is_verified(account: &AuthRecord) -> bool {
    rows::flag(&account.collection, &account.record, "verified")
}

/// Reads one account.
pub(super) fn read(
    reader: &Reader<'_>,
    collection: &Arc<Collection>,
    id: &str,
) -> Result<Option<Arc<AuthRecord>>, StoreError> {
    let record = reader.find_record(collection, id)?;
    Ok(record.map(|record| Arc::new(AuthRecord { collection: Arc::clone(collection), record })))
}

/// Finds the account whose `field` is `value`; the field must be text and part of a unique index.
pub(super) fn find_by(
    reader: &Reader<'_>,
    collection: &Arc<Collection>,
    field: &str,
    value: &str,
) -> Result<Option<Arc<AuthRecord>>, StoreError> {
    let Some(field) = collection.find_field(field).filter(|field| field.kind.storage() == Storage::Text) else {
        return Ok(None);
    };
    if value.is_empty() {
        return Ok(None);
    }
    let unique = |index: &&crate::schema::Index| {
        index.unique && matches!(index.columns.as_slice(), [only] if only.field == field.number)
    };
    let nocase = collection.indexes.iter().find(unique).is_some_and(|index| index.columns.iter().any(|it| it.nocase));
    // The condition repeats the one of a partial index over non-empty values, so that the index serves the query.
    let sql = format!(
        "SELECT id FROM \"{}\" WHERE {column} = ?1 {} AND {column} != '' LIMIT 1",
        collection.table(),
        if nocase { "COLLATE NOCASE" } else { "" },
        column = field.column(),
    );
    let id = reader.find_one(&sql, &[Stored::text(value)], |row| row.stored(0))?;
    match id.as_ref().and_then(Stored::as_text) {
        Some(id) => read(reader, collection, id),
        None => Ok(None),
    }
}

/// The record id inside a token or a request, if it is one.
pub(super) fn record_id(text: &str) -> Option<RecordId> {
    RecordId::parse(text).ok()
}

/// Checks a new password against the collection's own bounds.
pub(super) fn check_password(collection: &Collection, password: &Secret, confirm: &Secret) -> Result<(), AuthError> {
    let mut details = Vec::new();
    let options = collection.find_field("password").and_then(|field| match &field.kind {
        FieldKind::Password(options) => Some(options.clone()),
        _ => None,
    });
    let (min, max) = options.map_or((0, 0), |options| (options.min, options.max));
    let min = if min == 0 { 8 } else { min };
    let max = if max == 0 { 71 } else { max };
    let chars = u64::try_from(password.expose().chars().count()).unwrap_or(u64::MAX);
    if password.is_empty() {
        details.push(Detail::new("password", "validation_required", "Cannot be blank."));
    } else if chars < min || chars > max || password.len() > PASSWORD_BYTES_MAX {
        let message =
            format!("The password must have {min} to {max} characters and at most {PASSWORD_BYTES_MAX} bytes.");
        details.push(Detail::new("password", "validation_length_out_of_range", message));
    }
    if !password.matches(confirm.expose()) {
        details.push(Detail::new("passwordConfirm", "validation_values_mismatch", "Values don't match."));
    }
    if details.is_empty() { Ok(()) } else { Err(AuthError::Invalid(details)) }
}

/// Whether `text` looks like an address that a mail could be sent to.
pub(super) fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    !local.is_empty()
        && local.len() <= 64
        && text.len() <= 254
        && domain.contains('.')
        && !domain.starts_with('.')
        && !domain.ends_with('.')
        && text
            .chars()
            .all(|letter| !letter.is_whitespace() && !letter.is_control() && !"<>(),;:\\\"[]".contains(letter))
}
