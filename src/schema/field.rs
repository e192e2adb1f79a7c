//! Fields: their types, their options, and how each is kept in SQLite.
//!
//! Keeps true: the storage form of a field is a function of its kind alone.
//! Does not do: checking values (that is `value_check`), reading or writing definitions (that is `definition`).

use crate::kernel::ident::{CollectionId, FieldId, FieldName, FieldNumber};
use std::borrow::Cow;
use std::sync::Arc;

/// One field of a collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The unchanging id of the wire.
    pub id: FieldId,
    /// The unchanging number: column name, clock slot, log id. 0 is the record id.
    pub number: FieldNumber,
    /// The present name.
    pub name: FieldName,
    /// Type and options.
    pub kind: FieldKind,
    /// Made by Tenantry; cannot be removed.
    pub system: bool,
    /// Never shown to anyone but superusers.
    pub hidden: bool,
    /// A hint for user interfaces.
    pub presentable: bool,
    /// Empty values are refused.
    pub required: bool,
    /// Part of full-text search.
    pub searchable: bool,
    /// Who may read this field, on top of the collection's rules; `None` adds nothing.
    pub read_rule: Option<Arc<str>>,
    /// Who may set this field, on top of the collection's rules; `None` adds nothing.
    pub write_rule: Option<Arc<str>>,
}

/// The type of a field with its options; names follow the PocketBase wire format.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldKind {
    /// UTF-8 text; `TEXT`.
    Text(TextOptions),
    /// A double; `REAL`.
    Number(NumberOptions),
    /// `INTEGER` 0 or 1.
    Bool,
    /// An e-mail address; `TEXT`.
    Email(DomainOptions),
    /// An http(s) URL; `TEXT`.
    Url(DomainOptions),
    /// A moment, `2006-01-02 15:04:05.000Z`; `TEXT`.
    Date(DateOptions),
    /// A moment that the server sets; `TEXT`.
    Autodate(AutodateOptions),
    /// One (`TEXT`) or many (`TEXT` holding a JSON array) of a fixed list.
    Select(SelectOptions),
    /// File names, one (`TEXT`) or many (`TEXT` holding a JSON array).
    File(FileOptions),
    /// Ids of records, one (`TEXT`) or many (`TEXT` holding a JSON array).
    Relation(RelationOptions),
    /// Any JSON; `TEXT`.
    Json {
        /// Largest size, bytes; 0 is the default of 1 MiB.
        max_size: u64,
    },
    /// HTML text; `TEXT`.
    Editor {
        /// Largest size, bytes; 0 is the default of 1 MiB.
        max_size: u64,
    },
    /// A password; `TEXT` holding an argon2id PHC string. Never read back.
    Password(PasswordOptions),
    /// `{"lon":…,"lat":…}`; `TEXT`.
    GeoPoint,
}

/// Options of [`FieldKind::Text`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextOptions {
    /// Fewest characters.
    pub min: u64,
    /// Most characters; 0 is the default of 5,000.
    pub max: u64,
    /// Regular expression the value must match; empty is none.
    pub pattern: Arc<str>,
    /// Pattern from which an empty value is generated; empty is none.
    pub autogenerate_pattern: Arc<str>,
    /// This is the record id.
    pub primary_key: bool,
}

/// Options of [`FieldKind::Number`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NumberOptions {
    /// Smallest value.
    pub min: Option<f64>,
    /// Largest value.
    pub max: Option<f64>,
    /// Fractions are refused.
    pub only_int: bool,
}

/// Options of [`FieldKind::Email`] and [`FieldKind::Url`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DomainOptions {
    /// Domains that are refused.
    pub except_domains: Vec<Arc<str>>,
    /// The only domains that are allowed; empty is all.
    pub only_domains: Vec<Arc<str>>,
}

/// Options of [`FieldKind::Date`]; empty bounds are none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DateOptions {
    /// Earliest moment, in storage form.
    pub min: Arc<str>,
    /// Latest moment, in storage form.
    pub max: Arc<str>,
}

/// Options of [`FieldKind::Autodate`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AutodateOptions {
    /// Set when the record is created.
    pub on_create: bool,
    /// Set when the record is updated.
    pub on_update: bool,
}

/// Options of [`FieldKind::Select`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SelectOptions {
    /// The values to choose from.
    pub values: Vec<Arc<str>>,
    /// Most values; above 1 the field is a list.
    pub max_select: u64,
}

