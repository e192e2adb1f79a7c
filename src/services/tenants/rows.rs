//! System records by field name: building images, listing changes, reading values back.
//!
//! Keeps true: a name that the collection lacks is left out when writing and empty when reading, so that files of an
//! older version stay usable.
//! Does not do: validation; system records are written by services that know what they write.

use crate::kernel::datetime;
use crate::kernel::ident::{CollectionId, FieldNumber, RecordId};
use crate::kernel::value::Stored;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::store::{Reader, StoreError, WriteTx};
use std::sync::Arc;

/// A new record of `collection`, with `created` and `updated` set to `now_ms`.
pub fn image(collection: &Collection, id: RecordId, values: &[(&str, Stored)], now_ms: i64) -> RecordImage {
    let now = Stored::from(datetime::format_ms(now_ms));
    let mut image = RecordImage::new(id, changes(collection, values));
    for name in ["created", "updated"] {
        if let Some(field) = collection.find_field(name) {
            image.set(field.number, now.clone());
        }
    }
    image
}

/// The changes of an update, by field number.
pub fn changes(collection: &Collection, values: &[(&str, Stored)]) -> Vec<(FieldNumber, Stored)> {
    values
        .iter()
        .filter_map(|(name, value)| collection.find_field(name).map(|field| (field.number, value.clone())))
        .collect()
}

/// The changes of an update that also moves `updated` to `now_ms`.
pub fn changes_at(collection: &Collection, values: &[(&str, Stored)], now_ms: i64) -> Vec<(FieldNumber, Stored)> {
    let mut changes = changes(collection, values);
    if let Some(field) = collection.find_field("updated") {
        changes.push((field.number, Stored::from(datetime::format_ms(now_ms))));
    }
    changes
}

/// The value of the field called `name`.
pub fn value<'image>(collection: &Collection, image: &'image RecordImage, name: &str) -> Option<&'image Stored> {
    image.get(collection.find_field(name)?.number)
}

/// The text of the field called `name`, empty if there is none.
pub fn text<'image>(collection: &Collection, image: &'image RecordImage, name: &str) -> &'image str {
    value(collection, image, name).and_then(Stored::as_text).unwrap_or_default()
}

/// The number of the field called `name`, 0 if there is none.
pub fn number(collection: &Collection, image: &RecordImage, name: &str) -> f64 {
    value(collection, image, name).and_then(Stored::as_number).unwrap_or_default()
}

/// Whether the boolean field called `name` is set.
pub fn flag(collection: &Collection, image: &RecordImage, name: &str) -> bool {
    number(collection, image, name) != 0.0
}

/// The moment in the field called `name`, milliseconds since the Unix epoch; `None` if it is empty.
pub fn moment_ms(collection: &Collection, image: &RecordImage, name: &str) -> Option<i64> {
    datetime::parse_ms(text(collection, image, name))
}

/// The records whose text fields have these values; `fields` are names that the service knows to be there.
pub fn find_by_texts(
    reader: &Reader<'_>,
    collection: &Collection,
    fields: &[(&str, &str)],
) -> Result<Vec<RecordImage>, StoreError> {
    let mut conditions = Vec::with_capacity(fields.len());
    let mut binds = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let Some(field) = collection.find_field(name) else { return Ok(Vec::new()) };
        binds.push(Stored::text(value));
        conditions.push(format!("{} = ?{}", field.column(), binds.len()));
    }
    let sql = format!("SELECT id FROM \"{}\" WHERE {}", collection.table(), conditions.join(" AND "));
    let mut ids = Vec::new();
    reader.for_each(&sql, &binds, &mut |row| {
        ids.push(row.stored(0)?);
        Ok(())
    })?;
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids.iter().filter_map(Stored::as_text) {
        rows.extend(reader.find_record(collection, id)?);
    }
    Ok(rows)
}

/// Deletes sessions, keys, factors and identities of an account: one that is made later under the same id owns none of them.
pub fn delete_belongings(
    tx: &mut WriteTx<'_>,
    schema: &Schema,
    accounts: &Collection,
    account: &RecordId,
) -> Result<(), StoreError> {
    let owner = [("collectionRef", accounts.id.as_str()), ("recordRef", account.as_str())];
    for belongings in owned_collections(schema) {
        for row in find_by_texts(tx, belongings, &owner)? {
            tx.delete(belongings, &row.id)?;
        }
    }
    Ok(())
}

/// [`delete_belongings`] of every account of a collection that is deleted.
pub fn delete_all_belongings(tx: &mut WriteTx<'_>, schema: &Schema, accounts: &CollectionId) -> Result<(), StoreError> {
    for belongings in owned_collections(schema) {
        for row in find_by_texts(tx, belongings, &[("collectionRef", accounts.as_str())])? {
            tx.delete(belongings, &row.id)?;
        }
    }
    Ok(())
}

/// The collections whose rows belong to accounts; what merely tells of accounts has no `recordRef`.
fn owned_collections(schema: &Schema) -> impl Iterator<Item = &Arc<Collection>> {
    let owned = |collection: &&Arc<Collection>| {
        collection.system && !collection.is_auth() && collection.find_field("recordRef").is_some()
    };
    schema.collections().iter().filter(owned)
}
