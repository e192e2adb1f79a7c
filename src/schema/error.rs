//! What can be wrong with a schema change, said to the person who asked for it.
//!
//! Keeps true: a refused definition lists every problem at once, each with the path of the field in the request body.
//! Does not do: problems of data (duplicates under a new unique index); the store reports those.

use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::limits;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Why a schema change or a stored definition was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The definition has problems; never empty.
    #[error("{} problem(s) in the definition, first at {}", .0.len(), .0.first().map_or("", |detail| detail.field.as_str()))]
    Invalid(Vec<Detail>),
    /// No collection has this name or id.
    #[error("no collection {0:?}")]
    UnknownCollection(String),
    /// The collection is part of Tenantry.
    #[error("collection {0:?} is a system collection")]
    SystemCollection(String),
    /// Other collections need the one that should go.
    #[error("collection {collection:?} is used by {users}")]
    InUse {
        /// The collection that should go.
        collection: String,
        /// Who needs it: `orders.customer, view totals`.
        users: String,
    },
    /// A persisted definition cannot be read back.
    #[error("a stored definition is damaged: {0}")]
    Damaged(String),
}

impl SchemaError {
    /// A refusal with one problem.
    pub fn one(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Detail::new(field, code, message)])
    }
}

impl Fault for SchemaError {
    fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::SchemaInvalid,
            Self::UnknownCollection(_) => Code::CollectionNotFound,
            Self::SystemCollection(_) => Code::Forbidden,
            Self::InUse { .. } => Code::Conflict,
            Self::Damaged(_) => Code::Internal,
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::Invalid(details) => match details.as_slice() {
                [only] => Cow::Owned(format!("The collection was refused: {}: {}", only.field, only.message)),
                _ => Cow::Owned(format!("The collection was refused: {} problems, see the details.", details.len())),
            },
            Self::UnknownCollection(name) => Cow::Owned(format!("There is no collection {name:?}.")),
            Self::SystemCollection(name) => {
                Cow::Owned(format!("The system collection {name:?} cannot be renamed, emptied or deleted."))
            }
            Self::InUse { collection, users } => {
                Cow::Owned(format!("The collection {collection:?} is used by {users}. Change or delete these first."))
            }
            Self::Damaged(_) => Cow::Borrowed(self.code().explanation()),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::Invalid(details) => details.clone(),
            _ => Vec::new(),
        }
    }
}

/// Collects problems under a path, so that validation never stops at the first one.
#[derive(Debug)]
pub(crate) struct Problems<'list> {
    path: String,
    found: &'list mut Vec<Detail>,
    /// Members that are not known are passed over.
    lenient: bool,
}

impl<'list> Problems<'list> {
    /// Starts at the root of the body.
    pub(crate) fn new(found: &'list mut Vec<Detail>) -> Self {
        Self { path: String::new(), found, lenient: false }
    }

    /// The same for what an earlier build took and stored: it passed over members that it did not know.
    pub(crate) fn of_stored(found: &'list mut Vec<Detail>) -> Self {
        Self { lenient: true, ..Self::new(found) }
    }

    /// The same list one level deeper.
    pub(crate) fn at(&mut self, segment: impl std::fmt::Display) -> Problems<'_> {
        let path = if self.path.is_empty() { segment.to_string() } else { format!("{}.{segment}", self.path) };
        Problems { path, found: self.found, lenient: self.lenient }
    }

    /// The same list at the same path, for a shorter time.
    pub(crate) fn same(&mut self) -> Problems<'_> {
        Problems { path: self.path.clone(), found: self.found, lenient: self.lenient }
    }

    /// Notes a problem with the value at this path.
    pub(crate) fn add(&mut self, code: &'static str, message: impl Into<String>) {
        self.found.push(Detail::new(self.path.clone(), code, message));
    }

    /// Notes a problem with the member `key` of the value at this path.
    pub(crate) fn add_at(&mut self, key: impl std::fmt::Display, code: &'static str, message: impl Into<String>) {
        self.at(key).add(code, message);
    }

    /// Notes the members of `map`, which is `what`, that are none of `known`: a misspelt one would be left out without a
    /// word. What begins with `_` is a page's note to itself.
    pub(crate) fn refuse_unknown(&mut self, map: &Map<String, Value>, what: &str, known: &[&[&str]]) {
        if self.lenient {
            return;
        }
        let is_known = |name: &str| name.starts_with('_') || known.iter().any(|known| known.contains(&name));
        for name in map.keys().filter(|name| !is_known(name)).take(limits::REFUSAL_FIELDS_MAX) {
            let message = format!("Is not a member of {what}; known are {}.", known.concat().join(", "));
            self.add_at(name, "validation_unknown_member", message);
        }
    }

    /// How many problems are known so far.
    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }
}
