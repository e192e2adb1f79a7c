//! How rows become JSON: bytes straight from the row, in one pass and without an intermediate tree.
//!
//! Keeps true: a column whose guard does not hold for the row leaves no trace. Everything that does not depend on the
//! row is prepared once per plan. Does not do: SQL, choosing columns (that is `query::statement`).

use crate::kernel::value::Cell;
use crate::query::inside::Inside;
use crate::query::select::Excerpt;
use crate::query::statement::{OutColumn, RowShape};
use crate::schema::field::Storage;
use crate::schema::json;
use crate::store::{Row, StoreError};

/// Writes the rows of one statement.
#[derive(Debug)]
pub(super) struct RowWriter {
    /// `{"collectionId":"…","collectionName":"…"`, as far as selected.
    head: Vec<u8>,
    columns: Vec<WrittenColumn>,
}

#[derive(Debug)]
struct WrittenColumn {
    /// `"name":`
    key: Vec<u8>,
    storage: Storage,
    value_at: usize,
    guard_at: Option<usize>,
    excerpt: Option<Excerpt>,
    inside: Option<Inside>,
}

impl RowWriter {
    /// Prepares writing records of `row`.
    pub(super) fn of_records(row: &RowShape) -> Self {
        let mut head = vec![b'{'];
        if row.shows_collection_id {
            push_text_member(&mut head, "collectionId", row.collection.id.as_str());
        }
        if row.shows_collection_name {
            push_text_member(&mut head, "collectionName", row.collection.name.as_str());
        }
        Self { head, columns: written(&row.columns) }
    }

    /// Prepares writing rows of computed columns.
    pub(super) fn of_columns(columns: &[OutColumn]) -> Self {
        Self { head: vec![b'{'], columns: written(columns) }
    }

    /// Writes the row's object, without its closing brace.
    pub(super) fn write_open(&self, out: &mut Vec<u8>, row: &Row<'_>) -> Result<(), StoreError> {
        out.extend_from_slice(&self.head);
        for column in &self.columns {
            if let Some(guard_at) = column.guard_at
                && !holds(row, guard_at)?
            {
                continue;
            }
            push_key(out, &column.key);
            match (column.excerpt, row.cell(column.value_at)?) {
                (Some(excerpt), Cell::Text(text)) if column.storage == Storage::Text => {
                    json::write_string(out, &excerpt.apply(text));
                }
                (_, Cell::Text(text)) if column.inside.is_some() => write_inside(out, column, text),
                (_, cell) => json::write_cell_json(out, column.storage, cell),
            }
        }
        Ok(())
    }
}

/// Writes what is shown of a JSON value; a text that is none (a view may hold anything) is written as always.
fn write_inside(out: &mut Vec<u8>, column: &WrittenColumn, text: &str) {
    match (&column.inside, serde_json::from_str(text)) {
        (Some(inside), Ok(value)) => out.extend_from_slice(inside.apply(value).to_string().as_bytes()),
        _ => json::write_cell_json(out, column.storage, Cell::Text(text)),
    }
}

fn written(columns: &[OutColumn]) -> Vec<WrittenColumn> {
    let shown = columns.iter().enumerate().filter(|(_, column)| column.shown);
    shown
        .map(|(value_at, column)| WrittenColumn {
            key: key(&column.name),
            storage: column.storage,
            value_at,
            guard_at: column.guard,
            excerpt: column.excerpt,
            inside: column.inside.clone(),
        })
        .collect()
}

/// Whether the guard in column `at` of the row holds.
pub(super) fn holds(row: &Row<'_>, at: usize) -> Result<bool, StoreError> {
    Ok(matches!(row.cell(at)?, Cell::Integer(1)))
}

/// Appends `"key":`, after a comma where something stands before it in the object.
pub(super) fn push_key(out: &mut Vec<u8>, key: &[u8]) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.extend_from_slice(key);
}

/// Appends a whole member whose value is text.
pub(super) fn push_text_member(out: &mut Vec<u8>, name: &str, text: &str) {
    push_key(out, &key(name));
    json::write_string(out, text);
}

/// `"name":` as bytes.
pub(super) fn key(name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 3);
    json::write_string(&mut key, name);
    key.push(b':');
    key
}
