//! Why a sign-in at an identity provider failed, and what of it callers are told.
//!
//! Keeps true: what a provider or its settings say in confidence stays in the log. Does not do: deciding that it failed.

use super::id_token;
use crate::kernel::error::{Code, Detail, Fault};
use crate::outbound::OutboundError;
use crate::secrets::jws::JwsError;
use std::borrow::Cow;

/// Why a sign-in failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OAuthError {
    /// The collection has no such provider.
    #[error("no provider {0:?}")]
    UnknownProvider(String),
    /// The verifier was made elsewhere, is over, or was used.
    #[error("the sign-in is unknown, over or used")]
    Ticket,
    /// What came back beside the code belongs to another sign-in.
    #[error("the state belongs to another sign-in")]
    State,
    /// The provider is set up in a way that cannot work.
    #[error("the provider's settings do not work: {0}")]
    Setup(String),
    /// The provider could not be asked, or what it publishes cannot be used.
    #[error("the provider cannot be used: {0}")]
    Provider(String),
    /// Reaching the provider.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The provider said no.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The identity token's signature.
    #[error(transparent)]
    Token(#[from] JwsError),
    /// The identity token's claims.
    #[error("{0}")]
    Claim(&'static str),
    /// The profile names nobody.
    #[error("the profile has no id")]
    NoSubject,
    /// An account that did not confirm the address has it.
    #[error("an account that has not confirmed the address has it")]
    Unverified,
    /// An account has the address, and the provider does not vouch for it.
    #[error("an account has the address, and the provider does not vouch for it")]
    Unproven,
    /// Accounts of this collection are not made by signing in.
    #[error("accounts of this collection are not made by signing in")]
    NoSignUp,
}

impl From<id_token::ClaimError> for OAuthError {
    fn from(error: id_token::ClaimError) -> Self {
        use id_token::ClaimError as Claim;
        Self::Claim(match error {
            Claim::Issuer => "the token is of another issuer",
            Claim::Audience => "the token is for somebody else",
            Claim::AuthorizedParty => "the token was asked for by somebody else",
            Claim::Expired => "the token is over or not dated",
            Claim::NotYet => "the token is not valid yet",
            Claim::Nonce => "the token belongs to another sign-in",
            Claim::Subject => "the token names nobody",
            Claim::Strength => "the sign-in at the provider was in none of the ways asked for",
            Claim::Age => "the sign-in at the provider is too old or not dated",
        })
    }
}

impl Fault for OAuthError {
    fn code(&self) -> Code {
        match self {
            Self::UnknownProvider(_) | Self::Ticket | Self::State => Code::ValidationFailed,
            Self::Setup(_) | Self::Provider(_) => Code::UpstreamFailed,
            Self::Outbound(error) => error.code(),
            Self::Refused(_) | Self::Token(_) | Self::Claim(_) | Self::NoSubject => Code::OauthRefused,
            Self::Unverified | Self::Unproven => Code::OauthUnverified,
            Self::NoSignUp => Code::Forbidden,
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::Ticket => Cow::Borrowed("The sign-in is unknown, over or used; start again from auth-methods."),
            Self::Setup(why) => Cow::Owned(format!("The identity provider is not set up in a way that works: {why}.")),
            Self::Refused(why) => Cow::Owned(format!("The identity provider refused: {why}.")),
            Self::Token(_) | Self::Claim(_) => Cow::Owned(format!("The identity token was refused: {self}.")),
            Self::Unverified => Cow::Borrowed(
                "An account that has not confirmed this e-mail address has it. Reset its password by mail, which confirms \
                 the address and ends everybody else's access, then sign in again.",
            ),
            Self::Unproven => Cow::Borrowed(
                "There is an account with this e-mail address and the identity provider does not vouch for it. Log in to \
                 the account and sign in at the provider again to link the two.",
            ),
            Self::NoSignUp => Cow::Borrowed("Accounts of this collection are not made by signing in at a provider."),
            _ => Cow::Borrowed(self.code().explanation()),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::UnknownProvider(name) => {
                let message = format!("The collection has no provider {name:?}; auth-methods lists those it has.");
                vec![Detail::new("provider", "validation_in_invalid", message)]
            }
            Self::Ticket => {
                vec![Detail::new("codeVerifier", "validation_invalid_verifier", "Unknown, over or used; start again.")]
            }
            Self::State => {
                let message = "Belongs to another sign-in than codeVerifier.";
                vec![Detail::new("state", "validation_invalid_state", message)]
            }
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Outbound(error) => error.retry_after_s(),
            _ => None,
        }
    }
}
