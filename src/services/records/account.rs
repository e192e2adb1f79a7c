//! What is special about records that can log in: passwords, e-mail, `verified`, the token key.
//!
//! Keeps true: a plain password never reaches the writer, only its hash; changing the password or the e-mail of an
//! account draws a new token key, which ends every token that was issued before; accounts cannot verify themselves or
//! move to another e-mail address by a plain update.
//! Does not do: logging in, sessions, mails.

use super::{RecordError, Scope};
use crate::kernel::error::Detail;
use crate::kernel::ident::{FieldNumber, RecordId};
use crate::kernel::random::Random;
use crate::kernel::value::Stored;
use crate::schema::Collection;
use crate::schema::field::{Field, FieldKind};
use crate::schema::record::RecordImage;
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::secrets::password::Verdict;
use crate::services::login_guard;
use serde_json::{Map, Value};

/// What had to be computed before the writer could be asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Prepared {
    hashes: Vec<(FieldNumber, String)>,
    /// The stored hash that `oldPassword` was found to match.
    proven: Option<String>,
    /// Why the new login password may not be taken.
    pub(super) refused: Option<Detail>,
    /// The id of a new record whose files are in their place already.
    pub(super) id: Option<RecordId>,
    /// Nothing was computed, because the rules were found to refuse the write.
    left_out: bool,
}

impl Prepared {
    /// Nothing but why the new password may not be taken.
    pub(super) fn refusing(refused: Option<Detail>) -> Self {
        Self { refused, ..Self::default() }
    }

    /// What stands in for the hashes of a write that the rules refuse.
    pub(super) fn left_out() -> Self {
        Self { left_out: true, ..Self::default() }
    }

    /// Whether a write that is let through after all cannot go on with this.
    pub(super) const fn is_left_out(&self) -> bool {
        self.left_out
    }

    pub(super) fn hash_of(&self, field: FieldNumber) -> Option<&str> {
        self.hashes.iter().find(|(number, _)| *number == field).map(|(_, hash)| hash.as_str())
    }
}

/// The password an account has, and whose it is.
#[derive(Debug)]
pub(super) struct StoredPassword {
    pub(super) account: String,
    pub(super) hash: String,
}

/// Checks `oldPassword` against `stored` where both are there, and hashes every password of `body`.
///
/// The old one comes first and is charged as a guess: somebody with a stolen token finds no password here that the login
/// would not give them.
pub(super) async fn prepare(
    scope: &Scope,
    collection: &Collection,
    body: &Map<String, Value>,
    stored: Option<StoredPassword>,
) -> Result<Prepared, RecordError> {
    let (hasher, lane) = (&scope.tools.hasher, login_guard::lane(scope.ip.as_deref()));
    let mut prepared = Prepared::default();
    if let (Some(stored), Some(Value::String(old))) = (stored, body.get("oldPassword")) {
        let (tenant, now_ms) = (scope.tenant.id(), scope.request.now_ms);
        let guard = &scope.tools.guard;
        let guess = guard.charge(scope.ip.as_deref(), tenant, &collection.id, &stored.account, now_ms)?;
        let verdict = guess.settle(hasher.verify_in(lane, Secret::new(old.as_str()), Some(&stored.hash)).await)?;
        prepared.proven = matches!(verdict, Verdict::Match { .. }).then_some(stored.hash);
    }
    for field in passwords(collection) {
        if let Some(Value::String(password)) = body.get(field.name.as_str())
            && !password.is_empty()
        {
            prepared.hashes.push((field.number, hasher.hash_in(lane, Secret::new(password.as_str())).await?));
        }
    }
    Ok(prepared)
}

/// Whether `body` sets a password, so that preparing it costs a hash.
pub(super) fn sets_password(collection: &Collection, body: &Map<String, Value>) -> bool {
    passwords_in(collection, body) > 0
}

/// How many passwords `body` sets.
pub(super) fn passwords_in(collection: &Collection, body: &Map<String, Value>) -> usize {
    passwords(collection).filter(|field| body.contains_key(field.name.as_str())).count()
}

