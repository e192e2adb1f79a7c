//! From what a provider says of somebody to an account: found, linked, or made.
//!
//! Keeps true: an identity is tied to an account in the transaction that decides so; a new account is made under the
//! collection's create rule, by the caller. Does not do: believing the provider (`exchange` did), deciding what may be linked
//! ([`link`]).

use super::super::account::{self, AuthCollection};
use super::super::error::AuthError;
use super::super::owner::Renewal;
use super::super::{Auth, AuthScope, Identity};
use super::error::OAuthError;
use super::link::{self, Candidate, Decision};
use super::profile::Profile;
use crate::kernel::ident::RecordId;
use crate::query::request::{AuthRecord, RequestContext};
use crate::schema::field::FieldKind;
use crate::schema::oauth::{self as providers, OAuthProvider};
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::services::records;
use crate::services::records::write::{WriteRequest, WriteSource, WriteVerb};
use crate::services::tenants::system::SUPERUSERS;
use crate::store::TenantDb;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Somebody whom the provider named, at the door of a collection.
pub(super) struct Entry<'a> {
    pub(super) auth: &'a Auth,
    pub(super) db: &'a TenantDb,
    pub(super) scope: &'a AuthScope,
    pub(super) collection: &'a AuthCollection,
    pub(super) provider: &'a OAuthProvider,
    pub(super) profile: &'a Profile,
}

/// The caller, to whose account the identity is to be tied.
pub(super) struct Linker {
    id: String,
    /// A new way in is a change of factors.
    renewal: Renewal,
}

