//! System records by field name: building images, listing changes, reading values back.
//!
//! Keeps true: a name that the collection lacks is left out when writing and empty when reading, so that files of an
//! older version stay usable.
//! Does not do: validation; system records are written by services that know what they write.

use crate::kernel::datetime;
use crate::kernel::ident::{FieldNumber, RecordId};
use crate::kernel::value::Stored;
use crate::schema::Collection;
use crate::schema::record::RecordImage;

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
