//! The system tables of a tenant file and their versions; how a lineage is minted.
//!
//! Keeps true: a file opened by this version has every system table of [`FORMAT_VERSION`]; a newer file is refused, not
//! guessed at. Each step runs in one transaction and records itself in `user_version`. Does not do: collections.

use super::StoreError;
use super::connection::APPLICATION_ID;
use crate::kernel::ident::{NodeId, OriginUid};
use crate::kernel::random::Random;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Version of the system tables; kept in `user_version`.
pub const FORMAT_VERSION: i32 = 2;

/// The line of `_tn_meta` with the position of the last change of the collections; not there before the first one.
pub(super) const SCHEMA_LSN: &str = "schema_lsn";

/// The lines of `_tn_meta` that say which form the views were last found in or brought to, and at which schema version.
const VIEWS: [&str; 2] = ["views_form", "views_schema"];

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

/// What a merge with peers keeps (REPLICATION.md 2), empty until there are peers: values that lost and are still in conflict,
/// what became of them, operations on records that are purged, values of fields that this schema does not have yet, and
/// how far each peer has come. `grp` is the unit of the conflict: a field's number, a group's name, or empty for the record.
const STEP_2: &str = "
CREATE TABLE _tn_sib (coll TEXT NOT NULL, rid TEXT NOT NULL, grp ANY NOT NULL, oid INTEGER NOT NULL, hlc INTEGER NOT NULL,
  value ANY, PRIMARY KEY (coll, rid, grp, oid, hlc)) STRICT, WITHOUT ROWID;
CREATE TABLE _tn_conf (n INTEGER PRIMARY KEY, coll TEXT NOT NULL, rid TEXT NOT NULL, grp ANY NOT NULL, oid INTEGER NOT NULL,
  hlc INTEGER NOT NULL, value ANY, lsn INTEGER NOT NULL) STRICT;
CREATE TABLE _tn_orphan (coll TEXT NOT NULL, rid TEXT NOT NULL, oid INTEGER NOT NULL, hlc INTEGER NOT NULL, n INTEGER NOT NULL,
  op BLOB NOT NULL, PRIMARY KEY (coll, rid, oid, hlc, n)) STRICT, WITHOUT ROWID;
CREATE TABLE _tn_stash (coll TEXT NOT NULL, rid TEXT NOT NULL, field INTEGER NOT NULL, oid INTEGER NOT NULL,
  hlc INTEGER NOT NULL, schema INTEGER NOT NULL, value ANY, PRIMARY KEY (coll, rid, field, oid, hlc)) STRICT, WITHOUT ROWID;
