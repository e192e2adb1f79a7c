//! One sled database in one generation directory: chunked values, nothing trusted.
//!
//! Keeps true: no value above 4 KiB reaches sled (larger ones leak disk in 0.34); every call into sled runs under
//! `catch_unwind`, and after any error or panic the engine is not used again but left to [`Engine::abandon`].
//! Does not do: threads, deadlines, deciding when to start over.

use super::DiskRead;
use crate::kernel::limits;
use bytes::Bytes;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest value handed to sled, bytes (DEPENDENCIES 2: above this, space is never given back).
const CHUNK_BYTES: usize = 4_096;
/// Head of the first chunk: version, reserved, chunk count, total length, checksum.
const HEAD_BYTES: usize = 20;
const CHUNK_VERSION: u8 = 1;
/// Chunks of one value at most.
const CHUNKS_MAX: usize = 512;
/// Largest value, bytes.
pub(super) const VALUE_BYTES_MAX: usize = CHUNKS_MAX * CHUNK_BYTES - HEAD_BYTES;
/// First part of every generation directory's name; changes with the layout.
const PREFIX: &str = "v1-";
const DOOMED: &str = "doomed-";

/// Why the engine cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("the store panicked: {0}")]
    Panicked(String),
    #[error("the store failed: {0}")]
    Sled(#[from] sled::Error),
    #[error("the cache folder failed: {0}")]
    Io(#[from] io::Error),
    #[error("the cache folder vanished")]
    Vanished,
    #[error("another process uses the cache folder")]
    InUse,
}

/// An open generation.
#[derive(Debug)]
pub(super) struct Engine {
    db: sled::Db,
    directory: PathBuf,
}

impl Engine {
    /// Opens the newest generation under `root`, or a first one; older ones and remains are deleted.
    pub(super) fn open(root: &Path, memory_bytes: u64) -> Result<Self, EngineError> {
        fs::create_dir_all(root)?;
        let newest = generations(root)?.into_iter().max();
        let directory = root.join(format!("{PREFIX}{:010}", newest.unwrap_or(1)));
        if !is_let_go(&directory)? {
            return Err(EngineError::InUse);
        }
        let db = guarded(|| sled_config(&directory, memory_bytes).open())??;
        let engine = Self { db, directory };
        engine.delete_others(root);
        Ok(engine)
    }

    /// Gives every generation up and opens an empty one.
    pub(super) fn open_fresh(root: &Path, memory_bytes: u64) -> Result<Self, EngineError> {
        fs::create_dir_all(root)?;
        let known = generations(root)?;
        let next = known.iter().copied().max().unwrap_or(0) + 1;
        for generation in known {
            let old = root.join(format!("{PREFIX}{generation:010}"));
            // Renamed first: a crash while deleting must not leave half a database under a live name.
            fs::rename(&old, root.join(format!("{DOOMED}{generation:010}-{next}")))?;
        }
        let directory = root.join(format!("{PREFIX}{next:010}"));
        let db = guarded(|| sled_config(&directory, memory_bytes).open())??;
        let engine = Self { db, directory };
        engine.delete_others(root);
        Ok(engine)
    }

    /// Reads a value; whether damage was met is told beside it.
    pub(super) fn get(&self, key: &[u8]) -> Result<(DiskRead, Damage), EngineError> {
        let Some(first) = guarded(|| self.db.get(chunk_key(key, 0)))?? else {
            return Ok((DiskRead::Absent, Damage::None));
        };
        let Some(head) = Head::parse(&first) else { return Ok((DiskRead::Absent, Damage::Found)) };
        let mut value = Vec::with_capacity(head.total);
        value.extend_from_slice(first.get(HEAD_BYTES..).unwrap_or_default());
        for number in 1..head.chunks {
            match guarded(|| self.db.get(chunk_key(key, number)))?? {
                Some(chunk) => value.extend_from_slice(&chunk),
                None => return Ok((DiskRead::Absent, Damage::Found)),
            }
        }
        if value.len() != head.total || crc32c::crc32c(&value) != head.checksum {
            return Ok((DiskRead::Absent, Damage::Found));
        }
        Ok((DiskRead::Found(Bytes::from(value)), Damage::None))
    }

    /// Writes a value in chunks, the head last, so that a half-written one is never taken for whole.
    pub(super) fn put(&self, key: &[u8], value: &[u8]) -> Result<Change, EngineError> {
        if value.len() > VALUE_BYTES_MAX {
            return Ok(Change::default());
        }
        let (first, rest) = value.split_at(value.len().min(CHUNK_BYTES - HEAD_BYTES));
        let chunks = 1 + rest.chunks(CHUNK_BYTES).count();
        let old = guarded(|| self.db.get(chunk_key(key, 0)))??;
        let before = old.as_deref().map_or(0, chunks_of);
        for (number, chunk) in (1_u16..).zip(rest.chunks(CHUNK_BYTES)) {
            guarded(|| self.db.insert(chunk_key(key, number), chunk))??;
        }
        let chunks = u16::try_from(chunks).unwrap_or(u16::MAX);
        let head = Head { chunks, total: value.len(), checksum: crc32c::crc32c(value) };
        guarded(|| self.db.insert(chunk_key(key, 0), head.write(first)))??;
        for number in chunks..before {
            guarded(|| self.db.remove(chunk_key(key, number)))??;
        }
        Ok(Change { before: old.as_deref().map(bytes_of), after: Some(value.len() as u64) })
    }

    /// Forgets a value.
    pub(super) fn remove(&self, key: &[u8]) -> Result<Change, EngineError> {
        let Some(old) = guarded(|| self.db.remove(chunk_key(key, 0)))?? else { return Ok(Change::default()) };
        for number in 1..chunks_of(&old) {
            guarded(|| self.db.remove(chunk_key(key, number)))??;
        }
        Ok(Change { before: Some(bytes_of(&old)), after: None })
    }

    /// Shows `look` the next values from the key `from` on with their lengths and beginnings, at most `rows_max`. Only the
    /// first chunk of each is read: no key is the beginning of another one, so nothing but its chunks lies before the key
    /// after the last of them. Returns the first key that was not looked at; `None` at the end.
    pub(super) fn scan(
        &self,
        from: &[u8],
        rows_max: usize,
        mut look: impl FnMut(&[u8], u64, &[u8]),
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let mut rows = self.db.range(from.to_vec()..);
        let mut read = 0;
        while let Some(row) = guarded(|| rows.next())? {
            let (raw, row) = row?;
            read += 1;
            let Some((key, &[0, 0])) = raw.split_last_chunk::<2>() else { continue };
            if read > rows_max {
                return Ok(Some(key.to_vec()));
            }
            look(key, bytes_of(&row), row.get(HEAD_BYTES..).unwrap_or_default());
            let chunks = chunks_of(&row);
            if chunks > 1 {
                rows = guarded(|| self.db.range(chunk_key(key, chunks)..))?;
            }
        }
        Ok(None)
    }

    /// Makes writes durable and checks that the folder is still there.
    pub(super) fn flush(&self) -> Result<(), EngineError> {
        if !self.directory.exists() {
            return Err(EngineError::Vanished);
        }
        guarded(|| self.db.flush())??;
        Ok(())
    }

    /// Bytes on disk.
    pub(super) fn size(&self) -> Result<u64, EngineError> {
        Ok(guarded(|| self.db.size_on_disk())??)
    }

    /// Lets go of a database that failed. Dropping one can hang or panic on broken files (sled issue 1211), so it is
    /// leaked: a few megabytes, a handful of times at most, because the breaker counts.
    pub(super) fn abandon(self) {
        std::mem::forget(self.db);
    }

    /// Closes a healthy database.
    pub(super) fn close(self) {
        let Self { db, .. } = self;
        let _ = catch_unwind(AssertUnwindSafe(move || drop(db)));
    }

    fn delete_others(&self, root: &Path) {
        delete_generations(root, |path| path != self.directory);
    }
}

/// Whether nobody has the database in `directory` open any more. The threads of sled's own hold its file for a moment after
/// it was dropped, and sled tells of that lock as it tells of damage.
fn is_let_go(directory: &Path) -> Result<bool, EngineError> {
    let file = match fs::File::open(directory.join("db")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    for _ in 0..limits::CACHE_LET_GO_LOOKS {
        if file.try_lock().is_ok() {
            file.unlock()?;
            return Ok(true);
        }
        #[expect(clippy::disallowed_methods, reason = "a lock of another thread's says nothing when it is let go")]
        std::thread::sleep(Duration::from_millis(limits::CACHE_LET_GO_PAUSE_MS));
    }
    Ok(false)
}

/// Deletes every generation under `root`; none may be open.
pub(super) fn clear(root: &Path) {
    delete_generations(root, |_| true);
}

fn delete_generations(root: &Path, wanted: impl Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        if is_generation(&entry.file_name().to_string_lossy()) && wanted(&entry.path()) {
            // What cannot be deleted now is deleted at the next start.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a folder is a generation of any layout version, or one on its way out; nothing else is ever deleted.
fn is_generation(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.starts_with(DOOMED)
        || name
            .strip_prefix('v')
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(version, number)| digits(version) && number.len() == 10 && digits(number))
}

/// Bytes of the value under a key, before and after it was touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) before: Option<u64>,
    pub(super) after: Option<u64>,
}

fn chunks_of(first: &[u8]) -> u16 {
    Head::parse(first).map_or(1, |head| head.chunks)
}

fn bytes_of(first: &[u8]) -> u64 {
    Head::parse(first).map_or(first.len(), |head| head.total) as u64
}

/// Whether a read met damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    None,
    Found,
}

fn sled_config(directory: &Path, memory_bytes: u64) -> sled::Config {
    // No flusher of sled's own: the disk thread flushes when it has time.
    sled::Config::new().path(directory).cache_capacity(memory_bytes).flush_every_ms(None)
}

fn generations(root: &Path) -> io::Result<Vec<u64>> {
    let names = fs::read_dir(root)?.flatten().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.to_str()?.strip_prefix(PREFIX)?.parse().ok()).collect())
}

