//! Room that the node keeps for itself: a file in the data folder that goes when the disk is full, so that a node starts
//! there, opens what is read and deletes what is to be deleted.
//!
//! Keeps true: the file is given up when less than [`limits::DISK_LOW_BYTES`] are free, and until there are
//! [`limits::DISK_AMPLE_BYTES`], the file's own among them, there is no room for storing more, so that what was given up is
//! not filled again at once; a restart changes nothing about that. Then it is taken back. Room is asked of the file system,
//! which does not tell of a quota; where one refuses the file, it is tried again after minutes. A node that stops on a full
//! disk sets aside what it leaves. Whoever asks for room only looks. Does not do: refusing; whoever stores asks.

use crate::kernel::clock;
use crate::kernel::limits;
use crate::store;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FILE: &str = "node.reserve";

/// The reserve of one data folder. Shared by upkeep, which looks now and then, and by whoever asks for room.
#[derive(Debug)]
pub(super) struct Reserve {
    folder: PathBuf,
    /// The disk is full, as far as is known.
    tight: AtomicBool,
    /// Held while the file is changed.
    turn: Mutex<Turn>,
}

/// What is known from one change of the file to the next.
#[derive(Debug, Default)]
struct Turn {
    /// It could not be taken, and is not tried before.
    retake_at: Option<Instant>,
    /// The node ends; what was set aside for its next start stays.
    closed: bool,
}

impl Reserve {
    /// Looks at the disk before anything is opened on it.
    pub(super) fn open(folder: &Path) -> Self {
        let reserve = Self::found(folder, store::free_bytes(folder).unwrap_or(u64::MAX));
        reserve.look();
        reserve
    }

    /// As the last run left it, which may have been about to run full.
    fn found(folder: &Path, free: u64) -> Self {
        let reserve = Self { folder: folder.to_owned(), tight: AtomicBool::new(false), turn: Mutex::default() };
        let tight = !reserve.is_ample(free);
        reserve.tight.store(tight, Ordering::Relaxed);
        if tight {
            tracing::warn!("the disk is nearly full: what stores more is refused until there is room");
        }
        reserve
    }

    /// Whether there is room for storing more. Asks the file system only where there was none, and changes nothing there.
    pub(super) fn has_room(&self) -> bool {
        if !self.tight.load(Ordering::Relaxed) {
            return true;
        }
        store::free_bytes(&self.folder).is_ok_and(|free| self.note_room(free))
    }

    /// Gives the reserve up or takes it back, as the disk is now. Waits for the disk.
    pub(super) fn look(&self) {
        let mut turn = self.turn.lock();
        let Ok(free) = store::free_bytes(&self.folder) else { return };
        self.settle(&mut turn, free, clock::instant());
    }

    /// The node ends: where the disk is full, what it leaves is set aside for its next start.
    pub(super) fn close(&self) {
        let mut turn = self.turn.lock();
        turn.closed = true;
        let Ok(free) = store::free_bytes(&self.folder) else { return };
        let whole = free.saturating_add(self.held());
        let rest = whole.saturating_sub(limits::DISK_MARGIN_BYTES).min(limits::DISK_RESERVE_BYTES);
        if self.tight.load(Ordering::Relaxed)
            && rest > 0
            && let Err(error) = self.set_aside(rest)
        {
            tracing::warn!(%error, "nothing could be set aside; the node may not start before there is room");
        }
    }

    fn settle(&self, turn: &mut Turn, free: u64, now: Instant) {
        if turn.closed {
            return;
        }
        if free < limits::DISK_LOW_BYTES {
            self.give_up();
        } else if self.note_room(free) && turn.retake_at.is_none_or(|at| at <= now) {
            turn.retake_at = self.take().err().map(|error| {
                tracing::debug!(%error, "no reserve could be taken");
                now + Duration::from_millis(limits::DISK_RETAKE_MS)
            });
        }
    }

    /// Whether there is room, which is noted if there is.
    fn note_room(&self, free: u64) -> bool {
        let ample = self.is_ample(free);
        if ample && self.tight.swap(false, Ordering::Relaxed) {
            tracing::info!("the disk has room again");
        }
        ample
    }

    fn is_ample(&self, free: u64) -> bool {
        free.saturating_add(self.held()) >= limits::DISK_AMPLE_BYTES
    }

