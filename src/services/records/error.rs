//! What can go wrong with records, in the words of the records.
//!
//! Keeps true: who may not know that a record exists gets [`RecordError::NotFound`], whatever the reason inside.
//! Does not do: status codes.

use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::ident::{CollectionName, FieldName};
use crate::query::advice::Advice;
use crate::secrets::password::PasswordError;
use crate::services::login_guard::GuessRefused;
use crate::store::StoreError;
use std::borrow::Cow;

/// Why a records operation was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The filter, sort, expand, cursor or rule was refused.
    #[error(transparent)]
    Query(#[from] crate::query::error::QueryError),
    /// A password could not be hashed or checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Too many wrong passwords, or requests for mails, came from there.
    #[error(transparent)]
    Throttled(#[from] GuessRefused),
    /// No collection has this name or id.
    #[error("no collection {0:?}")]
    UnknownCollection(String),
    /// The record is not there, or not for this caller.
    #[error("no such record for this caller")]
    NotFound,
    /// The file is not there, or not for this caller.
    #[error("no such file for this caller")]
    FileNotFound,
    /// The rule is locked: superusers only.
    #[error("{action} in collection {collection} is for superusers")]
    SuperuserOnly {
        /// The collection.
        collection: CollectionName,
        /// What was tried, as in `list`.
        action: &'static str,
    },
    /// The log is for superusers.
    #[error("the log is for superusers")]
    LogLocked,
    /// The new record does not satisfy the create rule.
    #[error("the create rule of {0} refused the record")]
    CreateRefused(CollectionName),
    /// Views cannot be written.
    #[error("collection {0} is a view")]
    ReadOnly(CollectionName),
    /// Fields were refused.
    #[error("{} field(s) refused", .0.len())]
    Invalid(Vec<Detail>),
    /// A query parameter has a value that is not allowed.
    #[error("parameter {name}: expected {expected}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// `If-Match` names another version of the record.
    #[error("the record is not the version that If-Match names")]
    PreconditionFailed,
    /// The idempotency key is empty, too long or not printable.
    #[error("the idempotency key is malformed")]
    IdempotencyKeyInvalid,
    /// The idempotency key already stands for another request.
    #[error("the idempotency key stands for another request")]
    IdempotencyMismatch,
    /// Deleting would leave a required relation empty.
    #[error("field {field} of {collection} requires the record")]
    RequiredReference {
        /// The collection that points at the record.
        collection: CollectionName,
        /// Its relation field.
        field: FieldName,
    },
    /// Nobody could manage the node any more.
    #[error("the last superuser cannot be deleted")]
    LastSuperuser,
    /// Deleting would touch more records than one transaction may.
    #[error("the delete cascades too far")]
    CascadeTooLarge,
    /// An expand would load more records than the bound.
    #[error("the expand loads too many records")]
    ExpandTooLarge,
    /// A read used up its budget.
    #[error("a read of {collection} used up its budget")]
    TooExpensive {
        /// The collection.
        collection: CollectionName,
        /// What would help, in words of the question alone.
        advice: Advice,
        /// What of the collection is part of the work and no part of the question, as in `list rule`.
        beside: Option<&'static str>,
    },
    /// The body is not of the expected shape.
    #[error("malformed body: {0}")]
    Body(String),
    /// One request of a transactional batch failed; nothing of the batch happened.
    #[error("request {index} of the batch failed: {fault}")]
    Batch {
        /// Its place, from 0.
        index: usize,
        /// Why.
        #[source]
        fault: Box<RecordError>,
    },
    /// The schema changed between working out a read that was remembered and reading; working it out anew answers.
    #[error("a remembered read was overtaken by a change of the schema")]
    Overtaken,
    /// Something inside does not fit together.
    #[error("defect: {0}")]
    Defect(String),
}

impl Fault for RecordError {
    fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Query(error) => error.code(),
            Self::Password(error) => error.code(),
            Self::Throttled(_) => Code::RateLimited,
            Self::UnknownCollection(_) => Code::CollectionNotFound,
            Self::NotFound => Code::RecordNotFound,
            Self::FileNotFound => Code::FileNotFound,
            Self::SuperuserOnly { .. } | Self::LogLocked => Code::SuperuserRequired,
            Self::CreateRefused(_) => Code::CreateRefused,
            Self::LastSuperuser => Code::Conflict,
            Self::Invalid(_) => Code::ValidationFailed,
            Self::ReadOnly(_) | Self::RequiredReference { .. } | Self::CascadeTooLarge => Code::RequestInvalid,
            Self::Parameter { .. } | Self::IdempotencyKeyInvalid => Code::ParameterInvalid,
            Self::PreconditionFailed => Code::PreconditionFailed,
            Self::IdempotencyMismatch => Code::IdempotencyMismatch,
            Self::ExpandTooLarge | Self::TooExpensive { .. } => Code::QueryTooExpensive,
            Self::Body(_) => Code::JsonInvalid,
            Self::Batch { .. } => Code::BatchFailed,
            Self::Overtaken => Code::Busy,
            Self::Defect(_) => Code::Internal,
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::Store(error) => error.public(),
            Self::Query(error) => error.public(),
            Self::Password(error) => error.public(),
            Self::Throttled(refused) => Cow::Borrowed(&refused.message),
            Self::UnknownCollection(name) => Cow::Owned(format!("There is no collection {name:?}.")),
            Self::SuperuserOnly { action, .. } => Cow::Owned(format!("Only superusers can {action} these records.")),
            Self::ReadOnly(name) => {
                Cow::Owned(format!("The collection {name} is a view; its records cannot be changed."))
            }
            Self::Parameter { name, expected } => Cow::Owned(format!("The parameter {name} must be {expected}.")),
            Self::IdempotencyKeyInvalid => {
                Cow::Borrowed("The Idempotency-Key must be 1 to 255 printable ASCII characters.")
            }
            Self::RequiredReference { collection, field } => Cow::Owned(format!(
                "The record cannot be deleted because the required field {field} of {collection} refers to it."
            )),
            Self::LastSuperuser => Cow::Borrowed("The last superuser cannot be deleted; make another one first."),
            Self::CascadeTooLarge => Cow::Borrowed(
                "The delete would change more records than one transaction may; delete the referring records first.",
            ),
            Self::ExpandTooLarge => Cow::Borrowed(
                "The expand would load or repeat too many records; ask for fewer per page or expand less.",
            ),
            Self::TooExpensive { collection, advice, beside } => {
                let help = match beside {
                    _ if !advice.is_empty() => advice.to_string(),
                    Some(beside) => format!("the {beside} of {collection} is what has to be looked at"),
                    None => "narrow the filter".to_owned(),
                };
                Cow::Owned(format!("The query did more work than its budget allows; {help}."))
            }
            Self::Body(what) => Cow::Owned(format!("The body cannot be understood: {what}.")),
            _ => Cow::Borrowed(self.code().explanation()),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::Store(error) => error.details(),
            Self::Query(error) => error.details(),
            Self::Password(error) => error.details(),
            Self::Invalid(details) => details.clone(),
            Self::Parameter { name, .. } => {
                vec![Detail::new(*name, "validation_invalid_value", self.public().into_owned())]
            }
            Self::IdempotencyKeyInvalid => {
                vec![Detail::new("Idempotency-Key", "validation_invalid_format", self.public().into_owned())]
            }
            Self::Batch { index, fault } => {
                let place = format!("requests.{index}");
                let mut details = vec![Detail::new(place.clone(), Code::BatchFailed.as_str(), "Batch request failed.")];
                details.extend(
                    fault
                        .details()
                        .into_iter()
                        .map(|detail| Detail { field: format!("{place}.response.data.{}", detail.field), ..detail }),
                );
                details
            }
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Store(error) => error.retry_after_s(),
            Self::Query(error) => error.retry_after_s(),
            Self::Password(error) => error.retry_after_s(),
            Self::Throttled(refused) => Some(refused.retry_after_s),
            Self::Batch { fault, .. } => fault.retry_after_s(),
            Self::Overtaken => Some(1),
            _ => None,
        }
    }
}
