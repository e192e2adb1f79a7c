//! Upkeep of one tenant's file: cutting the log, dropping old receipts.
//!
//! Keeps true: a file that needs nothing is read and not written; long cuts go in bounded steps, so that writers wait for
//! one step at most. Does not do: deciding when; `app` does.

use super::StoreError;
use super::options::WriteMeta;
use super::readers::Reader;
use super::tenant::TenantDb;
use crate::kernel::limits;
use rusqlite::OptionalExtension;

impl TenantDb {
    /// Cuts log records stamped before `before_ms`, and the oldest until the rest is at most `bytes_max`.
    ///
    /// `floor` of each origin remembers where its log begins. The newest record stays. Returns how many went.
    pub async fn truncate_log(&self, before_ms: i64, bytes_max: u64) -> Result<u64, StoreError> {
        let file_bytes = self.file_bytes();
        let mut cut = 0;
        while self.read(move |reader| reader.log_outgrew(before_ms, bytes_max, file_bytes)).await? {
            let meta = WriteMeta::system("log truncation");
            let step = self.write(meta, move |tx| tx.truncate_log(before_ms, bytes_max)).await?.value;
            cut += step;
            if step < limits::LOG_CUT_LEN_MAX {
                break;
            }
        }
        Ok(cut)
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
    /// Whether the oldest record is too old, or the bodies are too large. A small file is not measured.
    fn log_outgrew(&self, before_ms: i64, bytes_max: u64, file_bytes: u64) -> Result<bool, StoreError> {
        self.as_system(|connection| {
            let oldest: Option<i64> = connection
                .prepare_cached("SELECT hlc FROM _tn_tx ORDER BY lsn LIMIT 1")?
                .query_row([], |row| row.get(0))
                .optional()?;
            let old = oldest.is_some_and(|hlc| hlc < before_ms.max(0).saturating_mul(1 << 16));
            if old || file_bytes <= bytes_max {
                return Ok(old);
            }
            let bytes: i64 = connection
                .prepare_cached("SELECT coalesce(sum(length(body)), 0) FROM _tn_tx")?
                .query_row([], |row| row.get(0))?;
            Ok(u64::try_from(bytes).unwrap_or(0) > bytes_max)
        })
    }

    fn has_receipts_before(&self, before_ms: i64) -> Result<bool, StoreError> {
        self.as_system(|connection| {
            Ok(connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM _tn_receipt WHERE created_ms < ?1)")?
                .query_row([before_ms], |row| row.get(0))?)
        })
    }
}
