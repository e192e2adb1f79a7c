//! L1: what a tenant's data looks like. Collections, fields, indexes, rules as text.
//!
//! Keeps true: a [`Schema`] is immutable and complete; names and ids are unique in it; every relation's target exists.
//! Does not do: SQL execution, JSON of the wire (that is `definition`), meaning of rules (that is `query` and `access`).

pub mod field;
pub mod record;
pub mod error;
pub mod definition;
pub mod plan;
pub mod view;
pub mod volatile;
pub mod value_check;
pub mod body;
pub mod json;
pub mod blueprint;
pub mod cache_policy;
pub mod field_form;
pub mod generate;
pub mod oauth;
pub mod mail_text;
pub(crate) mod auth_form;
mod build;
mod convert;
mod ddl;
mod field_build;
mod index_sql;
mod pattern;
mod storage_form;

use crate::kernel::ident::{CollectionId, CollectionName, FieldId, FieldNumber};
use field::{Field, FieldKind};
use std::sync::Arc;

/// What kind of collection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CollectionKind {
    /// Plain records.
    Base,
    /// Records that can log in.
    Auth,
    /// A SELECT over other collections; read-only.
    View,
}

/// The access rules as their authors wrote them: `None` is superusers only, empty is everyone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Which records a list shows.
    pub list: Option<Arc<str>>,
    /// Which records may be read by id.
    pub view: Option<Arc<str>>,
    /// What a new record must satisfy.
    pub create: Option<Arc<str>>,
    /// Which records may be changed.
    pub update: Option<Arc<str>>,
    /// Which records may be deleted.
    pub delete: Option<Arc<str>>,
    /// Auth collections: who manages accounts (sees hidden e-mail, sets passwords).
    pub manage: Option<Arc<str>>,
    /// Auth collections: who may log in at all; empty is everyone.
    pub auth: Option<Arc<str>>,
}

/// One column of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexColumn {
    /// The field; `FieldNumber(0)` is the record id.
    pub field: FieldNumber,
    /// Whether the column is kept in descending order.
    pub descending: bool,
    /// `COLLATE NOCASE` was asked for.
    pub nocase: bool,
}

/// An index; physical names derive from ids, so renaming a field never rebuilds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Name, unique in the tenant, as users wrote it.
    pub name: Arc<str>,
    /// Whether two records may not share the columns' values.
    pub unique: bool,
    /// The columns, most significant first.
    pub columns: Vec<IndexColumn>,
    /// Partial index: a condition over field names, already checked to be of the small allowed form.
    pub condition: Option<IndexCondition>,
}

/// The condition of a partial index: `field != ''`-like comparisons joined by AND.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexCondition(pub Vec<IndexTerm>);

/// One comparison of a partial index's condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexTerm {
    /// The compared field.
    pub field: FieldNumber,
    /// One of `=`, `!=`, `>`, `>=`, `<`, `<=`, `IS NULL`, `IS NOT NULL`.
    pub operator: Arc<str>,
    /// The right side as an SQL literal already validated (number or quoted text); empty for the NULL tests.
    pub literal: Arc<str>,
}

/// One collection, as it stands in one schema version.
#[derive(Debug, Clone, PartialEq)]
pub struct Collection {
    /// The unchanging id.
    pub id: CollectionId,
    /// The present name.
    pub name: CollectionName,
    /// Base, auth or view.
    pub kind: CollectionKind,
    /// Made by Tenantry; cannot be renamed or deleted.
    pub system: bool,
    /// The fields in the order of the wire; `id` is always first.
    pub fields: Vec<Field>,
    /// The indexes.
    pub indexes: Vec<Index>,
    /// The access rules.
    pub rules: Rules,
    /// Auth collections only: login options, verbatim as the wire gives them and validated.
    pub auth: Option<Arc<AuthOptions>>,
    /// View collections only: the SELECT over collection names.
    pub view_query: Option<Arc<str>>,
    /// Field by whose value cached lists are kept apart (DESIGN 6, declared partition).
    pub partition: Option<FieldNumber>,
    /// Cache policy as the wire gives it, validated; `None` is the default policy.
    pub cache: Option<Arc<serde_json::Value>>,
    /// The number the next new field gets.
    pub next_field_number: u32,
    /// Creation, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Last change, milliseconds since the Unix epoch.
    pub updated_ms: i64,
}