/// Options of [`FieldKind::File`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FileOptions {
    /// Most files; above 1 the field is a list.
    pub max_select: u64,
    /// Largest file, bytes; 0 is the default of 5 MiB.
    pub max_size: u64,
    /// Allowed media types; empty is all.
    pub mime_types: Vec<Arc<str>>,
    /// Thumbnail sizes that are made on demand.
    pub thumbs: Vec<Arc<str>>,
    /// Served only with a file token.
    pub protected: bool,
}

/// Options of [`FieldKind::Relation`].
#[derive(Debug, Clone, PartialEq)]
pub struct RelationOptions {
    /// The collection pointed at.
    pub target: CollectionId,
    /// Deleting the target deletes this record when nothing else is left in the field.
    pub cascade_delete: bool,
    /// Fewest ids.
    pub min_select: u64,
    /// Most ids; above 1 the field is a list.
    pub max_select: u64,
}

/// Options of [`FieldKind::Password`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PasswordOptions {
    /// Fewest characters; 0 is the default of 8.
    pub min: u64,
    /// Most characters; 0 is the default of 71 (as PocketBase).
    pub max: u64,
    /// Regular expression the password must match; empty is none.
    pub pattern: Arc<str>,
}

/// How a field's value is kept and printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// `TEXT`, never NULL, empty is `''`.
    Text,
    /// `REAL`, never NULL, empty is `0`.
    Number,
    /// `INTEGER` 0 or 1, never NULL, empty is `0`.
    Bool,
    /// `TEXT` holding a JSON array of strings, never NULL, empty is `'[]'`.
    List,
    /// `TEXT` holding any JSON document, NULL when never set (printed `null`).
    Json,
    /// `TEXT` holding `{"lon":n,"lat":n}`, never NULL.
    Point,
}

impl Storage {
    /// The declared type of the column in a STRICT table.
    pub const fn sql_type(self) -> &'static str {
        match self {
            Self::Number => "REAL",
            Self::Bool => "INTEGER",
            Self::Text | Self::List | Self::Json | Self::Point => "TEXT",
        }
    }

    /// `DEFAULT` literal of the column, so that adding a field back-fills nothing.
    pub const fn sql_default(self) -> &'static str {
        match self {
            Self::Text => "''",
            Self::Number | Self::Bool => "0",
            Self::List => "'[]'",
            Self::Json => "NULL",
            Self::Point => "'{\"lon\":0,\"lat\":0}'",
        }
    }
}

impl FieldKind {
    /// How this kind is kept.
    pub const fn storage(&self) -> Storage {
        match self {
            Self::Number(_) => Storage::Number,
            Self::Bool => Storage::Bool,
            Self::Json { .. } => Storage::Json,
            Self::GeoPoint => Storage::Point,
            Self::Select(SelectOptions { max_select, .. })
            | Self::File(FileOptions { max_select, .. })
            | Self::Relation(RelationOptions { max_select, .. })
                if *max_select > 1 =>
            {
                Storage::List
            }
            _ => Storage::Text,
        }
    }

    /// Whether the field holds a list of values.
    pub const fn is_list(&self) -> bool {
        matches!(self.storage(), Storage::List)
    }

    /// The type's name on the wire.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "number",
            Self::Bool => "bool",
            Self::Email(_) => "email",
            Self::Url(_) => "url",
            Self::Date(_) => "date",
            Self::Autodate(_) => "autodate",
            Self::Select(_) => "select",
            Self::File(_) => "file",
            Self::Relation(_) => "relation",
            Self::Json { .. } => "json",
            Self::Editor { .. } => "editor",
            Self::Password(_) => "password",
            Self::GeoPoint => "geoPoint",
        }
    }
}

impl Field {
    /// The column: `id` for number 0, `f<number>` otherwise. Safe unquoted.
    pub fn column(&self) -> Cow<'static, str> {
        if self.number.0 == 0 { Cow::Borrowed("id") } else { Cow::Owned(format!("f{}", self.number.0)) }
    }

    /// What nobody reads, superusers and the log included: passwords, and what Tenantry itself hides: token keys, digests
    /// of codes and keys, sealed secrets.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, FieldKind::Password(_))
            || (self.system && (self.hidden || self.name.as_str() == "tokenKey"))
    }
}
