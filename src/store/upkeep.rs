//! Upkeep of one tenant's file: cutting the log, dropping old receipts, giving free pages back to the disk.
//!
//! Keeps true: a file that needs nothing is read and not written; what is long is looked for by readers and done in bounded
//! steps, so that writers wait for one step at most. Does not do: deciding when; `app` does.

use super::StoreError;
use super::changelog::{self, SizeWalk};
use super::options::WriteMeta;
use super::readers::Reader;
use super::tenant::TenantDb;
use crate::kernel::limits;

impl TenantDb {
    /// Cuts log records stamped before `before_ms`, and the oldest until the rest is at most `bytes_max`.
    ///
    /// `floor` of each origin remembers where its log begins. The newest record stays. Returns how many went.
    pub async fn truncate_log(&self, before_ms: i64, bytes_max: u64) -> Result<u64, StoreError> {
        let by_size = if self.file_bytes() > bytes_max { self.log_within(bytes_max).await? } else { 0 };
        let mut cut = 0;
        while let Some(keep_from) = self.read(move |reader| reader.next_cut(before_ms, by_size)).await? {
            let step = self.write(WriteMeta::system("log truncation"), move |tx| tx.cut_log(keep_from)).await?.value;
            if step == 0 {
                break;
            }
            cut += step;
        }
        Ok(cut)
    }

    /// The position from which the log is at most `bytes_max` long; 0 if all of it is. Looks from the newest record back,
    /// a bounded part at a time.
    async fn log_within(&self, bytes_max: u64) -> Result<i64, StoreError> {
        let mut walk = SizeWalk { before: i64::MAX, bytes: 0 };
        loop {
            let (next, found) = self.read(move |reader| reader.walk_log_back(walk, bytes_max)).await?;
            if let Some(keep_from) = found {
                return Ok(keep_from);
            }
            walk = next;
        }
    }

    /// Gives free pages back to the disk, but for some that the next writes use; returns how many went.
    ///
    /// A file that was not made for it (`auto_vacuum`) keeps its size.
    pub async fn shrink(&self) -> Result<u64, StoreError> {
        let free = self.read(|reader| reader.free_pages()).await?;
        let mut left = free.saturating_sub(limits::FREE_PAGES_KEPT);
        let mut gone = 0;
        for _ in 0..limits::SHRINK_STEPS_MAX {
            let pages = left.min(limits::SHRINK_STEP_PAGES);
            if pages == 0 {
                break;
            }
            // Nothing is read in between: a snapshot that begins after the step would keep the file as long as it is.
            let step = self.write(WriteMeta::system("shrinking"), move |tx| tx.shrink(pages)).await?.value;
            if step == 0 {
                break;
            }
            (gone, left) = (gone + step, left.saturating_sub(step));
        }
        Ok(gone)
    }

    /// Drops receipts saved before `before_ms`; returns how many.
    pub async fn prune_receipts(&self, before_ms: i64) -> Result<u64, StoreError> {
        if !self.read(move |reader| reader.has_receipts_before(before_ms)).await? {
            return Ok(0);
        }
        Ok(self.write(WriteMeta::system("receipts"), move |tx| tx.prune_receipts(before_ms)).await?.value)
    }
}

impl Reader<'_> {
    /// Pages of the file that hold nothing.
    pub(super) fn free_pages(&self) -> Result<u64, StoreError> {
        self.as_system(|connection| {
            let free: i64 = connection.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
            Ok(u64::try_from(free).unwrap_or(0))
        })
    }

    fn next_cut(&self, before_ms: i64, by_size: i64) -> Result<Option<i64>, StoreError> {
        self.as_system(|connection| changelog::next_cut(connection, before_ms, by_size))
    }

    fn walk_log_back(&self, walk: SizeWalk, bytes_max: u64) -> Result<(SizeWalk, Option<i64>), StoreError> {
        self.as_system(|connection| changelog::walk_back(connection, walk, bytes_max))
    }

    fn has_receipts_before(&self, before_ms: i64) -> Result<bool, StoreError> {
        self.as_system(|connection| {
            Ok(connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM _tn_receipt WHERE created_ms < ?1)")?
                .query_row([before_ms], |row| row.get(0))?)
        })
    }
}