CREATE TABLE _tn_peer (peer TEXT PRIMARY KEY, lineage BLOB NOT NULL, vv BLOB NOT NULL, seen_at INTEGER NOT NULL,
  evicted INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
";

/// Each step brings a file to its version: the first to 1.
const STEPS: [&str; FORMAT_VERSION as usize] = [STEP_1, STEP_2];

/// Brings the system tables to [`FORMAT_VERSION`]. Inside it `PRAGMA user_version` is transactional.
pub(super) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let found = check_version(connection)?;
    for (version, step) in (1..).zip(STEPS).filter(|(version, _)| *version > found) {
        let step = format!(
            "BEGIN IMMEDIATE; {step} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={version}; COMMIT;"
        );
        if let Err(error) = connection.execute_batch(&step) {
            // Fails where nothing was begun, which is as good.
            let _ = connection.execute_batch("ROLLBACK");
            return Err(error.into());
        }
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

/// The table in which an exported file brings what was uploaded; see `files`.
const PACKED_FILES: &str = "_tn_files";

/// What the system tables of a file of `version` lack or have otherwise, one sentence each.
pub(super) fn check_tables(connection: &Connection, version: i32) -> Result<Vec<String>, StoreError> {
    let fresh = Connection::open_in_memory()?;
    for (_, step) in (1..).zip(STEPS).filter(|(number, _)| *number <= version) {
        fresh.execute_batch(step)?;
    }
    let (wanted, found) = (system_tables(&fresh)?, system_tables(connection)?);
    let missing = wanted.iter().filter_map(|(name, sql)| match found.get(name) {
        Some(other) if other == sql => None,
        Some(_) => Some(format!("the system table {name} is not that of format {version}")),
        None => Some(format!("the system table {name} is missing")),
    });
    let beside = found.keys().filter(|name| !wanted.contains_key(*name) && *name != PACKED_FILES);
    Ok(missing.chain(beside.map(|name| format!("{name} is no system table of format {version}"))).collect())
}

/// The system tables and their indexes, how they were made without the blanks in it.
fn system_tables(connection: &Connection) -> Result<BTreeMap<String, String>, StoreError> {
    let mut statement = connection
        .prepare("SELECT name, coalesce(sql, '') FROM sqlite_master WHERE name LIKE '\\_tn\\_%' ESCAPE '\\'")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| row.map(|(name, sql)| (name, sql.split_whitespace().collect())).map_err(StoreError::from)).collect()
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

/// The form in which the views last were, and the schema version then.
pub(super) fn views_checked(connection: &Connection) -> Result<Option<(i64, i64)>, StoreError> {
    let [form, schema] = VIEWS;
    Ok(find_meta_number(connection, form)?.zip(find_meta_number(connection, schema)?))
}

/// Keeps that the views have this form at this schema version.
pub(super) fn note_views_checked(connection: &Connection, form: i64, schema: i64) -> Result<(), StoreError> {
    VIEWS.iter().zip([form, schema]).try_for_each(|(key, value)| set_meta_number(connection, key, value))
}

/// What a file from elsewhere says of its views is not believed.
pub(super) fn forget_views(connection: &Connection) -> Result<(), StoreError> {
    connection.execute("DELETE FROM _tn_meta WHERE key IN (?1, ?2)", VIEWS)?;
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

/// Makes the next open mint a new lineage: after a restore, clone or import. How far peers have come is forgotten with it.
pub(super) fn forget_lineage(connection: &Connection) -> Result<(), StoreError> {
    connection.execute("UPDATE _tn_meta SET value = x'' WHERE key = 'node'", [])?;
    connection.execute("DELETE FROM _tn_peer", [])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as version 1 left it, with a transaction in its log.
    fn version_1() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(STEP_1).unwrap();
        let begun = format!("PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=1;");
        connection.execute_batch(&begun).unwrap();
        let row = "INSERT INTO _tn_tx (oid, seq, hlc, epoch, schema, body) VALUES (1, 1, 7, 1, 0, x'aa')";
        connection.execute(row, []).unwrap();
        connection
    }

    fn tables(connection: &Connection) -> Vec<String> {
        let mut found =
            connection.prepare("SELECT name || ' ' || coalesce(sql, '') FROM sqlite_master ORDER BY 1").unwrap();
        found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn an_older_file_becomes_what_a_new_one_is_and_keeps_its_log() {
        let (older, new) = (version_1(), Connection::open_in_memory().unwrap());
        migrate(&new).unwrap();
        assert_ne!(tables(&older), tables(&new));
        for _ in 0..2 {
            migrate(&older).unwrap();
            assert_eq!(tables(&older), tables(&new));
            assert_eq!(check_version(&older).unwrap(), FORMAT_VERSION);
        }
        for table in ["_tn_sib", "_tn_conf", "_tn_orphan", "_tn_stash", "_tn_peer"] {
            let rows: i64 = new.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 0, "{table}");
        }
        let hlc: i64 = older.query_row("SELECT hlc FROM _tn_tx", [], |row| row.get(0)).unwrap();
        assert_eq!(hlc, 7);
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let file = version_1();
        file.execute_batch("CREATE TABLE _tn_peer (x)").unwrap();
        migrate(&file).unwrap_err();
        assert_eq!(check_version(&file).unwrap(), 1);
        assert!(!tables(&file).iter().any(|table| table.starts_with("_tn_sib")));
        file.execute_batch("DROP TABLE _tn_peer").unwrap();
        migrate(&file).unwrap();
    }

    #[test]
    fn a_newer_file_is_refused() {
        let file = version_1();
        file.execute_batch(&format!("PRAGMA user_version={}", FORMAT_VERSION + 1)).unwrap();
        assert!(matches!(migrate(&file), Err(StoreError::NotATenant(_))));
    }
}