/// The field that holds the login password of an auth collection.
pub(super) fn password_field(collection: &Collection) -> Option<&Field> {
    collection.find_field("password").filter(|field| matches!(field.kind, FieldKind::Password(_)))
}

fn passwords(collection: &Collection) -> impl Iterator<Item = &Field> {
    collection.fields.iter().filter(|field| matches!(field.kind, FieldKind::Password(_)))
}

/// What the caller is to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A superuser, or somebody whom the manage rule admits.
    Manager,
    /// Anybody else, the account's owner included.
    Plain,
}

/// Checks the members of `body`, as rules see it, that only auth collections have; `current` is the record before an update.
pub(super) fn check(
    collection: &Collection,
    body: &Map<String, Value>,
    current: Option<&RecordImage>,
    standing: Standing,
    prepared: &Prepared,
) -> Vec<Detail> {
    let mut details = Vec::new();
    if !collection.is_auth() {
        return details;
    }
    let password = body.get("password").and_then(Value::as_str).unwrap_or_default();
    if !password.is_empty() {
        details.extend(prepared.refused.clone());
        let confirm = body.get("passwordConfirm").and_then(Value::as_str).unwrap_or_default();
        if confirm.is_empty() {
            details.push(Detail::new("passwordConfirm", "validation_required", "Cannot be blank."));
        } else if confirm != password {
            details.push(Detail::new("passwordConfirm", "validation_values_mismatch", "Values don't match."));
        }
        if let (Some(current), Standing::Plain) = (current, standing)
            && prepared.refused.is_none()
            && !is_proven(collection, current, prepared)
        {
            let message = "Missing or invalid old password.";
            details.push(Detail::new("oldPassword", "validation_invalid_old_password", message));
        }
    }
    if standing == Standing::Plain {
        details.extend(check_plain(collection, body, current));
    }
    details
}

/// Whether `oldPassword` matched the very hash that the record still has.
fn is_proven(collection: &Collection, current: &RecordImage, prepared: &Prepared) -> bool {
    let stored = password_field(collection).and_then(|field| current.get(field.number)).and_then(Stored::as_text);
    prepared.proven.is_some() && prepared.proven.as_deref() == stored
}

fn check_plain(collection: &Collection, body: &Map<String, Value>, current: Option<&RecordImage>) -> Vec<Detail> {
    let stored = |name: &str| {
        let number = collection.find_field(name)?.number;
        current?.get(number)
    };
    let mut details = Vec::new();
    if let (Some(_), Some(email)) = (current, body.get("email"))
        && email.as_str() != Some(stored("email").and_then(Stored::as_text).unwrap_or_default())
    {
        let message = "The e-mail of an account is changed by a confirmed request, not by an update.";
        details.push(Detail::new("email", "validation_values_mismatch", message));
    }
    if let Some(verified) = body.get("verified")
        && (*verified == Value::Bool(true)) != (stored("verified") == Some(&Stored::bool(true)))
    {
        let message = "Only a manager of the accounts can set verified.";
        details.push(Detail::new("verified", "validation_values_mismatch", message));
    }
    details
}

/// The token key to store with `changes`: new for a new account, and when the password or the e-mail changes.
pub(super) fn renewed_token_key(
    collection: &Collection,
    current: Option<&RecordImage>,
    changes: &[(FieldNumber, Stored)],
    random: &dyn Random,
) -> Option<(FieldNumber, Stored)> {
    let token_key = collection.is_auth().then(|| collection.find_field("tokenKey")).flatten()?;
    if changes.iter().any(|(number, value)| *number == token_key.number && value.as_text() != Some("")) {
        return None;
    }
    let moved = |name: &str| {
        collection.find_field(name).is_some_and(|field| {
            changes.iter().any(|(number, value)| {
                *number == field.number && current.and_then(|record| record.get(*number)) != Some(value)
            })
        })
    };
    (current.is_none() || moved("password") || moved("email"))
        .then(|| (token_key.number, Stored::from(opaque::generate_token_key(random))))
}
