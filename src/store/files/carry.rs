//! Files on the way to another tenant: linked into a clone, packed into an exported database, unpacked from one.
//!
//! Keeps true: an export stays one SQLite file; what is unpacked was written to disk before the database that names it
//! appears; a name in a foreign file leads nowhere but into the tenant's own folder.
//! Does not do: choosing; whatever lies in the folder goes along, and the sweep removes what nobody names.

use super::sweep::{entries, name_of};
use super::{FileRef, STAGING};
use crate::kernel::ident::{CollectionId, FileName, RecordId};
use crate::kernel::limits;
use crate::store::StoreError;
use crate::store::connection;
use rusqlite::{Connection, params};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

/// The table that carries files inside an exported database; a tenant that serves never has it.
const CREATE: &str = "CREATE TABLE _tn_files (id INTEGER PRIMARY KEY, collection TEXT NOT NULL, record TEXT NOT NULL, \
                      name TEXT NOT NULL, body BLOB NOT NULL) STRICT";
const INSERT: &str = "INSERT INTO _tn_files (collection, record, name, body) VALUES (?1, ?2, ?3, ?4)";
const SELECT: &str = "SELECT collection, record, name, body FROM _tn_files ORDER BY id";
const EXISTS: &str = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '_tn_files'";

/// Runs `each` for every file under `root`.
fn for_each(root: &Path, mut each: impl FnMut(&FileRef, &Path) -> Result<(), StoreError>) -> Result<(), StoreError> {
    for collection in entries(root)?.into_iter().filter(|path| name_of(path) != STAGING) {
        for record in entries(&collection)? {
            for file in entries(&record)? {
                let place = (
                    CollectionId::parse(&name_of(&collection)),
                    RecordId::parse(&name_of(&record)),
                    FileName::parse(&name_of(&file)),
                );
                if let (Ok(collection), Ok(record), Ok(name)) = place {
                    each(&FileRef { collection, record, name }, &file)?;
                }
            }
        }
    }
    Ok(())
}

/// Gives every file under `from` a second name under `to`. Content never changes, so both may share it.
pub(in crate::store) fn link_all(from: &Path, to: &Path) -> Result<(), StoreError> {
    for_each(from, |place, path| {
        let target = place.path(to);
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        match fs::hard_link(path, &target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A file system without links.
            Err(_) => drop(fs::copy(path, &target)?),
        }
        Ok(())
    })?;
    flush(to)
}

/// Brings everything that was written under `root` to disk at once; a flush per file would take minutes for thousands.
fn flush(root: &Path) -> Result<(), StoreError> {
    if !root.is_dir() {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(File::open(root)?).map_err(io::Error::from)?;
    #[cfg(not(target_os = "linux"))]
    rustix::fs::sync();
    Ok(())
}

/// Puts every file under `root` into the closed database `database`.
pub(in crate::store) fn pack(root: &Path, database: &Path) -> Result<(), StoreError> {
    let mut connection = None;
    for_each(root, |place, path| {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let connection = match &mut connection {
            Some(connection) => connection,
            none => none.insert(begin_packing(database)?),
        };
        let mut insert = connection.prepare_cached(INSERT)?;
        loop {
            let mut part = Vec::new();
            (&mut file).take(limits::FILE_CHUNK_BYTES as u64).read_to_end(&mut part)?;
            insert.execute(params![place.collection.as_str(), place.record.as_str(), place.name.as_str(), part])?;
            // A short part is the last; an empty file is one empty part.
            if part.len() < limits::FILE_CHUNK_BYTES {
                return Ok(());
            }
        }
    })?;
    let Some(connection) = connection else { return Ok(()) };
    connection.flush_prepared_statement_cache();
    connection.execute_batch("COMMIT")?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn begin_packing(database: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(database, connection::write_flags())?;
    connection.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN")?;
    connection.execute_batch(CREATE)?;
    Ok(connection)
}

/// As many pages as a file can have.
const ALL_PAGES: u64 = u32::MAX as u64;

/// Takes the files out of the closed database `database` and puts them under `root`.
pub(in crate::store) fn unpack(database: &Path, root: &Path) -> Result<(), StoreError> {
    let connection = Connection::open_with_flags(database, connection::write_flags())?;
    connection.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA synchronous=OFF; PRAGMA journal_mode=DELETE;")?;
    if connection.query_row(EXISTS, [], |row| row.get::<_, i64>(0))? > 0 {
        write_all(&connection, root)?;
        connection.execute_batch("DROP TABLE _tn_files;")?;
        connection::give_back(&connection, ALL_PAGES)?;
    }
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn write_all(connection: &Connection, root: &Path) -> Result<(), StoreError> {
    let foreign = |_| StoreError::NotATenant(Arc::from("it carries a file with an impossible name"));
    let mut statement = connection.prepare(SELECT)?;
    let mut rows = statement.query([])?;
    let mut open: Option<(FileRef, File)> = None;
    while let Some(row) = rows.next()? {
        let text = |index| row.get::<_, String>(index);
        let place = FileRef {
            collection: CollectionId::parse(&text(0)?).map_err(foreign)?,
            record: RecordId::parse(&text(1)?).map_err(foreign)?,
            name: FileName::parse(&text(2)?).map_err(foreign)?,
        };
        if open.as_ref().is_none_or(|(current, _)| *current != place) {
            let target = place.path(root);
            fs::create_dir_all(target.parent().unwrap_or(root))?;
            open = Some((place, File::create(target)?));
        }
        if let Some((_, file)) = &mut open {
            file.write_all(row.get_ref(3)?.as_blob().unwrap_or_default())?;
        }
    }
    flush(root)
}
