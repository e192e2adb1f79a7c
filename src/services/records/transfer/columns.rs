//! Which columns the rows of an import may have.
//!
//! Keeps true: whatever an export writes is known, and so is every spelling of a field that a write understands.
//! Does not do: values.

use crate::schema::Collection;
use crate::schema::value_check::split_modifier;

/// Members that answers carry and records do not have; rows may carry them, and they are passed over.
pub(super) const OF_ANSWERS: [&str; 3] = ["collectionId", "collectionName", "expand"];
/// What comes with a password that is set.
const WITH_PASSWORDS: [&str; 2] = ["passwordConfirm", "oldPassword"];

/// What is done about a column that is no field of the collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownColumns {
    /// It is refused: a misspelt name would lose what stands under it.
    Refused,
    /// It is passed over.
    PassedOver,
}

/// Says what is wrong with the first of `names` that is no column of `collection`.
pub(super) fn refuse_unknown<'name>(
    collection: &Collection,
    mut names: impl Iterator<Item = &'name str>,
) -> Result<(), String> {
    let beside = if collection.is_auth() { &WITH_PASSWORDS[..] } else { &[] };
    let is_known = |name: &str| {
        collection.find_field(split_modifier(name).0).is_some() || OF_ANSWERS.contains(&name) || beside.contains(&name)
    };
    let Some(unknown) = names.find(|name| !is_known(name)) else { return Ok(()) };
    let known: Vec<&str> = collection.fields.iter().map(|field| field.name.as_str()).collect();
    let (of, known) = (&collection.name, known.join(", "));
    let what = match unknown {
        "" => "there is a value in a column without a name, which".to_owned(),
        named => format!("{named:?}"),
    };
    Err(format!(
        "{what} is no field of {of}, which has {known}; unknown=ignore (--ignore-unknown) passes over such columns"
    ))
}
