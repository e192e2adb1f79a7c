//! Folding the write-ahead log into the database, and letting it begin anew.
//!
//! Keeps true: runs between groups, by the one thread that writes to the tenant; reads that last a few milliseconds, however
//! many, do not make the log grow without end; a read that lasts longer costs writers a moment per 16 MiB of log, not one
//! per group. Does not do: commits (`writer`).

use super::StoreError;
use super::check;
use super::connection::BUSY_TIMEOUT;
use super::stats::Counters;
use super::tenant::TenantInner;
use rusqlite::Connection;
use std::time::Duration;

/// Frames (pages) that are new in the log, after which a checkpoint is tried. A page that changed often is copied once per
/// checkpoint, so many are wanted; one block of the log's index, 4,062 frames, is searched with one look.
const CHECKPOINT_FRAMES: i32 = 4_000;
/// The same where room is scarce: the log and the pages that it holds need it twice.
const CHECKPOINT_FRAMES_SCARCE: i32 = 1_000;
/// Free bytes on the disk below which it is.
const SCARCE_BYTES: u64 = 256 * 1024 * 1024;
/// How long a log that is to begin anew waits for reads under way, and how often: a read that begins before the log is
/// wholly in the database stands in it again.
const RESTART_WAIT: Duration = Duration::from_millis(5);
const RESTARTS_TRIED: usize = 3;
/// Frames after which reads that want to begin are held up for it, and the file is cut: 64 MiB.
const TRUNCATE_FRAMES: i32 = 16_384;
/// For how long at most.
const TRUNCATE_WAIT: Duration = Duration::from_millis(250);

/// What the writer remembers about the write-ahead log of its tenant.
#[derive(Debug, Default)]
pub(super) struct LogFile {
    /// Pages were freed at the end of the database since the last checkpoint that cut it.
    pub(super) shrunk: bool,
    /// Frames in the log when a checkpoint was last tried; somebody may have been in the way.
    tried: i32,
}

/// Between groups: checkpoint when the write-ahead log has grown, and let it begin anew.
///
/// It begins anew with the first write that finds it wholly in the database and no snapshot in it; a snapshot that is begun
/// when it is wholly in the database does not stand in it ("Write-Ahead Logging", sqlite.org). A reader that never rests
/// would keep its own, so all are outdated, and reads under way are waited for a moment.
pub(super) fn maintain(inner: &TenantInner, connection: &Connection, log: &mut LogFile) {
    let Ok(now) = run(connection, "PRAGMA wal_checkpoint(NOOP)") else { return };
    Counters::raise(&inner.counters().wal_frames_max, u64::try_from(now.frames).unwrap_or(0));
    if now.frames < log.tried {
        log.tried = 0;
    }
    let new = now.frames.saturating_sub(now.copied.max(log.tried));
    let due = new >= CHECKPOINT_FRAMES || (new >= CHECKPOINT_FRAMES_SCARCE && is_scarce(inner));
    if !log.shrunk && !due {
        return;
    }
    Counters::add(&inner.counters().checkpoints, 1);
    inner.readers().release_stale(inner.present());
    let _ = run(connection, "PRAGMA wal_checkpoint(PASSIVE)");
    let begun = if log.shrunk || now.frames > TRUNCATE_FRAMES {
        let _held = inner.hold_snapshots();
        begin_anew(inner, connection, "PRAGMA wal_checkpoint(TRUNCATE)", TRUNCATE_WAIT)
    } else {
        (0..RESTARTS_TRIED).any(|_| begin_anew(inner, connection, "PRAGMA wal_checkpoint(RESTART)", RESTART_WAIT))
    };
    *log = LogFile { shrunk: false, tried: if begun { 0 } else { now.frames } };
}

fn is_scarce(inner: &TenantInner) -> bool {
    check::free_bytes(inner.path().parent().unwrap_or(inner.path())).is_ok_and(|free| free < SCARCE_BYTES)
}

/// Says whether the next write begins the log anew.
fn begin_anew(inner: &TenantInner, connection: &Connection, sql: &str, wait: Duration) -> bool {
    inner.outdate_snapshots();
    inner.readers().release_stale(inner.present());
    let _ = connection.busy_timeout(wait);
    let state = run(connection, sql);
    let _ = connection.busy_timeout(BUSY_TIMEOUT);
    state.is_ok_and(|state| !state.busy)
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
