//! What can go wrong with a tenant as a whole.
//!
//! Keeps true: a refusal names the tenant by what the caller said, never by what the node knows.
//! Does not do: problems of single records or of logins.

use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::ident::IdentError;
use crate::schema::error::SchemaError;
use crate::store::StoreError;
use std::borrow::Cow;

/// Why something about a tenant failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TenantError {
    /// No tenant has this slug, host or id.
    #[error("no tenant {0:?}")]
    NotFound(String),
    /// The tenant is suspended.
    #[error("tenant {0:?} is suspended")]
    Suspended(String),
    /// The slug is taken.
    #[error("a tenant {0:?} exists")]
    Exists(String),
    /// The host name leads to another tenant already.
    #[error("the host {0:?} is taken")]
    HostTaken(String),
    /// The slug is not allowed.
    #[error(transparent)]
    Slug(#[from] IdentError),
    /// A value of the request is not allowed: field, what is expected.
    #[error("{field}: {expected}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// The tenant cannot be renamed or removed.
    #[error("tenant {0:?} cannot be deleted or renamed")]
    Reserved(String),
    /// Another administrative operation is under way.
    #[error("another operation on tenant {0:?} is under way")]
    Busy(String),
    /// The filling of a new tenant failed; nothing of it is left.
    #[error("the new tenant could not be filled: {0}")]
    Fill(Box<dyn Fault + Send + Sync>),
    /// The control database holds an entry that cannot be read.
    #[error("the registry entry {0:?} is damaged")]
    Damaged(String),
    /// The schema was refused.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task that did the work did not finish.
    #[error("the operation was cut off: {0}")]
    CutOff(String),
}

impl Fault for TenantError {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::TenantNotFound,
            Self::Suspended(_) => Code::TenantSuspended,
            Self::Exists(_) => Code::TenantExists,
            Self::HostTaken(_) | Self::Reserved(_) => Code::Conflict,
            Self::Slug(_) => Code::TenantSlugInvalid,
            Self::Invalid { .. } => Code::ValidationFailed,
            Self::Busy(_) => Code::TenantBusy,
            Self::Fill(error) => error.code(),
            Self::Damaged(_) | Self::CutOff(_) => Code::Internal,
            Self::Schema(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::NotFound(slug) => Cow::Owned(format!("There is no tenant {slug:?}.")),
            Self::Suspended(slug) => Cow::Owned(format!("The tenant {slug:?} is suspended.")),
            Self::Exists(slug) => Cow::Owned(format!("A tenant with the slug {slug:?} exists; choose another slug.")),
            Self::HostTaken(host) => Cow::Owned(format!("The host name {host:?} leads to another tenant.")),
            Self::Slug(error) => Cow::Owned(format!("The slug {:?} is not allowed: {}.", error.text, error.expected)),
            Self::Invalid { field, expected } => Cow::Owned(format!("The {field} is not allowed: {expected}.")),
            Self::Reserved(slug) => Cow::Owned(format!("The tenant {slug:?} cannot be deleted or get another slug.")),
            Self::Busy(slug) => {
                Cow::Owned(format!("Another operation on the tenant {slug:?} is under way; try again."))
            }
            Self::Schema(error) => error.public(),
            Self::Store(error) => error.public(),
            Self::Fill(error) => error.public(),
            Self::Damaged(_) | Self::CutOff(_) => Cow::Borrowed(Code::Internal.explanation()),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::Slug(_) => vec![Detail::new("slug", "validation_invalid_format", self.public().into_owned())],
            Self::Exists(_) => vec![Detail::new("slug", "validation_not_unique", self.public().into_owned())],
            Self::HostTaken(_) => vec![Detail::new("hosts", "validation_not_unique", self.public().into_owned())],
            Self::Invalid { field, .. } => {
                vec![Detail::new(*field, "validation_invalid_format", self.public().into_owned())]
            }
            Self::Fill(error) => error.details(),
            Self::Schema(error) => error.details(),
            Self::Store(error) => error.details(),
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Busy(_) => Some(2),
            Self::Store(error) => error.retry_after_s(),
            _ => None,
        }
    }
}
