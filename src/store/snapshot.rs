//! Whole files: make, copy, bring in, swap, delete; each step ordered so that a crash leaves the old state or the new.
//!
//! Keeps true: a tenant file appears under its name only complete and on disk (temp → fsync → rename → fsync of the
//! folder), with its uploaded files; a file that came from elsewhere gets a new lineage. Does not do: registry rows.

use super::StoreError;
use super::changelog;
use super::connection;
use super::digest;
use super::faults::FaultPoint;
use super::files;
use super::migrate;
use super::options::StoreOptions;
use super::space;
use super::table::{Tenants, file_path};
use super::tenant::TenantDb;
use crate::kernel::datetime;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::kernel::random::{self, Random};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long an exclusive operation waits for the users of a handle.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pages copied between two looks at whether to go on.
const PAGES_PER_STEP: i32 = 2_048;
/// Part of every temporary name; no tenant id has a dot.
const TEMPORARY: &str = ".tmp-";

impl Tenants {
    /// Makes an empty tenant file and opens it.
    pub async fn create(&self, id: &TenantId) -> Result<TenantDb, StoreError> {
        {
            let _hold = self.hold(id, PATIENCE).await?;
            let (options, id) = (Arc::clone(&self.shared.options), id.clone());
            blocking(move || create_file(&options, &id)).await?;
        }
        self.open(id).await
    }

    /// Copies a tenant as it is now into a new one, which gets a lineage of its own. Writers are not held up.
    pub async fn clone_tenant(&self, source: &TenantId, target: &TenantId) -> Result<TenantDb, StoreError> {
        {
            let from = self.open(source).await?;
            let _hold = self.hold(target, PATIENCE).await?;
            let (options, target) = (Arc::clone(&self.shared.options), target.clone());
            blocking(move || {
                let _files = from.inner().remover().hold(from.id());
                place(&options, &target, Place::New, |temp| {
                    copy_online(&from, temp)?;
                    files::link_all(&from.files_root(), &files::root_of(temp))?;
                    adopt(temp)
                })
            })
            .await?;
        }
        self.open(target).await
    }

    /// Writes a consistent copy of a tenant with its uploaded files to `destination`: one file, no write-ahead log
    /// beside it.
    pub async fn export(&self, id: &TenantId, destination: &Path) -> Result<(), StoreError> {
        let (from, destination) = (self.open(id).await?, destination.to_path_buf());
        let options = Arc::clone(&self.shared.options);
        blocking(move || {
            let temp = temporary(&destination, &*options.random);
            let _files = from.inner().remover().hold(from.id());
            let copied = copy_online(&from, &temp)
                .and_then(|()| files::pack(&from.files_root(), &temp))
                .and_then(|()| digest::put(&temp, &*options.random))
                .and_then(|()| finish(&options, &temp, &destination));
            copied.map_err(|error| {
                let error = space::explain(error, &temp);
                remove_database(&temp);
                error
            })
        })
        .await
    }

    /// Brings in a file that [`Tenants::export`] wrote, as a new tenant, after checking it.
    pub async fn import(&self, id: &TenantId, source: &Path) -> Result<TenantDb, StoreError> {
        self.bring_in(id, source, Place::New).await
    }

    /// Puts a file in the place of a tenant's present one: a restore. The handle is closed for the moment of the swap.
    pub async fn replace(&self, id: &TenantId, source: &Path) -> Result<TenantDb, StoreError> {
        self.bring_in(id, source, Place::Existing).await
    }

    async fn bring_in(&self, id: &TenantId, source: &Path, how: Place) -> Result<TenantDb, StoreError> {
        {
            let _hold = self.hold(id, PATIENCE).await?;
            let (options, id, source) = (Arc::clone(&self.shared.options), id.clone(), source.to_path_buf());
            blocking(move || {
                place(&options, &id, how, |temp| {
                    copy_file(&source, temp)?;
                    validate(temp, options.clock.now_ms()).map_err(foreign_damage)?;
                    digest::check(temp).map_err(foreign_damage)?;
                    files::unpack(temp, &files::root_of(temp)).map_err(foreign_damage)?;
                    adopt(temp).map_err(foreign_damage)
                })
            })
            .await?;
        }
        self.shared.ills.forget(id);
        self.open(id).await
    }

    /// Deletes a tenant with everything in its folder. The name is free as soon as this returns.
    pub async fn delete(&self, id: &TenantId) -> Result<(), StoreError> {
        let _hold = self.hold(id, PATIENCE).await?;
        let (options, gone) = (Arc::clone(&self.shared.options), id.clone());
        blocking(move || delete_folder(&options, &gone)).await?;
        self.shared.ills.forget(id);
        Ok(())
    }

    /// The ids of all tenants that have a file, without the control database.
    pub async fn list_files(&self) -> Result<Vec<TenantId>, StoreError> {
        let data_dir = self.shared.options.data_dir.clone();
        blocking(move || list_files(&data_dir)).await
    }
}