impl Entry<'_> {
    /// The caller, if the identity is nobody's yet and they have proven that the account is theirs: just now, or by an identity
    /// that would enter it anyway. A password that is shown all the same has to be the right one.
    pub(super) async fn linker(
        &self,
        identity: &Identity,
        password: Option<Secret>,
    ) -> Result<Option<Linker>, AuthError> {
        // A key, or a superuser who acts through the account, is not its owner and links nothing.
        let in_person = identity.key.is_none() && identity.impersonator.is_none();
        let collection = &self.collection.collection.id;
        let of_this = identity.account().is_some_and(|account| account.collection.id == *collection);
        if !in_person || !of_this || self.is_tied().await? {
            return Ok(None);
        }
        let owner = self.auth.owner_of(self.scope, collection.as_str(), identity).await?;
        let enters_anyway = link::is_same_person(self.profile, candidate(&owner.account));
        let is_fresh = password.is_none() && self.auth.has_just_come(&owner).await?;
        if !enters_anyway && !is_fresh {
            self.auth.prove(&owner, self.scope, password).await?;
        }
        Ok(Some(Linker { id: owner.account.record.id.to_string(), renewal: owner.renewal(self.auth) }))
    }

    /// Whether the identity is that of an account.
    async fn is_tied(&self) -> Result<bool, AuthError> {
        let (accounts, provider, subject) =
            (Arc::clone(&self.collection.collection), self.provider.clone(), self.profile.id.clone());
        let tied = self.db.read(move |reader| match link::find(reader, &accounts, &provider, &subject)? {
            Some(row) => Ok::<_, AuthError>(link::account_of(reader, &accounts, &row)?.is_some()),
            None => Ok(false),
        });
        tied.await
    }

    /// The account, and whether it was made just now.
    pub(super) async fn settle(
        &self,
        creator: &records::Scope,
        linker: Option<Linker>,
        create_data: Map<String, Value>,
    ) -> Result<(Arc<AuthRecord>, bool), AuthError> {
        if let Some(account) = self.settle_known(linker).await? {
            return Ok((account, false));
        }
        if self.collection.collection.name.as_str() == SUPERUSERS {
            return Err(OAuthError::NoSignUp.into());
        }
        let id = self.create(creator, create_data).await?;
        let wanted = Arc::clone(&self.collection.collection);
        let account = self.db.read(move |reader| account::read(reader, &wanted, id.as_str())).await?;
        Ok((account.ok_or(AuthError::Credentials)?, true))
    }

    /// Enters or links in one transaction; `None` if there is no account for this identity.
    async fn settle_known(&self, linker: Option<Linker>) -> Result<Option<Arc<AuthRecord>>, AuthError> {
        let (accounts, provider, profile) =
            (Arc::clone(&self.collection.collection), self.provider.clone(), self.profile.clone());
        let link_id = RecordId::generate(self.auth.0.random.as_ref());
        let settled = self.db.write(self.scope.meta.clone(), move |tx| {
            let row = link::find(tx, &accounts, &provider, &profile.id)?;
            let linked = match &row {
                Some(row) => link::account_of(tx, &accounts, row)?,
                None => None,
            };
            if let (Some(row), None) = (&row, &linked) {
                // Its account is gone.
                tx.delete(&link::links(tx.schema())?, &row.id)?;
            }
            let caller = match &linker {
                Some(linker) => account::read(tx, &accounts, &linker.id)?,
                None => None,
            };
            let same_email = account::find_by(tx, &accounts, "email", &profile.email)?;
            let [linked, caller, same] = [&linked, &caller, &same_email].map(|found| found.as_deref().map(candidate));
            let id = match link::decide(&profile, linked, caller, same) {
                Decision::Enter(id) => id,
                Decision::Link(id) => {
                    let account = RecordId::parse(&id).map_err(|_| AuthError::Credentials)?;
                    link::tie(tx, link_id, &accounts, &account, &provider, &profile.id)?;
                    let now = account::read(tx, &accounts, &id)?;
                    let confirms = profile.email_proven
                        && now.is_some_and(|now| {
                            !account::is_verified(&now) && profile.email.eq_ignore_ascii_case(account::email(&now))
                        });
                    if confirms {
                        link::confirm(tx, &accounts, &account)?;
                    }
                    if let Some(linker) = &linker {
                        linker.renewal.run(tx)?;
                    }
                    id
                }
                Decision::Create => return Ok(None),
                Decision::Unverified => return Err(OAuthError::Unverified.into()),
                Decision::Unproven => return Err(OAuthError::Unproven.into()),
            };
            Ok::<_, AuthError>(account::read(tx, &accounts, &id)?)
        });
        Ok(settled.await?.value)
    }

    /// Makes the account under the create rule and ties the identity to it, in one transaction.
    async fn create(&self, creator: &records::Scope, given: Map<String, Value>) -> Result<RecordId, AuthError> {
        let random = self.auth.0.random.as_ref();
        let id = match given.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            Some(own) => RecordId::parse(own)
                .map_err(|_| AuthError::field("id", "validation_invalid_value", "Must be 15 letters and digits."))?,
            None => RecordId::generate(random),
        };
        let body = self.body(&id, given);
        let proven = self.profile.email_proven && body.get("email") == Some(&json!(self.profile.email));
        let request = WriteRequest {
            verb: WriteVerb::Create,
            collection: self.collection.collection.name.to_string(),
            id: None,
            body: body.clone(),
            if_match: None,
            view: records::read::View::default(),
            dry_run: false,
            uploads: Vec::new(),
            source: WriteSource::Provider,
            mail_gate: None,
        };
        let context = RequestContext { context: Arc::from("oauth2"), body, ..(*creator.request).clone() };
        let creator = records::Scope { request: Arc::new(context), ..creator.clone() };
        let (accounts, provider, subject) =
            (Arc::clone(&self.collection.collection), self.provider.clone(), self.profile.id.clone());
        let (account, link_id) = (id.clone(), RecordId::generate(random));
        records::write::create_and(&creator, request, move |tx| {
            if proven {
                link::confirm(tx, &accounts, &account)?;
            }
            link::tie(tx, link_id, &accounts, &account, &provider, &subject)
        })
        .await?;
        Ok(id)
    }

    /// What the client gave, then the profile, then a password nobody knows.
    fn body(&self, id: &RecordId, mut body: Map<String, Value>) -> Map<String, Value> {
        let blank = |body: &Map<String, Value>, name: &str| {
            body.get(name).is_none_or(|value| value.is_null() || value.as_str() == Some(""))
        };
        if blank(&body, "id") {
            body.insert("id".to_owned(), json!(id.as_str()));
        }
        if blank(&body, "email") && !self.profile.email.is_empty() {
            body.insert("email".to_owned(), json!(self.profile.email));
        }
        for (from, to) in providers::mapped_fields(&self.collection.options.rest) {
            let value = self.profile.mapped(&from);
            let takes_text = self.collection.collection.find_field(&to).is_some_and(|field| takes_text(&field.kind));
            if takes_text && !body.contains_key(&to) && !value.is_empty() {
                body.insert(to, json!(value));
            }
        }
        if blank(&body, "password") {
            let password = opaque::generate(self.auth.0.random.as_ref(), "");
            for name in ["password", "passwordConfirm"] {
                body.insert(name.to_owned(), json!(password.expose()));
            }
        }
        body
    }
}

/// Pictures would have to be fetched for file fields; those stay empty.
const fn takes_text(kind: &FieldKind) -> bool {
    matches!(kind, FieldKind::Text(_) | FieldKind::Url(_) | FieldKind::Editor { .. })
}

fn candidate(account: &AuthRecord) -> Candidate<'_> {
    Candidate {
        id: account.record.id.as_str(),
        email: account::email(account),
        verified: account::is_verified(account),
    }
}
