//! Acting for somebody else: a superuser gets a token of another account.
//!
//! Keeps true: superusers in person only, no API key and nobody who acts through an account already; the token names who
//! acts and ends with what they came by: their token key, their session, their account. Does not do: extending it.

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::events::{Event, Outcome, Who};
use super::login::Grant;
use super::{Auth, AuthScope, Caller, Identity};
use crate::kernel::limits;
use crate::query::request::AuthRecord;
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::secrets::token::{self, Claims, TokenKind};
use crate::services::tenants::system::SUPERUSERS;
use std::sync::Arc;

/// The record id under which the holder of the folder's key acts; no record has it.
pub const NODE_ID: &str = "node";

/// The superuser who acts through an account, and by what they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impersonator {
    /// Their record id.
    pub id: Arc<str>,
    key: Arc<str>,
    pub(super) session: Option<Arc<str>>,
}

impl Impersonator {
    /// Whoever the claims name.
    pub(super) fn of(claims: &Claims) -> Option<Self> {
        Some(Self {
            id: Arc::from(claims.act.as_deref()?),
            key: Arc::from(claims.act_key.as_deref().unwrap_or_default()),
            session: claims.act_sid.as_deref().map(Arc::from),
        })
    }

    /// Whether it is the holder of the folder's key, whom nothing of an account binds.
    pub(super) fn is_node(&self) -> bool {
        &*self.id == NODE_ID
    }

    /// Whether `superuser` is still who they were.
    pub(super) fn is(&self, superuser: &AuthRecord) -> bool {
        superuser.record.id.as_str() == &*self.id && opaque::matches_digest(&mark(superuser), &self.key)
    }

    /// Has `claims` name them.
    pub(super) fn sign(&self, claims: &mut Claims) {
        claims.act = Some(self.id.to_string());
        claims.act_key = Some(self.key.to_string()).filter(|key| !key.is_empty());
        claims.act_sid = self.session.as_deref().map(str::to_owned);
    }
}

/// What of a superuser's token key goes into tokens, as a digest.
fn mark(superuser: &AuthRecord) -> String {
    format!("act/{}", account::token_key(superuser))
}

impl Auth {
    /// Gives a superuser a token of another account: not to be extended, and naming who acts.
    pub async fn impersonate(
        &self,
        scope: &AuthScope,
        collection: &str,
        id: &str,
        duration_s: Option<u64>,
        identity: &Identity,
    ) -> Result<Grant, AuthError> {
        let Caller::Superuser(superuser) = &identity.caller else { return Err(AuthError::SuperuserRequired) };
        if identity.acts_for_another() {
            return Err(AuthError::Forbidden);
        }
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        let (wanted, id) = (Arc::clone(&collection.collection), id.to_owned());
        let account = db.read(move |reader| account::read(reader, &wanted, &id)).await?;
        let account = account.ok_or(AuthError::NotFound("account"))?;
        if self.is_suspended(db, &account).await? {
            return Err(AuthError::Suspended);
        }
        let expires_in_s = duration_s
            .filter(|seconds| *seconds > 0)
            .unwrap_or_else(|| collection.duration_s(TokenKind::Auth))
            .min(limits::IMPERSONATION_S_MAX);
        let by = Impersonator {
            id: Arc::from(superuser.record.id.as_str()),
            key: match superuser.record.id.as_str() {
                NODE_ID => Arc::from(""),
                _ => Arc::from(opaque::digest_hex(&mark(superuser))),
            },
            session: identity.session.clone(),
        };
        let mut claims = self.claims(db, &account, TokenKind::Auth, expires_in_s);
        by.sign(&mut claims);
        let token = Secret::new(token::sign(&claims, &self.token_key(db, &collection, &account, TokenKind::Auth)?));
        let who = Who::Account(&account.collection, account.record.id.as_str());
        self.note(db, &scope.meta, Event { event: "impersonate", method: "", outcome: Outcome::Ok, who });
        Ok(Grant { token, expires_in_s, account, session: None })
    }

    /// Refuses once the superuser who acts is gone, suspended, or has ended what they came by.
    pub(super) async fn check_impersonator(&self, by: &Impersonator) -> Result<(), AuthError> {
        if by.is_node() {
            return Ok(());
        }
        let control = self.0.registry.control();
        let superusers = control.schema().find(SUPERUSERS).cloned().ok_or(AuthError::Revoked)?;
        let superuser = self.known_record(control, &superusers, &by.id).await?.ok_or(AuthError::Revoked)?;
        if !by.is(&superuser) || self.is_suspended(control, &superuser).await? {
            return Err(AuthError::Revoked);
        }
        match &by.session {
            Some(session) => self.check_session(control, &superuser, session).await,
            None => Ok(()),
        }
    }
}
