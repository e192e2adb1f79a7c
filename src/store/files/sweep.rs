//! Finding files that no record names: what a crash, a full queue or a removed field left behind.
//!
//! Keeps true: a file younger than the given moment stays, because the commit that names it may be under way; a file
//! that the present snapshot names stays. Does not do: deciding when to look; that is upkeep.

use super::{STAGING, file_fields, names_in};
use crate::kernel::ident::{CollectionId, FileName, RecordId};
use crate::store::StoreError;
use crate::store::tenant::TenantDb;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

impl TenantDb {
    /// Removes files older than `before_ms` that no record names; how many.
    pub async fn sweep_files(&self, before_ms: i64) -> Result<u64, StoreError> {
        let tenant = self.clone();
        super::blocking(move || sweep(&tenant, before_ms)).await
    }
}

fn sweep(tenant: &TenantDb, before_ms: i64) -> Result<u64, StoreError> {
    let root = tenant.files_root();
    let mut removed = 0;
    for collection in entries(&root)? {
        if name_of(&collection) == STAGING {
            for file in entries(&collection)? {
                removed += u64::from(remove_old(tenant, &file, before_ms)?);
            }
            continue;
        }
        for record in entries(&collection)? {
            // Listed first, asked second: a file that appears in between is not looked at.
            let files = entries(&record)?;
            let named = named(tenant, &name_of(&collection), &name_of(&record))?;
            for file in files {
                let is_named = FileName::parse(&name_of(&file)).is_ok_and(|name| named.contains(&name));
                if !is_named {
                    removed += u64::from(remove_old(tenant, &file, before_ms)?);
                }
            }
            // Refused while something is in it.
            let _ = fs::remove_dir(&record);
        }
        let _ = fs::remove_dir(&collection);
    }
    Ok(removed)
}

/// The names that a record holds; none if there is no such record.
fn named(tenant: &TenantDb, collection: &str, record: &str) -> Result<HashSet<FileName>, StoreError> {
    let (Ok(collection), Ok(record)) = (CollectionId::parse(collection), RecordId::parse(record)) else {
        return Ok(HashSet::new());
    };
    tenant.read_blocking(|reader| {
        let Some(collection) = reader.schema().find_id(&collection).filter(|collection| !collection.is_view()) else {
            return Ok::<_, StoreError>(HashSet::new());
        };
        let Some(image) = reader.find_record(collection, record.as_str())? else { return Ok(HashSet::new()) };
        Ok(file_fields(collection).filter_map(|field| image.get(field.number)).flat_map(names_in).collect())
    })
}

fn remove_old(tenant: &TenantDb, path: &Path, before_ms: i64) -> Result<bool, StoreError> {
    let modified = match fs::metadata(path).and_then(|meta| meta.modified()) {
        Ok(modified) => modified,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let modified_ms = modified.duration_since(UNIX_EPOCH).map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(0));
    if modified_ms >= before_ms {
        return Ok(false);
    }
    let mut removed = false;
    tenant.inner().remover().unless_copied(tenant.id(), || removed = fs::remove_file(path).is_ok());
    Ok(removed)
}

/// What is in a folder; nothing if it is gone.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    Ok(listed.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