/// Login options of an auth collection.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthOptions {
    /// Whether a password may be used.
    pub password_enabled: bool,
    /// Fields by which a password login finds the record (unique-indexed).
    pub identity_fields: Vec<Arc<str>>,
    /// Secret mixed into every token key of this collection.
    pub token_secret: Arc<str>,
    /// Lifetime of a login token, seconds.
    pub token_duration_s: u64,
    /// Everything else of the wire form (oauth2, mfa, otp, templates …), validated and kept.
    pub rest: serde_json::Map<String, serde_json::Value>,
}

impl Collection {
    /// The collection with the secrets of its identity providers sealed, by their place and their text; `None` if none
    /// is plain.
    pub fn with_sealed_secrets(&self, seal: &dyn Fn(&str, &str) -> String) -> Option<Self> {
        self.with_client_secrets(&|provider, text| {
            let is_plain = !text.is_empty() && !text.starts_with(oauth::SEALED);
            is_plain.then(|| format!("{}{}", oauth::SEALED, seal(&oauth::secret_place(&self.id, provider), text)))
        })
    }

    /// The collection with what `change` makes of the secret of each identity provider, given the provider's name and the
    /// secret as it is kept; `None` if nothing changes.
    pub fn with_client_secrets(&self, change: &dyn Fn(&str, &str) -> Option<String>) -> Option<Self> {
        let auth = auth_form::with_client_secrets(self.auth.as_deref()?, change)?;
        Some(Self { auth: Some(Arc::new(auth)), ..self.clone() })
    }

    /// The table that holds the records: `c_<id>`. Views of `view` collections have the same form of name.
    pub fn table(&self) -> String {
        format!("c_{}", self.id)
    }

    /// Finds a field by its present name.
    pub fn find_field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name.as_str() == name)
    }

    /// Finds a field by its number.
    pub fn find_field_number(&self, number: FieldNumber) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }

    /// Finds a field by its id.
    pub fn find_field_id(&self, id: &FieldId) -> Option<&Field> {
        self.fields.iter().find(|field| &field.id == id)
    }

    /// Whether records of this collection can log in.
    pub fn is_auth(&self) -> bool {
        self.kind == CollectionKind::Auth
    }

    /// Whether this collection is a view.
    pub fn is_view(&self) -> bool {
        self.kind == CollectionKind::View
    }
}

/// All collections of one tenant at one schema version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schema {
    version: i64,
    collections: Vec<Arc<Collection>>,
}

impl Schema {
    /// Puts `collections` together as version `version` (counted per tenant, rising by one with every change).
    ///
    /// Callers come through `schema::plan`, which checks uniqueness and relation targets.
    pub fn new(version: i64, mut collections: Vec<Arc<Collection>>) -> Self {
        collections.sort_by(|a, b| (a.created_ms, a.name.as_str()).cmp(&(b.created_ms, b.name.as_str())));
        Self { version, collections }
    }

    /// The version.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Every collection, oldest first.
    pub fn collections(&self) -> &[Arc<Collection>] {
        &self.collections
    }

    /// Finds by name (case-insensitive, as PocketBase does) or by id.
    pub fn find(&self, name_or_id: &str) -> Option<&Arc<Collection>> {
        self.collections.iter().find(|collection| {
            collection.name.as_str().eq_ignore_ascii_case(name_or_id) || collection.id.as_str() == name_or_id
        })
    }

    /// Finds by id.
    pub fn find_id(&self, id: &CollectionId) -> Option<&Arc<Collection>> {
        self.collections.iter().find(|collection| &collection.id == id)
    }

    /// The relation fields of other collections that point at `target`, with their collection.
    pub fn back_relations<'schema>(
        &'schema self,
        target: &'schema CollectionId,
    ) -> impl Iterator<Item = (&'schema Arc<Collection>, &'schema Field)> {
        self.collections.iter().filter(|collection| !collection.is_view()).flat_map(move |collection| {
            collection
                .fields
                .iter()
                .filter(move |field| matches!(&field.kind, FieldKind::Relation(relation) if &relation.target == target))
                .map(move |field| (collection, field))
        })
    }
}