/// The ids of all tenants that have a file under `data_dir`, without the control database.
pub fn list_files(data_dir: &Path) -> Result<Vec<TenantId>, StoreError> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(data_dir.join("tenants"))? {
        let entry = entry?;
        if let Ok(id) = TenantId::parse(&entry.file_name().to_string_lossy())
            && entry.path().join("data.db").is_file()
        {
            ids.push(id);
        }
    }
    ids.sort();
    Ok(ids)
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(run).await.unwrap_or(Err(StoreError::Closing))
}

/// What the final name must be before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    New,
    Existing,
}

/// Makes an empty tenant file. Without a journal until it is complete: an unfinished file is only ever thrown away.
pub(super) fn create_file(options: &StoreOptions, id: &TenantId) -> Result<(), StoreError> {
    place(options, id, Place::New, |temp| {
        let flags = connection::write_flags() | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = Connection::open_with_flags(temp, flags)?;
        connection.execute_batch(
            "PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;",
        )?;
        migrate::migrate(&connection)?;
        migrate::ensure_lineage(&connection, options.node, &*options.random)?;
        into_wal(&connection)
    })
}

/// Fills a temporary file beside the final one with `fill`, then moves it there.
fn place(
    options: &StoreOptions,
    id: &TenantId,
    how: Place,
    fill: impl FnOnce(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let target = file_path(&options.data_dir, id);
    match (how, target.is_file()) {
        (Place::New, true) => return Err(StoreError::TenantExists(id.clone())),
        (Place::Existing, false) => return Err(StoreError::TenantMissing(id.clone())),
        _ => {}
    }
    let folder = parent(&target)?;
    let new_folder = !folder.is_dir();
    fs::create_dir_all(folder)?;
    let temp = temporary(&target, &*options.random);
    let done = fill(&temp).and_then(|()| finish(options, &temp, &target));
    match done {
        Ok(()) if new_folder => sync_dir(parent(folder)?),
        Ok(()) => Ok(()),
        Err(error) => {
            let error = space::explain(error, &temp);
            remove_database(&temp);
            if new_folder {
                let _ = fs::remove_dir_all(files::root_of(&target));
                // Only an empty folder goes.
                let _ = fs::remove_dir(folder);
            }
            Err(error)
        }
    }
}

/// fsync, rename, fsync of the folder. A log left by the file that is replaced must go first, or it would be replayed.
fn finish(options: &StoreOptions, temp: &Path, target: &Path) -> Result<(), StoreError> {
    File::open(temp)?.sync_all()?;
    if let Some(injected) = options.faults.at(FaultPoint::BeforeRename) {
        return Err(injected.into());
    }
    remove_beside(target);
    fs::rename(temp, target)?;
    sync_dir(parent(target)?)
}

/// Copies a tenant page by page from one snapshot.
fn copy_online(from: &TenantDb, temp: &Path) -> Result<(), StoreError> {
    let mut reader = from.inner().readers().get()?;
    let source = reader.pinned(from.inner())?;
    let flags = connection::write_flags() | OpenFlags::SQLITE_OPEN_CREATE;
    let mut target = Connection::open_with_flags(temp, flags)?;
    target.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")?;
    {
        let backup = Backup::new(source, &mut target)?;
        loop {
            match backup.step(PAGES_PER_STEP)? {
                StepResult::Done => break,
                StepResult::More => {}
                _ => return Err(StoreError::Busy),
            }
        }
    }
    // The copied header says WAL; a single file without a log is what leaves this function.
    target.execute_batch("PRAGMA journal_mode=DELETE;")?;
    target.close().map_err(|(_, error)| error)?;
    remove_beside(temp);
    Ok(())
}

/// Damage in a file that somebody brings is a mistake of theirs, not a defect here.
fn foreign_damage(error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged(why) => StoreError::NotATenant(Arc::from(format!("it is damaged: {why}"))),
        other => other,
    }
}

