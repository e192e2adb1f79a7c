//! The physical model as SQL text: tables, indexes, full-text tables with their triggers.
//!
//! Keeps true: names in DDL are made of ids and numbers, never of what users typed; every statement is complete alone.
//! Does not do: running anything, views (their text comes from `view`).

use super::field::Field;
use super::{Collection, convert, index_sql};
use std::fmt::Write as _;

/// The statements that make the table of `collection` with its indexes and its full-text table.
pub(crate) fn create_table(collection: &Collection) -> Vec<String> {
    let mut sql = format!("CREATE TABLE \"{}\" (_r INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE", collection.table());
    for field in stored_fields(collection) {
        let _ = write!(sql, ", {}", column(field));
    }
    sql.push_str(", _c BLOB, _fl INTEGER NOT NULL DEFAULT 0) STRICT");
    let mut out = vec![sql];
    out.extend(create_search(collection));
    out.extend(collection.indexes.iter().map(|index| index_sql::to_ddl(collection, index)));
    out
}

/// The statements that remove the table and what hangs on it.
pub(crate) fn drop_table(collection: &Collection) -> Vec<String> {
    let mut out = drop_search(collection);
    out.push(format!("DROP TABLE \"{}\"", collection.table()));
    out
}

/// The statements that turn the table of `before` into that of `after`; none for a change of names or options alone.
pub(crate) fn alter_table(before: &Collection, after: &Collection) -> Vec<String> {
    let table = after.table();
    let search_changes = search_columns(before) != search_columns(after);
    let old_indexes: Vec<String> = before.indexes.iter().map(|index| index_sql::to_ddl(before, index)).collect();
    let new_indexes: Vec<String> = after.indexes.iter().map(|index| index_sql::to_ddl(after, index)).collect();
    let mut out = Vec::new();
    for (index, ddl) in before.indexes.iter().zip(&old_indexes) {
        if !new_indexes.contains(ddl) {
            out.push(format!("DROP INDEX \"{}\"", index_sql::physical_name(before, index)));
        }
    }
    if search_changes {
        out.extend(drop_search(before));
    }
    let has = |collection: &Collection, field: &Field| collection.find_field_number(field.number).is_some();
    for field in stored_fields(after).filter(|field| !has(before, field)) {
        out.push(format!("ALTER TABLE \"{table}\" ADD COLUMN {}", column(field)));
    }
    out.extend(convert_columns(before, after));
    for field in stored_fields(before).filter(|field| !has(after, field)) {
        out.push(format!("ALTER TABLE \"{table}\" DROP COLUMN {}", field.column()));
    }
    if search_changes {
        out.extend(create_search(after));
    }
    out.extend(new_indexes.into_iter().filter(|ddl| !old_indexes.contains(ddl)));
    out
}

fn stored_fields(collection: &Collection) -> impl Iterator<Item = &Field> {
    collection.fields.iter().filter(|field| field.number.0 != 0)
}

fn column(field: &Field) -> String {
    let storage = field.kind.storage();
    let default = storage.sql_default();
    let not_null = if default == "NULL" { "" } else { " NOT NULL" };
    format!("{} {}{not_null} DEFAULT {default}", field.column(), storage.sql_type())
}

/// One UPDATE for all fields whose data moves into another column.
fn convert_columns(before: &Collection, after: &Collection) -> Option<String> {
    let mut sets = Vec::new();
    for new in stored_fields(after).filter(|field| before.find_field_number(field.number).is_none()) {
        let Some(old) = before.find_field_id(&new.id) else { continue };
        if let Some(expression) = convert::expression(&old.kind, &new.kind, &old.column()) {
            sets.push(format!("{} = {expression}", new.column()));
        }
    }
    (!sets.is_empty()).then(|| format!("UPDATE \"{}\" SET {}", after.table(), sets.join(", ")))
}

fn search_columns(collection: &Collection) -> Vec<String> {
    stored_fields(collection).filter(|field| field.searchable).map(|field| field.column().into_owned()).collect()
}

/// The full-text table follows its content by triggers, in the transaction of the write (SQLite, "FTS5", 4.4.3).
fn create_search(collection: &Collection) -> Vec<String> {
    let columns = search_columns(collection);
    if columns.is_empty() {
        return Vec::new();
    }
    let (table, fts, list) = (collection.table(), format!("fts_{}", collection.id), columns.join(", "));
    let side = |side: &str| columns.iter().map(|column| format!("{side}.{column}")).collect::<Vec<_>>().join(", ");
    let (new, old) = (side("new"), side("old"));
    let add = format!("INSERT INTO \"{fts}\"(rowid, {list}) VALUES (new._r, {new});");
    let remove = format!("INSERT INTO \"{fts}\"(\"{fts}\", rowid, {list}) VALUES ('delete', old._r, {old});");
    vec![
        format!(
            "CREATE VIRTUAL TABLE \"{fts}\" USING fts5({list}, content='{table}', content_rowid='_r', tokenize='unicode61 remove_diacritics 2')"
        ),
        format!("CREATE TRIGGER \"{fts}_i\" AFTER INSERT ON \"{table}\" BEGIN {add} END"),
        format!("CREATE TRIGGER \"{fts}_d\" AFTER DELETE ON \"{table}\" BEGIN {remove} END"),
        format!("CREATE TRIGGER \"{fts}_u\" AFTER UPDATE OF {list} ON \"{table}\" BEGIN {remove} {add} END"),
        format!("INSERT INTO \"{fts}\"(\"{fts}\") VALUES ('rebuild')"),
    ]
}

fn drop_search(collection: &Collection) -> Vec<String> {
    if search_columns(collection).is_empty() {
        return Vec::new();
    }
    let fts = format!("fts_{}", collection.id);
    let mut out: Vec<String> =
        ["i", "d", "u"].iter().map(|suffix| format!("DROP TRIGGER \"{fts}_{suffix}\"")).collect();
    out.push(format!("DROP TABLE \"{fts}\""));
    out
}
