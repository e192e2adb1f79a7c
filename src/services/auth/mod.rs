//! Who may come in, and as whom: passwords, tokens, sessions, one-time codes, confirmations by mail.
//!
//! Keeps true: an unknown account costs the same work and gives the same answer as a wrong password; whatever ends a
//! credential (logging out, a new password, a deleted account) acts on the next request; state that outlives a request
//! lives in the tenant's own file, so it moves and replicates with the tenant.
//! Does not do: creating accounts (that is `records`), access to records (rules), HTTP shapes.
//!
//! Reading order: [`Auth`] here → `account` → `login` → `factors` → `identify` → `sessions`, `suspension`, `impersonation` →
//! `journal`, `events` → `recovery`, `registration`, `otp`, `keys` → `owner` → `totp`, `recovery_codes`, `passkeys`, `reset` → `superusers`.

mod account;
mod challenges;
mod error;
mod events;
mod factors;
mod identify;
mod impersonation;
mod journal;
mod keys;
mod known;
mod login;
mod mail_guard;
mod mailing;
mod oauth;
mod origins;
mod otp;
mod owner;
mod party;
mod passkeys;
mod prune;
mod recovery;
mod recovery_codes;
mod registration;
mod reset;
mod rule;
mod sessions;
mod superusers;
mod suspension;
#[cfg(test)]
mod tests;
mod totp;

pub use challenges::Challenges;
pub use error::AuthError;
pub use factors::{Factor, LoginWish};
pub use identify::Vouch;
pub use impersonation::{Impersonator, NODE_ID};
pub use journal::AuthJournal;
pub use keys::{CreateKey, KeyInfo, KeyOperation, KeyScopes, KeyUse};
pub use known::Known;
pub use login::{AuthMethods, Grant, PasswordLogin, SessionGrant, TokenMode};
pub use mail_guard::{MailGuard, MailLimits};
pub use oauth::{OAuthError, OAuthGrant, OAuthLogin, OAuthTools, ProviderInfo};
pub use otp::{OtpGrant, OtpLogin};
pub use party::PartyOptions;
pub use passkeys::{NewPasskey, PasskeyChallenge, PasskeyInfo, PasskeyLogin};
pub use recovery::{ConfirmEmailChange, ConfirmPasswordReset, MailedLink};
pub use registration::Registrar;
pub use sessions::SessionInfo;
pub use superusers::SuperuserSaved;
pub use suspension::{Suspend, SuspensionInfo};
pub use totp::{CodeLogin, FactorsChanged, TotpEnrolment, TotpStatus};

use crate::access::Principal;
use crate::kernel::clock::Clock;
use crate::kernel::random::Random;
use crate::query::request::{AuthRecord, RequestContext};
use crate::schema::Collection;
use crate::secrets::password::PasswordHasher;
use crate::secrets::seal::Sealer;
use crate::services::login_guard::LoginGuard;
use crate::services::mail::Mailer;
use crate::services::tenants::Registry;
use crate::services::tenants::system::SUPERUSERS;
use crate::store::{Actor, TenantDb, WriteMeta};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What [`Auth`] is built from.
#[derive(Debug)]
pub struct AuthParts {
    /// The tenants and the control database.
    pub registry: Registry,
    /// Hashes passwords.
    pub hasher: PasswordHasher,
    /// Keeps secrets that must be read again.
    pub sealer: Sealer,
    /// Speaks to identity providers.
    pub oauth: OAuthTools,
    /// Takes mails.
    pub mailer: Arc<dyn Mailer>,
    /// Accounts in memory; the same object must be among the store's observers.
    pub known: Arc<Known>,
    /// Slows down guessing.
    pub guard: Arc<LoginGuard>,
    /// Counts what happens to whose access.
    pub journal: Arc<AuthJournal>,
    /// Slows down asking for mails.
    pub mail_guard: MailGuard,
    /// What is done after an answer; `limits::MAIL_WORK_MAX` turns.
    pub mail_work: Arc<Semaphore>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Randomness for tokens and codes.
    pub random: Arc<dyn Random>,
    /// Who the node is to passkeys.
    pub party: PartyOptions,
    /// Passkey ceremonies under way.
    pub challenges: Challenges,
    /// Where links in mails lead, without a slash at the end.
    pub app_url: Arc<str>,
}

/// Logs people in; cheap to clone.
#[derive(Debug, Clone)]
pub struct Auth(Arc<AuthParts>);

