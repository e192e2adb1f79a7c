//! Folding the write-ahead log into the database, and letting it begin anew.
//!
//! Keeps true: runs between groups, by the one thread that writes to the tenant; a log does not grow without end because
//! somebody always reads; nobody who reads is waited for longer than a moment. Does not do: commits (`writer`).

use super::StoreError;
use super::stats::Counters;
use super::tenant::TenantInner;
use rusqlite::Connection;
use std::time::Duration;

/// Frames (pages) of the write-ahead log that are not in the database yet, after which a checkpoint is tried.
const CHECKPOINT_FRAMES: i32 = 1_000;
/// How long a log that is to begin anew waits for reads under way, and how often: a read that begins before the log is
/// wholly in the database stands in it again.
const RESTART_WAIT: Duration = Duration::from_millis(10);
const RESTARTS_TRIED: usize = 3;
/// Frames after which the log file is worth truncating: 64 MiB.
const TRUNCATE_FRAMES: i32 = 16_384;

/// Between groups: checkpoint when the write-ahead log has grown, without waiting for readers, and let it begin anew.
///
/// It begins anew with the first write that finds it wholly in the database and no snapshot in it; a snapshot that is begun
/// when it is wholly in the database does not stand in it ("Write-Ahead Logging", sqlite.org). A reader that never rests
/// would keep its own, so all are outdated, and reads under way are waited for a moment.
///
/// `shrunk`: pages were freed at the end of the file, which is cut.
pub(super) fn maintain(inner: &TenantInner, connection: &Connection, shrunk: bool) {
    let Ok(log) = run(connection, "PRAGMA wal_checkpoint(NOOP)") else { return };
    Counters::raise(&inner.counters().wal_frames_max, u64::try_from(log.frames).unwrap_or(0));
    if !shrunk && log.frames.saturating_sub(log.copied) < CHECKPOINT_FRAMES {
        return;
    }
    Counters::add(&inner.counters().checkpoints, 1);
    inner.readers().release_stale(inner.present());
    let _ = run(connection, "PRAGMA wal_checkpoint(PASSIVE)");
    let truncate = shrunk || log.frames > TRUNCATE_FRAMES;
    let anew = if truncate { "PRAGMA wal_checkpoint(TRUNCATE)" } else { "PRAGMA wal_checkpoint(RESTART)" };
    let _ = connection.busy_timeout(RESTART_WAIT);
    for _ in 0..RESTARTS_TRIED {
        inner.outdate_snapshots();
        inner.readers().release_stale(inner.present());
        if run(connection, anew).is_ok_and(|log| !log.busy) {
            break;
        }
    }
    let _ = connection.busy_timeout(Duration::from_secs(5));
}

/// What SQLite says of the write-ahead log after a checkpoint.
struct LogState {
    /// Somebody was in the way.
    busy: bool,
    /// Frames in the log.
    frames: i32,
    /// Frames that are in the database already.
    copied: i32,
}

fn run(connection: &Connection, sql: &str) -> Result<LogState, StoreError> {
    let read = |row: &rusqlite::Row<'_>| Ok(LogState { busy: row.get(0)?, frames: row.get(1)?, copied: row.get(2)? });
    Ok(connection.prepare_cached(sql)?.query_row([], read)?)
}

/// Before a handle closes: statistics for the planner if anything was `written`, and the log folded into the file.
pub(super) fn settle_file(connection: &Connection, written: bool) {
    if written {
        let _ = connection.execute_batch("PRAGMA analysis_limit=400; PRAGMA optimize;");
    }
    let _ = run(connection, "PRAGMA wal_checkpoint(TRUNCATE)");
}
