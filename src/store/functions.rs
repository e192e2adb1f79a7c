//! SQL functions that the query layer provides: pure Rust functions over cells, registered on every connection.
//!
//! Keeps true: a registered function is deterministic and has no side effects (`SQLITE_DETERMINISTIC`, `INNOCUOUS`).
//! Does not do: defining any function; the list is `query::functions`.

use super::StoreError;
use crate::kernel::value::{Cell, Stored};
use crate::query::functions::SqlFunction;
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

/// Registers `functions` on `connection`.
pub(super) fn register(connection: &Connection, functions: &[SqlFunction]) -> Result<(), StoreError> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    for function in functions {
        let call = function.call;
        connection.create_scalar_function(function.name, function.arity, flags, move |context| {
            let mut cells = Vec::with_capacity(context.len());
            for index in 0..context.len() {
                cells.push(cell(context.get_raw(index)).unwrap_or(Cell::Null));
            }
            Ok(ToSqlOutput::Owned(owned(call(&cells))))
        })?;
    }
    Ok(())
}

/// A borrowed SQLite value as a cell; text that is not UTF-8 is `None`.
pub(super) fn cell(value: ValueRef<'_>) -> Option<Cell<'_>> {
    Some(match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(value) => Cell::Integer(value),
        ValueRef::Real(value) => Cell::Real(value),
        ValueRef::Text(bytes) => Cell::Text(std::str::from_utf8(bytes).ok()?),
        ValueRef::Blob(bytes) => Cell::Blob(bytes),
    })
}

fn owned(value: Stored) -> Value {
    match value {
        Stored::Null => Value::Null,
        Stored::Integer(value) => Value::Integer(value),
        Stored::Real(value) => Value::Real(value),
        Stored::Text(text) => Value::Text(text.to_string()),
        Stored::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// Borrows a stored value for binding.
pub(super) fn bound(value: &Stored) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match value {
        Stored::Null => ValueRef::Null,
        Stored::Integer(value) => ValueRef::Integer(*value),
        Stored::Real(value) => ValueRef::Real(*value),
        Stored::Text(text) => ValueRef::Text(text.as_bytes()),
        Stored::Blob(bytes) => ValueRef::Blob(bytes),
    })
}