impl Auth {
    /// Puts the parts together.
    pub fn new(parts: AuthParts) -> Self {
        Self(Arc::new(parts))
    }

    /// The hasher, for whoever stores passwords.
    pub fn hasher(&self) -> &PasswordHasher {
        &self.0.hasher
    }

    /// The database that holds `collection`: the control database for superusers, the tenant's for all else.
    fn db<'scope>(&'scope self, scope: &'scope AuthScope, collection: &str) -> &'scope TenantDb {
        let control = self.0.registry.control();
        let names_superusers = collection == SUPERUSERS
            || control.schema().find(SUPERUSERS).is_some_and(|superusers| superusers.id.as_str() == collection);
        if names_superusers { control } else { &scope.tenant }
    }
}

/// One authentication request: at which tenant, from where.
#[derive(Debug, Clone)]
pub struct AuthScope {
    /// The tenant that was addressed.
    pub tenant: TenantDb,
    /// What the log says about writes of this request; its `ip` is shown in session lists.
    pub meta: WriteMeta,
    /// The client's name for itself, shown in session lists.
    pub user_agent: Arc<str>,
    /// The request as an `authRule` sees it.
    pub request: Arc<RequestContext>,
}

/// Who a request comes from.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Nobody is logged in.
    Anonymous,
    /// A record of an auth collection of the tenant.
    Record(Arc<AuthRecord>),
    /// A superuser of the node.
    Superuser(Arc<AuthRecord>),
}

/// Who a request comes from, and by what.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who.
    pub caller: Caller,
    /// The session the token belongs to.
    pub session: Option<Arc<str>>,
    /// The superuser who acts through this account.
    pub impersonator: Option<Arc<Impersonator>>,
    /// The API key the request came with; its scopes narrow what the caller may do.
    pub key: Option<Arc<KeyUse>>,
    /// Whether `auth-refresh` may extend the token.
    pub refreshable: bool,
    /// When the token ends, seconds since the Unix epoch; 0 for nobody.
    pub expires_s: i64,
    /// When a long token's holder logged in, seconds since the Unix epoch; extending the token does not change it.
    pub login_s: Option<i64>,
}

impl Identity {
    /// Nobody.
    pub const fn anonymous() -> Self {
        Self {
            caller: Caller::Anonymous,
            session: None,
            impersonator: None,
            key: None,
            refreshable: false,
            expires_s: 0,
            login_s: None,
        }
    }

    /// The caller as rules see it.
    pub fn principal(&self) -> Principal {
        match &self.caller {
            Caller::Anonymous => Principal::Anonymous,
            Caller::Record(account) => Principal::Record(Arc::clone(account)),
            Caller::Superuser(account) => Principal::Superuser(Arc::clone(account)),
        }
    }

    /// Whether an API key, if the request came with one, is good for `operation` in `collection`.
    pub fn key_allows(&self, collection: &Collection, operation: KeyOperation) -> bool {
        self.key.as_ref().is_none_or(|key| key.scopes.allows(collection, operation))
    }

    /// Whether this is a superuser.
    pub const fn is_superuser(&self) -> bool {
        matches!(self.caller, Caller::Superuser(_))
    }

    /// The account, superusers included.
    pub const fn account(&self) -> Option<&Arc<AuthRecord>> {
        match &self.caller {
            Caller::Anonymous => None,
            Caller::Record(account) | Caller::Superuser(account) => Some(account),
        }
    }

    /// What the log calls this caller; a key is logged with its owner, an impersonated account with whoever acts through
    /// it.
    pub fn actor(&self) -> Actor {
        match &self.key {
            Some(key) => Actor::Key(Arc::clone(&key.id), Arc::from(self.account_actor().to_string())),
            None => self.account_actor(),
        }
    }

    /// Whether the log names more than the account: a key, or a superuser who acts through it.
    pub const fn acts_for_another(&self) -> bool {
        self.key.is_some() || self.impersonator.is_some()
    }

    fn account_actor(&self) -> Actor {
        let named = |account: &AuthRecord| match &self.impersonator {
            Some(by) => Arc::from(format!("{} by superuser:{}", account.record.id, by.id)),
            None => Arc::from(account.record.id.as_str()),
        };
        match &self.caller {
            Caller::Anonymous => Actor::Anonymous,
            Caller::Superuser(account) => Actor::Superuser(named(account)),
            Caller::Record(account) => Actor::Record(Arc::from(account.collection.name.as_str()), named(account)),
        }
    }
}