/// Runs `call`, turning a panic inside into an error.
fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        EngineError::Panicked(text.unwrap_or("no message").chars().take(200).collect())
    })
}

fn chunk_key(key: &[u8], number: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 2);
    out.extend_from_slice(key);
    out.extend_from_slice(&number.to_be_bytes());
    out
}

struct Head {
    chunks: u16,
    total: usize,
    checksum: u32,
}

impl Head {
    fn write(&self, first: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + first.len());
        out.extend_from_slice(&[CHUNK_VERSION, 0]);
        out.extend_from_slice(&self.chunks.to_le_bytes());
        out.extend_from_slice(&(self.total as u64).to_le_bytes());
        out.extend_from_slice(&self.checksum.to_le_bytes());
        // The head protects itself: a flipped length must not make the reader allocate or loop.
        let own = crc32c::crc32c(&out);
        out.extend_from_slice(&own.to_le_bytes());
        out.extend_from_slice(first);
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (covered, rest) = bytes.split_at_checked(HEAD_BYTES - 4)?;
        let own = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
        if crc32c::crc32c(covered) != own || *covered.first()? != CHUNK_VERSION {
            return None;
        }
        let chunks = u16::from_le_bytes(covered.get(2..4)?.try_into().ok()?);
        let total = usize::try_from(u64::from_le_bytes(covered.get(4..12)?.try_into().ok()?)).ok()?;
        let checksum = u32::from_le_bytes(covered.get(12..16)?.try_into().ok()?);
        (total <= VALUE_BYTES_MAX && chunks >= 1).then_some(Self { chunks, total, checksum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(root: &Path) -> Engine {
        Engine::open(root, 1 << 20).unwrap()
    }

    fn read(engine: &Engine, key: &[u8]) -> DiskRead {
        engine.get(key).unwrap().0
    }

    #[test]
    fn values_of_every_size_come_back_and_shrink_without_remains() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        for len in [0, 1, CHUNK_BYTES - HEAD_BYTES, CHUNK_BYTES, 3 * CHUNK_BYTES, 60_000, 10] {
            let value: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            engine.put(b"k", &value).unwrap();
            assert_eq!(read(&engine, b"k"), DiskRead::Found(Bytes::from(value)), "{len}");
        }
        assert_eq!(engine.db.len(), 1, "the chunks of longer predecessors are gone");
        assert!(engine.db.iter().all(|row| row.unwrap().1.len() <= CHUNK_BYTES));
        engine.remove(b"k").unwrap();
        assert_eq!(read(&engine, b"k"), DiskRead::Absent);
    }

    #[test]
    fn looking_through_reads_the_beginnings_alone() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        let sizes = [("a", 60_000_usize), ("b", 1), ("c", 3 * CHUNK_BYTES), ("d", 40_000)];
        for (key, len) in sizes {
            engine.put(key.as_bytes(), &vec![b'x'; len]).unwrap();
        }
        let pass = |from: &[u8], rows_max| {
            let mut seen = Vec::new();
            let next = engine.scan(from, rows_max, |key, len, _| {
                seen.push((String::from_utf8(key.to_vec()).unwrap(), usize::try_from(len).unwrap()));
            });
            (seen, next.unwrap())
        };
        let shown = sizes.map(|(key, len)| (key.to_owned(), len));
        assert_eq!(pass(b"", 2), (shown[..2].to_vec(), Some(b"c".to_vec())));
        assert_eq!(pass(b"c", 2), (shown[2..].to_vec(), None));
        assert_eq!(pass(b"", 4), (shown.to_vec(), None));
        // What lies there without a beginning is passed over.
        engine.db.remove(chunk_key(b"c", 0)).unwrap();
        assert_eq!(pass(b"", 100).0, [&shown[..2], &shown[3..]].concat());
    }

