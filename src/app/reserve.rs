//! Room that the node keeps for itself: a file in the data folder that goes when the disk is full, so that a node starts
//! there, opens what is read and deletes what is to be deleted.
//!
//! Keeps true: the file is given up when less than [`limits::DISK_LOW_BYTES`] are free, and until
//! [`limits::DISK_AMPLE_BYTES`] are there is no room for storing more, so that what was given up is not filled again at once;
//! then it is taken back. Room is asked of the file system, which does not tell of a quota. A node that stops on a full disk
//! sets aside what it leaves. Does not do: refusing; whoever stores asks.

use crate::kernel::limits;
use crate::store;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const FILE: &str = "node.reserve";
/// What is left free by a node that stops on a full disk.
const MARGIN_BYTES: u64 = 64 * 1024;

/// The reserve of one data folder. Shared by upkeep, which looks now and then, and by whoever asks for room.
#[derive(Debug)]
pub(super) struct Reserve {
    folder: PathBuf,
    /// The disk is full, as far as is known.
    tight: AtomicBool,
    /// Held for one look.
    looking: Mutex<()>,
}

impl Reserve {
    /// Looks at the disk before anything is opened on it.
    pub(super) fn open(folder: &Path) -> Self {
        let reserve = Self { folder: folder.to_owned(), tight: AtomicBool::new(false), looking: Mutex::new(()) };
        reserve.look();
        reserve
    }

    /// Whether there is room for storing more. Asks the file system only where there was none.
    pub(super) fn has_room(&self) -> bool {
        if self.tight.load(Ordering::Relaxed) {
            self.look();
        }
        !self.tight.load(Ordering::Relaxed)
    }

    /// Gives the reserve up or takes it back, as the disk is now.
    pub(super) fn look(&self) {
        let Some(_looking) = self.looking.try_lock() else { return };
        let Ok(free) = store::free_bytes(&self.folder) else { return };
        if free < limits::DISK_LOW_BYTES {
            self.give_up();
        } else if free >= limits::DISK_AMPLE_BYTES {
            if self.tight.swap(false, Ordering::Relaxed) {
                tracing::info!("the disk has room again");
            }
            // It is tried again at the next look.
            if let Err(error) = self.take() {
                tracing::debug!(%error, "no reserve could be taken");
            }
        }
    }

    /// The node ends: where the disk is full, what it leaves is set aside for its next start.
    pub(super) fn close(&self) {
        let Ok(free) = store::free_bytes(&self.folder) else { return };
        let rest = free.saturating_sub(MARGIN_BYTES).min(limits::DISK_RESERVE_BYTES);
        if self.tight.load(Ordering::Relaxed)
            && rest > 0
            && let Err(error) = self.set_aside(rest)
        {
            tracing::warn!(%error, "nothing could be set aside; the node may not start before there is room");
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    fn give_up(&self) {
        let given_up = fs::remove_file(self.path()).is_ok();
        if given_up || !self.tight.load(Ordering::Relaxed) {
            tracing::warn!(
                given_up,
                "the disk is full: what stores more is refused, reads and deletions use the reserve"
            );
        }
        self.tight.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> io::Result<()> {
        let whole = fs::metadata(self.path()).is_ok_and(|about| about.len() >= limits::DISK_RESERVE_BYTES);
        if whole { Ok(()) } else { self.set_aside(limits::DISK_RESERVE_BYTES) }
    }

    fn set_aside(&self, bytes: u64) -> io::Result<()> {
        let path = self.path();
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        let filled = fallocate(&file, FallocateFlags::empty(), 0, bytes).or_else(|_| {
            // A file system that cannot set room aside; a compressing one gives nothing back for it, and harms nothing.
            let zeros = vec![0; usize::try_from(bytes).unwrap_or(0)];
            file.write_all(&zeros)
        });
        if filled.is_err() {
            // A part of it is no reserve.
            let _ = fs::remove_file(&path);
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_taken_once_and_given_up_whole() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(folder.path());
        assert!(reserve.has_room());
        assert_eq!(fs::metadata(folder.path().join(FILE)).unwrap().len(), limits::DISK_RESERVE_BYTES);
        reserve.give_up();
        assert!(!folder.path().join(FILE).exists());
        assert!(reserve.has_room(), "this disk is not full, which is seen as soon as it matters");
        assert!(folder.path().join(FILE).exists());
    }
}
