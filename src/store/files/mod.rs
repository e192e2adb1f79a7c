//! Uploaded files: beside the tenant's database, as `files/<collection id>/<record id>/<name>`.
//!
//! Keeps true: a file appears under its name complete and on disk, before the commit that names it, and goes only after
//! the commit that let go of it; names are never used twice, so content under a name never changes; paths are made of
//! checked identifiers alone. Does not do: who may see a file, media types, which names a record holds.
//!
//! A crash leaves at most files that no record names; `sweep` finds them.

mod carry;
mod removal;
mod sweep;
#[cfg(test)]
mod tests;

pub(super) use carry::{link_all, pack, unpack};
pub(super) use removal::{FileRemover, Released, released};

use super::StoreError;
use super::faults::FaultPoint;
use super::snapshot::sync_dir;
use super::tenant::TenantDb;
use crate::kernel::ident::{CollectionId, FileName, RecordId};
use crate::kernel::limits;
use crate::kernel::random;
use crate::kernel::value::Stored;
use crate::schema::Collection;
use crate::schema::field::{Field, FieldKind};
use crate::schema::value_check;
use ring::digest;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

/// The folder beside the collections' in which files wait for their write; no collection id begins with a dot.
const STAGING: &str = ".staging";

/// Where one file belongs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileRef {
    /// The collection.
    pub collection: CollectionId,
    /// The record that names it.
    pub record: RecordId,
    /// Its name.
    pub name: FileName,
}

impl FileRef {
    pub(super) fn path(&self, root: &Path) -> PathBuf {
        root.join(self.collection.as_str()).join(self.record.as_str()).join(self.name.as_str())
    }
}

/// The files folder of the tenant whose database is `database`.
pub(super) fn root_of(database: &Path) -> PathBuf {
    database.with_file_name("files")
}

/// The file fields of a collection.
pub(super) fn file_fields(collection: &Collection) -> impl Iterator<Item = &Field> {
    collection.fields.iter().filter(|field| matches!(field.kind, FieldKind::File(_)))
}

/// The file names that a value of a file field holds.
pub(super) fn names_in(stored: &Stored) -> impl Iterator<Item = FileName> {
    value_check::items(stored).into_iter().filter_map(|name| FileName::parse(&name).ok())
}

/// A file that is being received.
pub struct FileWriter {
    file: tokio::fs::File,
    staged: StagedFile,
    digest: digest::Context,
}

/// A file that is complete, on disk, and nobody's yet; dropping it removes it unless it was kept.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// Its first bytes, at most `limits::FILE_HEAD_BYTES`.
    pub head: Vec<u8>,
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // Usually it was moved to its place.
        let _ = fs::remove_file(&self.path);
    }
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter").field("staged", &self.staged).finish_non_exhaustive()
    }
}

impl FileWriter {
    /// Appends `chunk`.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(chunk).await?;
        self.digest.update(chunk);
        let room = limits::FILE_HEAD_BYTES.saturating_sub(self.staged.head.len());
        self.staged.head.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
        self.staged.bytes += chunk.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.staged.bytes
    }

    /// Flushes to disk.
    pub async fn finish(self) -> Result<StagedFile, StoreError> {
        let Self { mut file, mut staged, digest } = self;
        file.flush().await?;
        file.sync_all().await?;
        staged.sha256.copy_from_slice(digest.finish().as_ref());
        Ok(staged)
    }
}

/// What lies in and below `folder`; links are not followed.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// A stored file, opened.
#[derive(Debug)]
pub struct OpenFile {
    /// Positioned at its beginning.
    pub file: File,
    /// Its length.
    pub bytes: u64,
    /// Its first bytes, at most `limits::FILE_HEAD_BYTES`.
    pub head: Vec<u8>,
}

impl TenantDb {
    /// Bytes of the database and its write-ahead log; a file that went away counts nothing.
    pub async fn database_bytes(&self) -> u64 {
        let mut bytes = 0;
        for suffix in ["", "-wal"] {
            let mut name = self.inner().path().as_os_str().to_owned();
            name.push(suffix);
            bytes += tokio::fs::metadata(name).await.map_or(0, |file| file.len());
        }
        bytes
    }