/// Makes a copy a tenant of this node: write-ahead log mode, and a new lineage at the next open.
fn adopt(temp: &Path) -> Result<(), StoreError> {
    let connection = Connection::open_with_flags(temp, connection::write_flags())?;
    connection.execute_batch("PRAGMA synchronous=OFF; PRAGMA journal_mode=DELETE;")?;
    migrate::migrate(&connection).map_err(|error| match error {
        // Only its own tables can stand in the way of those that a step makes.
        StoreError::Sql(_) => StoreError::NotATenant(Arc::from("its system tables are not those of its format")),
        other => other,
    })?;
    migrate::forget_lineage(&connection)?;
    migrate::forget_views(&connection)?;
    digest::forget(&connection)?;
    into_wal(&connection)?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn into_wal(connection: &Connection) -> Result<(), StoreError> {
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    if mode == "wal" { Ok(()) } else { Err(StoreError::damaged("the file refuses write-ahead logging")) }
}

/// Refuses a file that is not a healthy tenant of a known format, or that would carry the clock of its writer away.
fn validate(path: &Path, now_ms: i64) -> Result<(), StoreError> {
    let connection = Connection::open_with_flags(path, connection::write_flags())?;
    // The file is foreign: nothing in its schema may run while it is looked at.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;")?;
    let version = migrate::check_version(&connection)?;
    if version == 0 {
        return Err(StoreError::NotATenant(Arc::from("it holds no tenant")));
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::NotATenant(Arc::from(format!("it is damaged: {verdict}"))));
    }
    if let Some(problem) = migrate::check_tables(&connection, version)?.first() {
        let why = format!("its system tables are not those of its format: {problem}");
        return Err(StoreError::NotATenant(Arc::from(why)));
    }
    super::readers::load_schema(&connection)?;
    validate_log(&connection, now_ms)?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// The log must hold, and its stamps must not be far ahead: whatever is written next is stamped after them, so one forged
/// stamp would stop the clock of the tenant for good.
fn validate_log(connection: &Connection, now_ms: i64) -> Result<(), StoreError> {
    let foreign = |why: String| StoreError::NotATenant(Arc::from(why));
    let ahead_ms = changelog::latest_ms(connection)?.saturating_sub(now_ms);
    if ahead_ms > limits::IMPORT_CLOCK_AHEAD_MS {
        let (hours, now) = (ahead_ms / 3_600_000, datetime::format_ms(now_ms));
        return Err(foreign(format!(
            "its newest entry is {hours} hours in the future, for this machine's clock says {now}; if the clock is behind, \
             set it and try again"
        )));
    }
    match changelog::verify(connection)?.1.first() {
        Some(problem) => Err(foreign(format!("its log does not hold: {problem}"))),
        None => Ok(()),
    }
}

fn copy_file(source: &Path, temp: &Path) -> Result<(), StoreError> {
    let mut magic = [0_u8; 16];
    std::io::Read::read_exact(&mut File::open(source)?, &mut magic)
        .map_err(|_| StoreError::NotATenant(Arc::from("it is not an SQLite database")))?;
    if &magic != connection::FILE_MAGIC {
        return Err(StoreError::NotATenant(Arc::from("it is not an SQLite database")));
    }
    fs::copy(source, temp)?;
    // A file that was copied by hand may come with its log; without it the newest writes would be missing.
    let log = with_suffix(source, "-wal");
    if log.is_file() {
        fs::copy(log, with_suffix(temp, "-wal"))?;
    }
    Ok(())
}

fn delete_folder(options: &StoreOptions, id: &TenantId) -> Result<(), StoreError> {
    let target = file_path(&options.data_dir, id);
    if id.is_control() {
        return Err(StoreError::Refused(Arc::from("the control database cannot be deleted")));
    }
    let folder = parent(&target)?;
    // A folder without a database is what a crash in the middle of a creation left; it goes like a whole one.
    if !folder.is_dir() {
        return Err(StoreError::TenantMissing(id.clone()));
    }
    // The new name is no tenant id, so a crash in between leaves rubbish, not half a tenant.
    let doomed = temporary(folder, &*options.random);
    fs::rename(folder, &doomed)?;
    sync_dir(parent(folder)?)?;
    fs::remove_dir_all(&doomed)?;
    Ok(())
}

/// Removes what crashes left of creations, copies and deletions: names that no tenant can have. For the start, when
/// nobody works in the folder; what cannot be removed is told and left.
pub(super) fn sweep_rubbish(data_dir: &Path) -> Result<(), StoreError> {
    for folder in [data_dir.to_path_buf(), data_dir.join("tenants")] {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().contains(TEMPORARY) {
                continue;
            }
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Ok(()) => tracing::warn!(path = %path.display(), "removed what a crash left behind"),
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot remove what a crash left behind"),
            }
        }
    }
    Ok(())
}

/// Replaces `path` by `bytes` so that a crash leaves the old content or the new.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temp = with_suffix(path, ".tmp");
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    sync_dir(parent(path)?)
}

pub(super) fn sync_dir(folder: &Path) -> Result<(), StoreError> {
    Ok(File::open(folder)?.sync_all()?)
}

fn parent(path: &Path) -> Result<&Path, StoreError> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(folder) => Ok(folder),
        None => Err(StoreError::damaged("a path without a folder")),
    }
}

/// A name beside `target` that no tenant can have.
fn temporary(target: &Path, random: &dyn Random) -> PathBuf {
    with_suffix(target, &format!("{TEMPORARY}{}", random::lowercase_id(random, 8)))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes the write-ahead log and its index; missing ones are fine.
fn remove_beside(path: &Path) {
    for suffix in ["-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(with_suffix(path, suffix));
    }
}

fn remove_database(path: &Path) {
    remove_beside(path);
    let _ = fs::remove_file(path);
}