    #[test]
    fn missing_and_foreign_chunks_are_misses() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        engine.put(b"k", &[7; 20_000]).unwrap();
        engine.db.insert(chunk_key(b"k", 2), vec![8; CHUNK_BYTES]).unwrap();
        assert_eq!(engine.get(b"k").unwrap(), (DiskRead::Absent, Damage::Found));
        engine.put(b"k", &[7; 20_000]).unwrap();
        engine.db.remove(chunk_key(b"k", 3)).unwrap();
        assert_eq!(engine.get(b"k").unwrap(), (DiskRead::Absent, Damage::Found));
        engine.db.insert(chunk_key(b"k", 0), b"noise".to_vec()).unwrap();
        assert_eq!(engine.get(b"k").unwrap(), (DiskRead::Absent, Damage::Found));
    }

    #[test]
    fn a_fresh_generation_leaves_nothing_of_the_old() {
        let root = tempfile::tempdir().unwrap();
        let first = engine(root.path());
        first.put(b"k", b"old").unwrap();
        first.flush().unwrap();
        first.close();
        let reopened = engine(root.path());
        assert_eq!(read(&reopened, b"k"), DiskRead::Found(Bytes::from_static(b"old")));
        reopened.close();
        let fresh = Engine::open_fresh(root.path(), 1 << 20).unwrap();
        assert_eq!(read(&fresh, b"k"), DiskRead::Absent);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
