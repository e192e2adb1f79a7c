//! Records as rows: the statements that read and change one record, and the row clock that goes with each change.
//!
//! Keeps true: a changed field carries the clock of the transaction that changed it, and no other field does.
//! Does not do: the log (`writetx`), checking values (`schema::value_check`).

use super::StoreError;
use super::functions;
use super::readers;
use super::rowclock::{Clock2, RowClock};
use crate::kernel::ident::{FieldNumber, RecordId};
use crate::kernel::value::Stored;
use crate::schema::Collection;
use crate::schema::record::RecordImage;
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};
use std::fmt::Write as _;
use std::sync::Arc;

/// The statement that reads a whole record by id (`?1`) and the numbers of its columns after the id.
pub(super) fn select_record(collection: &Collection) -> (String, Vec<FieldNumber>) {
    let mut sql = String::from("SELECT id");
    let mut numbers = Vec::with_capacity(collection.fields.len());
    for field in collection.fields.iter().filter(|field| field.number.0 != 0) {
        let _ = write!(sql, ", f{}", field.number.0);
        numbers.push(field.number);
    }
    let _ = write!(sql, " FROM \"c_{}\" WHERE id = ?1", collection.id);
    (sql, numbers)
}

/// Inserts a record; fields without a value get their default.
pub(super) fn insert(
    connection: &Connection,
    collection: &Collection,
    record: &RecordImage,
    clock: &RowClock,
) -> Result<(), StoreError> {
    let mut sql = format!("INSERT INTO \"c_{}\" (id, _c", collection.id);
    for (number, _) in record.values() {
        let _ = write!(sql, ", f{}", number.0);
    }
    sql.push_str(") VALUES (?1, ?2");
    for index in 0..record.values().len() {
        let _ = write!(sql, ", ?{}", index + 3);
    }
    sql.push(')');
    let mut statement = connection.prepare_cached(&sql)?;
    statement.raw_bind_parameter(1, record.id.as_str())?;
    statement.raw_bind_parameter(2, clock.encode())?;
    for (index, (_, value)) in record.values().iter().enumerate() {
        statement.raw_bind_parameter(index + 3, functions::bound(value))?;
    }
    statement.raw_execute().map_err(|error| named(error.into(), collection))?;
    Ok(())
}

/// The present values of `fields` and the row clock.
pub(super) fn present(
    connection: &Connection,
    collection: &Collection,
    id: &RecordId,
    fields: &[FieldNumber],
) -> Result<Option<(Vec<Stored>, RowClock)>, StoreError> {
    let mut sql = String::from("SELECT _c");
    for number in fields {
        let _ = write!(sql, ", f{}", number.0);
    }
    let _ = write!(sql, " FROM \"c_{}\" WHERE id = ?1", collection.id);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([id.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let clock = match row.get_ref(0)? {
        ValueRef::Blob(bytes) => {
            RowClock::decode(bytes).ok_or_else(|| StoreError::damaged(format!("row clock of {id}")))?
        }
        _ => RowClock::new(Clock2 { oid: 0, hlc: 0 }),
    };
    let values = (1..=fields.len())
        .map(|index| {
            let cell = functions::cell(row.get_ref(index)?);
            cell.map(crate::kernel::value::Cell::to_stored).ok_or_else(|| StoreError::damaged("text that is not UTF-8"))
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    Ok(Some((values, clock)))
}

/// Sets fields of a record and its clock.
pub(super) fn update(
    connection: &Connection,
    collection: &Collection,
    id: &RecordId,
    changes: &[(FieldNumber, Stored)],
    clock: &RowClock,
) -> Result<(), StoreError> {
    let mut sql = format!("UPDATE \"c_{}\" SET _c = ?2", collection.id);
    for (index, (number, _)) in changes.iter().enumerate() {
        let _ = write!(sql, ", f{} = ?{}", number.0, index + 3);
    }
    sql.push_str(" WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.raw_bind_parameter(1, id.as_str())?;
    statement.raw_bind_parameter(2, clock.encode())?;
    for (index, (_, value)) in changes.iter().enumerate() {
        statement.raw_bind_parameter(index + 3, functions::bound(value))?;
    }
    statement.raw_execute().map_err(|error| named(error.into(), collection))?;
    Ok(())
}

/// Deletes a record; says whether it was there.
pub(super) fn delete(connection: &Connection, collection: &Collection, id: &RecordId) -> Result<bool, StoreError> {
    let sql = format!("DELETE FROM \"c_{}\" WHERE id = ?1", collection.id);
    let mut statement = connection.prepare_cached(&sql)?;
    readers::bind(&mut statement, &[Stored::text(id.as_str())])?;
    Ok(statement.raw_execute()? > 0)
}

/// Puts the names users know into a unique violation.
pub(super) fn named(error: StoreError, collection: &Collection) -> StoreError {
    let StoreError::Unique { table, fields, .. } = error else { return error };
    let numbers: Vec<FieldNumber> = fields
        .iter()
        .filter_map(|column| match column.strip_prefix('f') {
            _ if &**column == "id" => Some(FieldNumber(0)),
            Some(digits) => digits.parse().ok().map(FieldNumber),
            None => None,
        })
        .collect();
    let index = collection
        .indexes
        .iter()
        .find(|index| index.unique && index.columns.iter().map(|column| column.field).eq(numbers.iter().copied()));
    let names = numbers
        .iter()
        .filter_map(|number| collection.find_field_number(*number))
        .map(|field| Arc::from(field.name.as_str()))
        .collect();
    StoreError::Unique { table, index: index.map(|index| Arc::clone(&index.name)), fields: names }
}

/// Whether two stored values are the same for the log: equal in SQLite's order.
pub(super) fn same(a: &Stored, b: &Stored) -> bool {
    a.total_cmp(b).is_eq()
}

/// A blob parameter without a copy.
pub(super) fn blob(bytes: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Blob(bytes))
}