    /// Bytes of uploaded files, staged ones included.
    pub async fn upload_bytes(&self) -> u64 {
        let root = self.files_root();
        // A task that was cut off by the end of the process measured nothing.
        tokio::task::spawn_blocking(move || bytes_below(&root)).await.unwrap_or(0)
    }

    pub(super) fn files_root(&self) -> PathBuf {
        root_of(self.inner().path())
    }

    /// Begins to receive a file.
    pub async fn stage_file(&self) -> Result<FileWriter, StoreError> {
        let folder = self.files_root().join(STAGING);
        tokio::fs::create_dir_all(&folder).await?;
        let path = folder.join(random::lowercase_id(&*self.inner().options().random, 20));
        let staged = StagedFile { path, bytes: 0, sha256: [0; 32], head: Vec::new() };
        let file = tokio::fs::File::create_new(&staged.path).await?;
        Ok(FileWriter { file, staged, digest: digest::Context::new(&digest::SHA256) })
    }

    /// Moves staged files to their places; they are durable there when this returns. On failure none stays.
    pub async fn keep_files(&self, files: Vec<(Arc<StagedFile>, FileRef)>) -> Result<(), StoreError> {
        let tenant = self.clone();
        blocking(move || {
            let root = tenant.files_root();
            let mut kept = Vec::with_capacity(files.len());
            for (staged, place) in files {
                if let Err(error) = keep(&tenant, &root, &staged, &place) {
                    // Only those that were put there: what had the name before is somebody's.
                    remove_all(&root, &kept);
                    return Err(error);
                }
                kept.push(place);
            }
            Ok(())
        })
        .await
    }

    /// Opens a stored file; `None` if it is not there.
    pub async fn open_file(&self, place: &FileRef) -> Result<Option<OpenFile>, StoreError> {
        let path = place.path(&self.files_root());
        blocking(move || open(&path)).await
    }

    /// Removes files that were kept for a write which did not name them in the end.
    pub async fn discard_files(&self, places: Vec<FileRef>) {
        let root = self.files_root();
        // What cannot be removed now is found by the sweep.
        let _ = tokio::task::spawn_blocking(move || remove_all(&root, &places)).await;
    }
}

fn keep(tenant: &TenantDb, root: &Path, staged: &StagedFile, place: &FileRef) -> Result<(), StoreError> {
    let target = place.path(root);
    if target.exists() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    if let Some(injected) = tenant.inner().options().faults.at(FaultPoint::BeforeRename) {
        return Err(injected.into());
    }
    let folder = target.parent().unwrap_or(root);
    // A sweep may take away the folder while it is empty.
    for attempt in 0..3 {
        make_folder(root, folder)?;
        match fs::rename(&staged.path, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < 2 => {}
            done => {
                done?;
                break;
            }
        }
    }
    sync_dir(folder)
}

/// Makes `folder` under `root`, and makes its name durable in every folder that is new on the way.
fn make_folder(root: &Path, folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let above = folder.ancestors().skip(1).take_while(|above| above.starts_with(root));
    for above in above.chain(root.parent()) {
        sync_dir(above)?;
    }
    Ok(())
}

fn remove_all(root: &Path, places: &[FileRef]) {
    for place in places {
        remove(root, place);
    }
}

/// Removes one file and the folders that it leaves empty.
fn remove(root: &Path, place: &FileRef) {
    let path = place.path(root);
    let _ = fs::remove_file(&path);
    for folder in path.ancestors().skip(1).take(2) {
        // Refused while something is in it.
        let _ = fs::remove_dir(folder);
    }
}

fn open(path: &Path) -> Result<Option<OpenFile>, StoreError> {
    use std::io::{Read as _, Seek as _};
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let bytes = file.metadata()?.len();
    let mut head = Vec::new();
    (&mut file).take(limits::FILE_HEAD_BYTES as u64).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(Some(OpenFile { file, bytes, head }))
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(run).await.unwrap_or(Err(StoreError::Closing))
}