    /// Bytes that are set aside.
    fn held(&self) -> u64 {
        fs::metadata(self.path()).map_or(0, |about| about.len())
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    fn give_up(&self) {
        let known = self.tight.swap(true, Ordering::Relaxed);
        let given_up = fs::remove_file(self.path()).is_ok();
        if given_up || !known {
            tracing::warn!(
                given_up,
                "the disk is full: what stores more is refused, reads and deletions use the reserve"
            );
        }
    }

    fn take(&self) -> io::Result<()> {
        if self.held() >= limits::DISK_RESERVE_BYTES { Ok(()) } else { self.set_aside(limits::DISK_RESERVE_BYTES) }
    }

    fn set_aside(&self, bytes: u64) -> io::Result<()> {
        let path = self.path();
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        let allocated = fallocate(&file, FallocateFlags::empty(), 0, bytes);
        let filled = fill(file, bytes, allocated);
        if filled.is_err() {
            // A part of it is no reserve.
            let _ = fs::remove_file(&path);
        }
        filled
    }
}

/// Fills a file where the file system cannot set room aside; a compressing one gives nothing back for it, and harms
/// nothing. Where there is no room for it, filling would only take the last.
fn fill(mut file: File, bytes: u64, allocated: Result<(), Errno>) -> io::Result<()> {
    match allocated {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            file.write_all(&vec![0; usize::try_from(bytes).unwrap_or(0)])
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn len(folder: &tempfile::TempDir) -> Option<u64> {
        fs::metadata(folder.path().join(FILE)).ok().map(|about| about.len())
    }

    fn settle(reserve: &Reserve, free: u64, now: Instant) {
        reserve.settle(&mut reserve.turn.lock(), free, now);
    }

    #[test]
    fn the_reserve_is_taken_once_and_given_up_whole() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(folder.path());
        assert!(reserve.has_room());
        assert_eq!(len(&folder), Some(limits::DISK_RESERVE_BYTES));
        reserve.give_up();
        assert_eq!(len(&folder), None);
        assert!(reserve.has_room(), "this disk is not full, which is seen as soon as it matters");
        assert_eq!(len(&folder), None, "asking changes nothing on the disk");
        reserve.look();
        assert_eq!(len(&folder), Some(limits::DISK_RESERVE_BYTES));
    }

    /// A node that had given its reserve up stored into what was left of it after a restart.
    #[test]
    fn a_restart_does_not_forget_that_the_disk_was_full() {
        let folder = tempfile::tempdir().unwrap();
        let now = clock::instant();
        let reserve = Reserve::found(folder.path(), 5 * MIB);
        let tight = |reserve: &Reserve| reserve.tight.load(Ordering::Relaxed);
        assert!(tight(&reserve), "what was given up is not there yet");
        settle(&reserve, 5 * MIB, now);
        assert_eq!((tight(&reserve), len(&folder)), (true, None));
        settle(&reserve, 8 * MIB, now);
        assert_eq!((tight(&reserve), len(&folder)), (false, Some(limits::DISK_RESERVE_BYTES)));
        assert!(!tight(&Reserve::found(folder.path(), 5 * MIB)), "what is set aside counts");
        settle(&reserve, 5 * MIB, now);
        assert!(!tight(&reserve), "what was taken is not given up again at once");
        settle(&reserve, MIB / 2, now);
        assert_eq!((tight(&reserve), len(&folder)), (true, None));
    }

    #[test]
    fn a_reserve_that_cannot_be_taken_is_tried_again_after_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let in_the_way = folder.path().join(FILE);
        fs::create_dir(&in_the_way).unwrap();
        let reserve = Reserve::found(folder.path(), 64 * MIB);
        let now = clock::instant();
        settle(&reserve, 64 * MIB, now);
        fs::remove_dir(&in_the_way).unwrap();
        settle(&reserve, 64 * MIB, now + Duration::from_secs(2));
        assert_eq!(len(&folder), None, "not at every look");
        assert!(reserve.has_room(), "there is room all the same");
        settle(&reserve, 64 * MIB, now + Duration::from_millis(limits::DISK_RETAKE_MS));
        assert_eq!(len(&folder), Some(limits::DISK_RESERVE_BYTES));
    }

    /// Under a quota the file was written full of zeros until it was used up, every two seconds.
    #[test]
    fn where_there_is_no_room_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO] {
            fill(File::create(&path).unwrap(), MIB, Err(errno)).unwrap_err();
            assert_eq!(len(&folder), Some(0), "{errno}");
        }
        for errno in [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL] {
            fill(File::create(&path).unwrap(), MIB, Err(errno)).unwrap();
            assert_eq!(len(&folder), Some(MIB), "{errno}");
        }
    }

    #[test]
    fn what_was_set_aside_for_the_next_start_stays() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::found(folder.path(), MIB);
        reserve.close();
        assert_eq!(len(&folder), Some(limits::DISK_RESERVE_BYTES));
        settle(&reserve, MIB / 2, clock::instant());
        assert_eq!(len(&folder), Some(limits::DISK_RESERVE_BYTES), "a look that comes late");
    }
}
