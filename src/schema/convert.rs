//! What becomes of stored data when the type of a field changes.
//!
//! Keeps true: [`between`] is a function of the two kinds alone; a change that would make data unreadable is refused.
//! Does not do: running the conversion (that is the DDL of a plan).

use super::field::{FieldKind, Storage};

/// How the data of a field follows a change of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The column stays as it is.
    SameColumn,
    /// A new column is filled by this SQL expression, in which `{}` stands for the old column.
    NewColumn(&'static str),
    /// The data cannot follow.
    Refused(&'static str),
}

const FROM_NUMBER: &str =
    "CASE WHEN {} = CAST({} AS INTEGER) THEN CAST(CAST({} AS INTEGER) AS TEXT) ELSE CAST({} AS TEXT) END";
const FROM_JSON: &str = "CASE WHEN json_type({}) = 'text' THEN json_extract({}, '$') ELSE IFNULL({}, '') END";

/// What happens to the data when a field of kind `old` becomes one of kind `new`.
pub(crate) fn between(old: &FieldKind, new: &FieldKind) -> Change {
    use FieldKind as K;
    if let (K::Relation(old), K::Relation(new)) = (old, new)
        && old.target != new.target
    {
        return Change::Refused("the ids would point into another collection");
    }
    let same_type = old.type_name() == new.type_name();
    match (old, new) {
        _ if same_type && old.storage() == new.storage() => return Change::SameColumn,
        (K::Password(_), _) | (_, K::Password(_)) => return Change::Refused("passwords are kept as hashes"),
        (K::Relation(_) | K::File(_), _) | (_, K::Relation(_) | K::File(_)) if !same_type => {
            return Change::Refused("the texts would not be record ids or files");
        }
        (_, K::Date(_) | K::Autodate(_)) if !matches!(old, K::Date(_) | K::Autodate(_)) => {
            return Change::Refused("the values would not be moments");
        }
        _ => {}
    }
    between_storage(old.storage(), new.storage())
}

fn between_storage(old: Storage, new: Storage) -> Change {
    use Storage as S;
    match (old, new) {
        (S::Text, S::Text) => Change::SameColumn,
        (S::Text, S::Number) => Change::NewColumn("CAST({} AS REAL)"),
        (S::Number, S::Text) => Change::NewColumn(FROM_NUMBER),
        (S::Bool, S::Number) => Change::NewColumn("CAST({} AS REAL)"),
        (S::Number, S::Bool) => Change::NewColumn("({} != 0)"),
        (S::Bool, S::Text) => Change::NewColumn("CASE WHEN {} THEN 'true' ELSE 'false' END"),
        (S::Text, S::Bool) => Change::NewColumn("(lower({}) IN ('1', 'true', 't', 'yes'))"),
        (S::Text, S::List) => Change::NewColumn("CASE WHEN {} = '' THEN '[]' ELSE json_array({}) END"),
        // The last value stays, as in PocketBase.
        (S::List, S::Text) => Change::NewColumn("IFNULL(json_extract({}, '$[#-1]'), '')"),
        (S::Text, S::Json) => Change::NewColumn("json_quote({})"),
        (S::Number, S::Json) => Change::NewColumn(FROM_NUMBER),
        (S::Bool, S::Json) => Change::NewColumn("CASE WHEN {} THEN 'true' ELSE 'false' END"),
        (S::List | S::Point, S::Json) => Change::NewColumn("{}"),
        (S::Json, S::Text) => Change::NewColumn(FROM_JSON),
        _ => Change::Refused("there is no sensible way to carry the values over"),
    }
}

/// The SQL expression that fills the new column, for a change and its reverse; `None` leaves the default.
pub(crate) fn expression(old: &FieldKind, new: &FieldKind, old_column: &str) -> Option<String> {
    match between(old, new) {
        Change::NewColumn(form) => Some(form.replace("{}", old_column)),
        Change::SameColumn => Some(old_column.to_owned()),
        Change::Refused(_) => None,
    }
}
