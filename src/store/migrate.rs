//! The system tables of a tenant file and their versions; how a lineage is minted.
//!
//! Keeps true: a file opened by this version has every system table of [`FORMAT_VERSION`]; a newer file is refused, not
//! guessed at. Each step runs in one transaction and records itself in `user_version`. Does not do: collections.

use super::StoreError;
use super::connection::APPLICATION_ID;
use crate::kernel::ident::{NodeId, OriginUid};
use crate::kernel::random::Random;
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// Version of the system tables; kept in `user_version`.
pub const FORMAT_VERSION: i32 = 1;

/// The line of `_tn_meta` with the position of the last change of the collections; not there before the first one.
pub(super) const SCHEMA_LSN: &str = "schema_lsn";

/// REPLICATION.md 2. `told` in `_tn_origin`: up to which sequence number this origin was named in the `ctx` of an own
/// transaction. `_tn_gen.part`: empty for the collection, else a partition key.
const STEP_1: &str = "
CREATE TABLE _tn_meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
CREATE TABLE _tn_collection (id TEXT PRIMARY KEY, definition TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE _tn_origin (oid INTEGER PRIMARY KEY, uid BLOB NOT NULL UNIQUE, peer TEXT NOT NULL DEFAULT '',
  seq INTEGER NOT NULL DEFAULT 0, hlc INTEGER NOT NULL DEFAULT 0, floor INTEGER NOT NULL DEFAULT 0,
  chain BLOB NOT NULL, told INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE _tn_tx (lsn INTEGER PRIMARY KEY, oid INTEGER NOT NULL, seq INTEGER NOT NULL, hlc INTEGER NOT NULL,
  epoch INTEGER NOT NULL, schema INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (oid, seq)) STRICT;
CREATE TABLE _tn_gen (coll TEXT NOT NULL, part BLOB NOT NULL, lsn INTEGER NOT NULL, PRIMARY KEY (coll, part))
  STRICT, WITHOUT ROWID;
CREATE TABLE _tn_receipt (key TEXT PRIMARY KEY, body BLOB NOT NULL, created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX _tn_receipt_age ON _tn_receipt (created_ms);
INSERT INTO _tn_meta VALUES ('schema', 0), ('epoch', 1), ('oid', 0), ('node', x'');
";

/// Brings the system tables to [`FORMAT_VERSION`]. Inside it `PRAGMA user_version` is transactional.
pub(super) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let found = check_version(connection)?;
    if found < 1 {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {STEP_1} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=1; COMMIT;"
        ))?;
    }
    Ok(())
}

/// The version of an existing file; an error if it is not a tenant or newer than this program.
pub(super) fn check_version(connection: &Connection) -> Result<i32, StoreError> {
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > FORMAT_VERSION {
        let why = format!("it has format {version}, this version reads up to {FORMAT_VERSION}");
        return Err(StoreError::NotATenant(Arc::from(why)));
    }
    if application != APPLICATION_ID && (application, version) != (0, 0) {
        return Err(StoreError::NotATenant(Arc::from("it was made by another program")));
    }
    Ok(version)
}

/// A number kept in `_tn_meta`.
pub(super) fn meta_number(connection: &Connection, key: &str) -> Result<i64, StoreError> {
    find_meta_number(connection, key)?.ok_or_else(|| StoreError::damaged(format!("_tn_meta lacks {key}")))
}

/// A number that may be kept in `_tn_meta`.
pub(super) fn find_meta_number(connection: &Connection, key: &str) -> Result<Option<i64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM _tn_meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

/// Keeps a number in `_tn_meta`.
pub(super) fn set_meta_number(connection: &Connection, key: &str, value: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO _tn_meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
        )?
        .execute(params![key, value])?;
    Ok(())
}

/// Mints a lineage if the file was last written by another node, or by none (REPLICATION.md 4, detection d).
///
/// Returns the local number of the own origin.
pub(super) fn ensure_lineage(connection: &Connection, node: NodeId, random: &dyn Random) -> Result<i64, StoreError> {
    let kept: Vec<u8> = connection.query_row("SELECT value FROM _tn_meta WHERE key = 'node'", [], |row| row.get(0))?;
    if kept == node.0 {
        return meta_number(connection, "oid");
    }
    let mut uid = OriginUid([0; 16]);
    random.fill(&mut uid.0);
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let minted = mint(connection, node, uid);
    match minted {
        Ok(oid) => {
            connection.execute_batch("COMMIT")?;
            Ok(oid)
        }
        Err(error) => {
            let _ = connection.execute_batch("ROLLBACK");
            Err(error)
        }
    }
}

fn mint(connection: &Connection, node: NodeId, uid: OriginUid) -> Result<i64, StoreError> {
    connection.execute("INSERT INTO _tn_origin (uid, chain) VALUES (?1, ?2)", params![&uid.0[..], &[0_u8; 32][..]])?;
    let oid = connection.last_insert_rowid();
    if oid > i64::from(u16::MAX) {
        return Err(StoreError::damaged("more than 65535 lineages"));
    }
    // A new lineage has told nobody anything: its first transaction names every other origin.
    connection.execute("UPDATE _tn_origin SET told = 0", [])?;
    connection.execute("UPDATE _tn_meta SET value = ?1 WHERE key = 'node'", [&node.0[..]])?;
    set_meta_number(connection, "oid", oid)?;
    Ok(oid)
}

/// Makes the next open mint a new lineage: after a restore, clone or import.
pub(super) fn forget_lineage(connection: &Connection) -> Result<(), StoreError> {
    connection.execute("UPDATE _tn_meta SET value = x'' WHERE key = 'node'", [])?;
    Ok(())
}
