//! Whether a failure of the disk is one of space.
//!
//! Keeps true: a failure is called [`StoreError::StorageFull`] only if the file system, or the quota of this process on
//! it, has no room for a few pages more. SQLite says so itself for the database and its log, but not for the shared
//! memory beside them, nor where a quota is the limit (`SQLITE_IOERR_SHMSIZE`, `SQLITE_IOERR_WRITE`, `SQLITE_CANTOPEN`).
//! Does not do: anything while all is well; it is asked after a failure.

use super::StoreError;
use crate::kernel::limits;
use rusqlite::ffi;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// `error`, or [`StoreError::StorageFull`] if want of space explains it; `path` is a file on the file system in question.
pub(super) fn explain(error: StoreError, path: &Path) -> StoreError {
    let folder = path.parent().unwrap_or(path);
    if is_of_the_disk(&error) && !has_room(folder) { StoreError::StorageFull } else { error }
}

fn is_of_the_disk(error: &StoreError) -> bool {
    let StoreError::Sqlite(error) = error else { return false };
    let code = error.sqlite_error().map(|error| error.extended_code & 0xff);
    matches!(code, Some(ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN))
}

/// Tries it with a file that has no name and so leaves nothing; where there are none, by what the file system says.
fn has_room(folder: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(probe) => File::from(probe).write_all(&[0; limits::SPACE_PROBE_BYTES]).is_ok(),
        Err(errno) => room_after(errno, folder),
    }
}

/// Whether there is room where making a file failed with `errno`.
fn room_after(errno: Errno, folder: &Path) -> bool {
    let needed = u64::try_from(limits::SPACE_PROBE_BYTES).unwrap_or(0);
    ![Errno::NOSPC, Errno::DQUOT].contains(&errno) && super::check::free_bytes(folder).is_ok_and(|free| free >= needed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::error::{Code, Fault};

    fn failure(extended_code: i32) -> StoreError {
        StoreError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None))
    }

    #[test]
    fn a_quota_and_a_disk_that_are_full_are_the_same_to_whoever_writes() {
        for errno in [Errno::DQUOT, Errno::NOSPC] {
            assert!(!room_after(errno, Path::new("/")), "{errno}");
            let error = StoreError::from(std::io::Error::from(errno));
            assert_eq!(error.code(), Code::StorageFull, "{errno}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(room_after(Errno::OPNOTSUPP, folder.path()), "a file system without nameless files");
    }

    #[test]
    fn a_failure_on_a_disk_with_room_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_CANTOPEN] {
            assert_eq!(explain(failure(code), &folder.path().join("data.db")).code(), Code::Internal);
        }
        assert_eq!(explain(failure(ffi::SQLITE_FULL), folder.path()).code(), Code::StorageFull);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "looking leaves nothing");
    }
}
