//! What can go wrong when somebody wants to come in.
//!
//! Keeps true: a wrong identity, a wrong password and an account that is not there are one and the same refusal; nothing
//! here carries a password, a token or a code.
//! Does not do: status codes.

use super::oauth::OAuthError;
use crate::kernel::error::{Code, Detail, Fault};
use crate::secrets::Secret;
use crate::secrets::password::PasswordError;
use crate::secrets::token::TokenError;
use crate::services::login_guard::GuessRefused;
use crate::services::records::RecordError;
use crate::services::tenants::TenantError;
use crate::store::StoreError;
use std::borrow::Cow;

/// Why an authentication request was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Identity, password or one-time code is wrong; which of them is not said.
    #[error("the credentials do not hold")]
    Credentials,
    /// The first factor held; the account needs another one.
    #[error("a second factor is needed")]
    MfaRequired {
        /// Names the half-finished login for the second factor.
        mfa_id: Secret,
    },
    /// Too many failures from there; says which limit, how much and when to try again.
    #[error("too many failed logins")]
    Throttled {
        /// One sentence for the caller.
        message: String,
        /// When one more guess is allowed.
        retry_after_s: u32,
    },
    /// There is no auth collection of this name.
    #[error("no auth collection {0:?}")]
    UnknownCollection(String),
    /// The collection does not allow this way of logging in.
    #[error("the collection does not allow {0}")]
    MethodDisabled(&'static str),
    /// The collection's `authRule` does not admit the account.
    #[error("the auth rule does not admit the account")]
    RuleRefused,
    /// The account is suspended.
    #[error("the account is suspended")]
    Suspended,
    /// The collection's `authRule` cannot be evaluated.
    #[error("the auth rule cannot be evaluated: {0}")]
    Rule(String),
    /// The token of the request does not hold.
    #[error("the token was refused: {0}")]
    Token(#[from] TokenError),
    /// The token held once: its session or its key is gone.
    #[error("the token was revoked")]
    Revoked,
    /// A refresh token was used twice; its session has been ended.
    #[error("a refresh token was used twice; the session {session} was ended")]
    RefreshReused {
        /// Id of the session that was ended.
        session: String,
    },
    /// A confirmation token does not hold.
    #[error("the confirmation token does not hold")]
    Confirmation,
    /// Nobody is logged in.
    #[error("nobody is logged in")]
    LoginRequired,
    /// The caller is not a superuser.
    #[error("the caller is not a superuser")]
    SuperuserRequired,
    /// The caller may not do this.
    #[error("the caller may not do this")]
    Forbidden,
    /// There is no such account, session or key.
    #[error("no {0} with this id")]
    NotFound(&'static str),
    /// Fields of the request were refused.
    #[error("{} field(s) were refused", .0.len())]
    Invalid(Vec<Detail>),
    /// Hashing or comparing the password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The tenant.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// The sign-in at an identity provider.
    #[error(transparent)]
    OAuth(#[from] OAuthError),
    /// Making the account.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The account lacks what a token is signed with.
    #[error("collection {0:?} has no token secret, or the account no token key")]
    NoTokenKey(String),
}

impl From<GuessRefused> for AuthError {
    fn from(refused: GuessRefused) -> Self {
        Self::Throttled { message: refused.message, retry_after_s: refused.retry_after_s }
    }
}

impl AuthError {
    /// A refusal with one field.
    pub(super) fn field(field: &'static str, code: &'static str, message: &str) -> Self {
        Self::Invalid(vec![Detail::new(field, code, message)])
    }
}

impl Fault for AuthError {
    fn code(&self) -> Code {
        match self {
            Self::Credentials => Code::CredentialsInvalid,
            Self::MfaRequired { .. } => Code::MfaRequired,
            Self::Throttled { .. } => Code::RateLimited,
            Self::UnknownCollection(_) => Code::CollectionNotFound,
            Self::Suspended => Code::AccountSuspended,
            Self::MethodDisabled(_) | Self::RuleRefused | Self::Forbidden => Code::Forbidden,
            Self::Token(_) | Self::Revoked | Self::RefreshReused { .. } => Code::TokenInvalid,
            Self::LoginRequired => Code::AuthRequired,
            Self::SuperuserRequired => Code::SuperuserRequired,
            Self::NotFound(_) => Code::RecordNotFound,
            Self::Confirmation | Self::Invalid(_) => Code::ValidationFailed,
            Self::Rule(_) | Self::NoTokenKey(_) => Code::Internal,
            Self::Password(error) => error.code(),
            Self::Tenant(error) => error.code(),
            Self::OAuth(error) => error.code(),
            Self::Record(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::Credentials => Cow::Borrowed("Failed to authenticate."),
            Self::Throttled { message, .. } => Cow::Borrowed(message),
            Self::MethodDisabled(what) => {
                Cow::Owned(format!("The collection is not configured to allow {what} authentication."))
            }
            Self::UnknownCollection(name) => Cow::Owned(format!("There is no collection {name:?}.")),
            Self::RuleRefused => Cow::Borrowed("The account does not satisfy the collection's requirements to log in."),
            Self::NotFound(what) => Cow::Owned(format!("There is no such {what}.")),
            Self::Confirmation => Cow::Borrowed("The token is invalid, used or expired; ask for a new one."),
            Self::Password(error) => error.public(),
            Self::Tenant(error) => error.public(),
            Self::OAuth(error) => error.public(),
            Self::Record(error) => error.public(),
            Self::Store(error) => error.public(),
            _ => Cow::Borrowed(self.code().explanation()),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::Invalid(details) => details.clone(),
            Self::Confirmation => {
                vec![Detail::new("token", "validation_invalid_token", "Invalid or expired token.")]
            }
            Self::Password(error) => error.details(),
            Self::Tenant(error) => error.details(),
            Self::OAuth(error) => error.details(),
            Self::Record(error) => error.details(),
            Self::Store(error) => error.details(),
            _ => Vec::new(),
        }
    }

    fn members(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::MfaRequired { mfa_id } => vec![("mfaId", mfa_id.expose().to_owned())],
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Throttled { retry_after_s, .. } => Some(*retry_after_s),
            Self::Password(error) => error.retry_after_s(),
            Self::Tenant(error) => error.retry_after_s(),
            Self::OAuth(error) => error.retry_after_s(),
            Self::Record(error) => error.retry_after_s(),
            Self::Store(error) => error.retry_after_s(),
            _ => None,
        }
    }
}
