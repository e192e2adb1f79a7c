//! What the disk and SQLite give without any of our code: flushes per second, and one commit per request.
//!
//! Keeps true: both flush for real (`fdatasync`, `synchronous=FULL`). Does not do: undoing a disk that lies about it.

use super::rng::Rng;
use super::tournament::PRAGMAS;
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tenantry::kernel::clock;

/// Blocks of the file that [`flushes_per_second`] writes over and over.
const BLOCKS: u64 = 1_024;

/// Writes of 4 KiB into space the file already has, each followed by `fdatasync`, per second.
///
/// Appending would also flush the file's new length, which the write-ahead log mostly need not; this is the kinder figure.
pub(crate) fn flushes_per_second(dir: &Path, window: Duration) -> anyhow::Result<f64> {
    let mut file = File::create(dir.join("flushes"))?;
    let block = [7_u8; 4096];
    for _ in 0..BLOCKS {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let (began, mut flushes) = (clock::instant(), 0_u64);
    while began.elapsed() < window {
        file.seek(SeekFrom::Start(flushes % BLOCKS * block.len() as u64))?;
        file.write_all(&block)?;
        file.sync_data()?;
        flushes += 1;
    }
    Ok(flushes as f64 / began.elapsed().as_secs_f64())
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS players (_r INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tournament TEXT NOT NULL,
  user TEXT NOT NULL, display_name TEXT NOT NULL, status TEXT NOT NULL, chips REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS players_tournament_status ON players(tournament, status);
CREATE INDEX IF NOT EXISTS players_tournament_chips ON players(tournament, chips);
CREATE INDEX IF NOT EXISTS players_tournament_user ON players(tournament, user);
";

/// Creates per second when every request commits alone, with `clients` threads taking turns on one connection.
///
/// Taking turns is kinder than a connection each, which would wait for each other inside SQLite.
pub(crate) fn single_commits_per_second(dir: &Path, clients: usize, window: Duration) -> anyhow::Result<f64> {
    let connection = Connection::open(dir.join("single.db"))?;
    connection.execute_batch(PRAGMAS)?;
    connection.execute_batch(SCHEMA)?;
    let (shared, done, began) = (Mutex::new(connection), AtomicU64::new(0), clock::instant());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|client| {
                let (shared, done) = (&shared, &done);
                scope.spawn(move || -> rusqlite::Result<()> {
                    let mut rng = Rng::new(began.elapsed().subsec_nanos() as u64 ^ ((client as u64) << 40));
                    while began.elapsed() < window {
                        insert_alone(&shared.lock(), &mut rng)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Err(rusqlite::Error::InvalidQuery)))
    })?;
    Ok(done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

fn insert_alone(connection: &Connection, rng: &mut Rng) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached("INSERT INTO players VALUES (NULL, ?, ?, ?, ?, ?, ?)")?;
    let chips = rng.below(50_000) as f64;
    insert.execute(params![rng.record_id(), rng.record_id(), "", "Player Number 1", "registered", chips]).map(|_| ())
}
