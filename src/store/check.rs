//! The doctor: is this file sound, does its log hold, how much room is left.
//!
//! Keeps true: looking changes nothing. Does not do: repair.

use super::StoreError;
use super::changelog;
use super::connection;
use super::files;
use super::migrate;
use super::readers::{self, Reader};
use super::space;
use super::stats::Counters;
use super::tenant::Shared;
use crate::kernel::ident::{CollectionId, RecordId, TenantId};
use crate::kernel::value::Stored;
use crate::schema::CollectionKind;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a look at one tenant file found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The tenant.
    pub tenant: TenantId,
    /// What does not hold, one sentence each; empty is healthy.
    pub problems: Vec<String>,
    /// Version of the system tables.
    pub format: i32,
    /// Version of the collections.
    pub schema_version: i64,
    /// Records per collection: id, name, count.
    pub records: Vec<(CollectionId, String, u64)>,
    /// Transactions in the log.
    pub log_len: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Uploaded files that records name.
    pub files: u64,
}

impl CheckReport {
    /// Whether nothing was found.
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Reads the file of a tenant that nobody serves, whatever its format; nothing is brought up to date or written.
pub fn read_file<T, E: From<StoreError>>(
    data_dir: &Path,
    tenant: &TenantId,
    read: impl FnOnce(&Reader<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let connection = open_file(data_dir, tenant)?;
    let schema = Arc::new(readers::load_schema(&connection)?);
    read(&Reader {
        connection: &connection,
        schema,
        lsn: 0,
        tenant,
        slow: None,
        meter: None,
        counts: None,
        ills: None,
        system: None,
    })
}

/// Opens an existing file to read one snapshot of it.
fn open_file(data_dir: &Path, tenant: &TenantId) -> Result<Connection, StoreError> {
    let path = super::table::file_path(data_dir, tenant);
    if !path.is_file() {
        return Err(StoreError::TenantMissing(tenant.clone()));
    }
    let open = || -> Result<Connection, rusqlite::Error> {
        let connection = Connection::open_with_flags(&path, connection::read_flags())?;
        connection.busy_timeout(Duration::from_secs(5))?;
        // One snapshot for everything that follows.
        connection.execute_batch("PRAGMA trusted_schema=OFF; BEGIN")?;
        Ok(connection)
    };
    open().map_err(|error| space::explain(error.into(), &path))
}

/// Looks at the file of `tenant` under `data_dir`; it may be in use meanwhile. Blocks for time proportional to the file.
pub fn check_file(data_dir: &Path, tenant: &TenantId) -> Result<CheckReport, StoreError> {
    let path = super::table::file_path(data_dir, tenant);
    // The first statement that reads is the one that finds no room for what stands beside the file.
    look_at(data_dir, tenant, &path).map_err(|error| space::explain(error, &path))
}

fn look_at(data_dir: &Path, tenant: &TenantId, path: &Path) -> Result<CheckReport, StoreError> {
    let connection = open_file(data_dir, tenant)?;
    let mut report = CheckReport {
        tenant: tenant.clone(),
        problems: Vec::new(),
        format: migrate::check_version(&connection)?,
        schema_version: 0,
        records: Vec::new(),
        log_len: 0,
        bytes: std::fs::metadata(path)?.len(),
        files: 0,
    };
    quick_check(&connection, &mut report)?;
    report.problems.extend(migrate::check_tables(&connection, report.format)?);
    // A damaged part is a finding, not the end of the look.
    let collections = check_collections(&connection, &mut report).err();
    let files = check_files(&connection, path, &mut report).err();
    let log = check_log(&connection, &mut report).err();
    report.problems.extend(collections.into_iter().chain(files).chain(log).map(|error| error.to_string()));
    Ok(report)
}

fn quick_check(connection: &Connection, report: &mut CheckReport) -> Result<(), StoreError> {
    let mut statement = connection.prepare("PRAGMA quick_check(20)")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            report.problems.push(line);
        }
    }
    Ok(())
}

fn check_collections(connection: &Connection, report: &mut CheckReport) -> Result<(), StoreError> {
    let schema = readers::load_schema(connection)?;
    report.schema_version = schema.version();
    for collection in schema.collections().iter().filter(|collection| collection.kind != CollectionKind::View) {
        let sql = format!("SELECT count(*) FROM \"c_{}\"", collection.id);
        let counted = connection.query_row(&sql, [], |row| row.get::<_, i64>(0));
        match counted.map_err(StoreError::from) {
            Ok(count) => report.records.push((
                collection.id.clone(),
                collection.name.to_string(),
                u64::try_from(count).unwrap_or(0),
            )),
            Err(error) => report.problems.push(format!("collection {}: {error}", collection.name)),
        }
    }
    Ok(())
}

/// Every file that a record names must be there.
fn check_files(connection: &Connection, path: &Path, report: &mut CheckReport) -> Result<(), StoreError> {
    let root = files::root_of(path);
    let schema = readers::load_schema(connection)?;
    for collection in schema.collections().iter().filter(|collection| collection.kind != CollectionKind::View) {
        for field in files::file_fields(collection) {
            let column = field.column();
            let sql = format!("SELECT id, {column} FROM \"{}\" WHERE {column} NOT IN ('', '[]')", collection.table());
            let (mut missing, mut first) = (0_u64, None);
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let Ok(record) = RecordId::parse(row.get_ref(0)?.as_str().unwrap_or_default()) else { continue };
                let held = Stored::text(row.get_ref(1)?.as_str().unwrap_or_default());
                for name in files::names_in(&held) {
                    let place = files::FileRef { collection: collection.id.clone(), record: record.clone(), name };
                    if place.path(&root).is_file() {
                        report.files += 1;
                    } else {
                        missing += 1;
                        first.get_or_insert(format!("{}/{}", place.record, place.name));
                    }
                }
            }
            if let Some(first) = first {
                let what =
                    format!("{}.{}: {missing} named files are missing, such as {first}", collection.name, field.name);
                report.problems.push(what);
            }
        }
    }
    Ok(())
}

fn check_log(connection: &Connection, report: &mut CheckReport) -> Result<(), StoreError> {
    let (len, problems) = changelog::verify(connection)?;
    report.log_len = len;
    report.problems.extend(problems);
    Ok(())
}

/// A request panicked over `tenant`: checks its file and tells the log and the counters. Blocks.
pub(super) fn look_after_panic(shared: &Shared, tenant: &TenantId) {
    let counters = &shared.counters;
    match check_file(&shared.options.data_dir, tenant) {
        Ok(report) if report.is_healthy() => {
            Counters::add(&counters.panic_checks, 1);
            tracing::info!(tenant.id = %tenant, "the tenant is sound after a panic");
        }
        Ok(report) => {
            Counters::add(&counters.panic_checks_failed, 1);
            let problems = report.problems.join("; ");
            tracing::error!(tenant.id = %tenant, problems, "the tenant is damaged, found after a panic");
        }
        // Such as one that was deleted in the meantime.
        Err(error) => {
            Counters::add(&counters.panic_checks_failed, 1);
            tracing::warn!(tenant.id = %tenant, %error, "the tenant cannot be checked after a panic");
        }
    }
}

/// Bytes that an unprivileged process may still write to the file system of `folder`.
pub fn free_bytes(folder: &Path) -> Result<u64, StoreError> {
    let facts = rustix::fs::statvfs(folder).map_err(std::io::Error::from)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}
