//! The disk tier over sled: one thread owns the database, everybody else talks to it through a bounded queue.
//!
//! Keeps true: no caller ever waits longer than the read deadline, runs sled code, or sees its panics. A store that
//! fails is abandoned and replaced by an empty one; failing again and again only makes the pauses longer. A folder that
//! another process holds is left alone; where the disk is nearly full, what lies there is removed and the tier waits for
//! room. Does not do: freshness.

use super::engine::{self, Damage, Engine, EngineError};
use super::groups::{GroupOf, GroupUsage, Groups};
use super::queue::{Next, Queue};
use super::sweep::Sweep;
use super::{DiskCache, DiskRead, DiskState, DiskStats, IsDead};
use crate::kernel::clock;
use crate::kernel::limits;
use crate::store;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Reads waiting at most; more are answered as misses.
const READS_MAX: usize = 256;
/// Writes waiting at most; more are dropped.
const WRITES_MAX: usize = 2_048;
/// Late reads in a row after which reads fail at once until the thread shows a sign of life.
const LATE_MAX: u32 = 8;
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// A flush is put off while there is work, but no longer than this.
const FLUSH_LATEST: Duration = Duration::from_secs(10);
const IDLE_WAIT: Duration = Duration::from_millis(500);
/// The same while there is something to look through.
const SCAN_WAIT: Duration = Duration::from_millis(5);
/// A step of looking through is put off while there is work, but no longer than this.
const SCAN_LATEST: Duration = Duration::from_millis(100);
/// Rows of one step of looking through.
const SCAN_LEN: usize = 256;
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Time without failure after which earlier failures are forgiven.
const FORGIVE_AFTER: Duration = Duration::from_secs(120);
const CLOSE_WAIT: Duration = Duration::from_secs(5);
const NO_ROOM: &str = "the disk is nearly full";

/// How the tier is set up.
#[derive(Debug, Clone)]
pub struct SledTierOptions {
    /// The folder; made if missing, and everything in it is losable.
    pub root: PathBuf,
    /// Bytes on disk before the store is replaced by an empty one.
    pub bytes_max: u64,
    /// Page cache of sled, bytes; 8 to 16 MiB is what it needs, it takes several times that.
    pub memory_bytes: u64,
    /// How long a read may take.
    pub read_deadline: Duration,
    /// What is counted together.
    pub group_of: GroupOf,
}

struct Read {
    key: Vec<u8>,
    reply: oneshot::Sender<DiskRead>,
}

enum Write {
    Put(Vec<u8>, Bytes),
    PutSurely(Vec<u8>, Bytes, oneshot::Sender<bool>),
    Remove(Vec<u8>),
    RemoveThis(Vec<u8>, Bytes),
    Sweep(IsDead),
    Discard(String),
}

#[derive(Debug, Default)]
struct Numbers {
    hits: AtomicU64,
    misses: AtomicU64,
    timeouts: AtomicU64,
    writes: AtomicU64,
    dropped: AtomicU64,
    corrupt: AtomicU64,
    swept: AtomicU64,
    resets: AtomicU64,
    rotations: AtomicU64,
    bytes: AtomicU64,
    /// Stores opened.
    opened: AtomicU64,
    late_in_a_row: AtomicU32,
}

struct Shared {
    queue: Queue<Read, Write>,
    numbers: Numbers,
    groups: Groups,
    /// Written by the disk thread on changes, read by health checks.
    state: Mutex<DiskState>,
}

/// The handle; dropping it ends the thread.
pub struct SledTier {
    shared: Arc<Shared>,
    options: SledTierOptions,
    ended: Mutex<Option<mpsc::Receiver<()>>>,
}

impl std::fmt::Debug for SledTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledTier").field("root", &self.options.root).finish_non_exhaustive()
    }
}

impl SledTier {
    /// Starts the disk thread; opening happens there, so this returns at once and cannot fail.
    pub fn start(options: SledTierOptions) -> Self {
        let (mut tier, worker) = Self::unstarted(options);
        let (end, ended) = mpsc::channel();
        tier.ended = Mutex::new(Some(ended));
        let spawned = std::thread::Builder::new().name("tenantry-disk-cache".to_owned()).spawn(move || {
            worker.run();
            // Nobody listening means nobody waits.
            let _ = end.send(());
        });
        if let Err(error) = spawned {
            tier.shared.queue.close();
            *tier.shared.state.lock() = DiskState::Degraded(format!("no thread for the disk cache: {error}"));
        }
        tier
    }

    /// The handle and the state of its thread, which does nothing until it runs.
    fn unstarted(options: SledTierOptions) -> (Self, Worker) {
        let shared = Arc::new(Shared {
            queue: Queue::new(READS_MAX, WRITES_MAX),
            numbers: Numbers::default(),
            groups: Groups::new(options.group_of),
            state: Mutex::new(DiskState::Opening),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            options: options.clone(),
            engine: None,
            lock: None,
            failures: 0,
            failed_at: clock::instant(),
            retry_at: clock::instant(),
            dirty_since: None,
            written: 0,
            sweep: Sweep::default(),
            scanned_at: clock::instant(),
            opened_once: false,
        };
        (Self { shared, options, ended: Mutex::new(None) }, worker)
    }

    fn write(&self, write: Write) -> bool {
        // Nobody would write it, and its caller would believe that somebody did.
        if matches!(&*self.shared.state.lock(), DiskState::Degraded(_)) {
            return false;
        }
        let taken = self.shared.queue.push_write(write).is_ok();
        if !taken {
            self.shared.numbers.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }
}

impl DiskCache for SledTier {
    fn get(&self, key: Vec<u8>) -> BoxFuture<'_, DiskRead> {
        Box::pin(async move {
            let numbers = &self.shared.numbers;
            if numbers.late_in_a_row.load(Ordering::Relaxed) >= LATE_MAX {
                return DiskRead::Failed;
            }
            let (reply, answer) = oneshot::channel();
            if self.shared.queue.push_read(Read { key, reply }).is_err() {
                return DiskRead::Failed;
            }
            match tokio::time::timeout(self.options.read_deadline, answer).await {
                Ok(Ok(read)) => read,
                Ok(Err(_)) => DiskRead::Failed,
                Err(_) => {
                    numbers.timeouts.fetch_add(1, Ordering::Relaxed);
                    numbers.late_in_a_row.fetch_add(1, Ordering::Relaxed);
                    DiskRead::Failed
                }
            }
        })
    }

    fn put(&self, key: Vec<u8>, value: Bytes) -> bool {
        self.write(Write::Put(key, value))
    }

    fn put_surely(&self, key: Vec<u8>, value: Bytes) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            if !self.write(Write::PutSurely(key, value, reply)) {
                return false;
            }
            matches!(tokio::time::timeout(CLOSE_WAIT, answer).await, Ok(Ok(true)))
        })
    }

    fn remove(&self, key: Vec<u8>) {
        self.write(Write::Remove(key));
    }

    fn remove_this(&self, key: Vec<u8>, value: Bytes) {
        self.write(Write::RemoveThis(key, value));
    }

    fn sweep(&self, dead: IsDead) {
        self.write(Write::Sweep(dead));
    }

    fn discard(&self, why: &str) {
        self.shared.queue.clear_writes();
        // Also while it is ill: what comes back must not be what was there.
        let _ = self.shared.queue.push_write(Write::Discard(why.to_owned()));
    }

    fn stats(&self) -> DiskStats {
        let numbers = &self.shared.numbers;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let late = numbers.late_in_a_row.load(Ordering::Relaxed) >= LATE_MAX;
        let state = match self.shared.state.lock().clone() {
            DiskState::Ready if late => DiskState::Degraded("reads from the disk cache are late".to_owned()),
            state => state,
        };
        DiskStats {
            state,
            hits: read(&numbers.hits),
            misses: read(&numbers.misses),
            timeouts: read(&numbers.timeouts),
            writes: read(&numbers.writes),
            dropped: read(&numbers.dropped),
            corrupt: read(&numbers.corrupt),
            swept: read(&numbers.swept),
            resets: read(&numbers.resets),
            rotations: read(&numbers.rotations),
            bytes: read(&numbers.bytes),
            bytes_max: self.options.bytes_max,
        }
    }

    fn epoch(&self) -> u64 {
        self.shared.numbers.opened.load(Ordering::Acquire)
    }

    fn usage(&self, group: &[u8]) -> GroupUsage {
        self.shared.groups.usage(group)
    }

    fn await_room(&self) -> bool {
        self.shared.queue.await_room(CLOSE_WAIT)
    }

    fn close(&self) {
        self.shared.queue.close();
        if let Some(ended) = self.ended.lock().take() {
            // A thread that hangs inside sled is left behind; the process ends anyway.
            let _ = ended.recv_timeout(CLOSE_WAIT);
        }
    }
}

impl Drop for SledTier {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

/// The disk thread's own state.
struct Worker {
    shared: Arc<Shared>,
    options: SledTierOptions,
    engine: Option<Engine>,
    lock: Option<File>,
    failures: u32,
    failed_at: Instant,
    retry_at: Instant,
    dirty_since: Option<Instant>,
    /// Bytes handed to sled since the size was last looked at.
    written: u64,
    /// What is looked through for values that may go.
    sweep: Sweep,
    /// When something was last looked through.
    scanned_at: Instant,
    opened_once: bool,
}

impl Worker {
    fn run(mut self) {
        self.try_open();
        loop {
            let unseen = self.sweep.is_under_way() || self.shared.groups.unseen_after().is_some();
            let unseen = unseen && self.engine.is_some();
            match self.shared.queue.pop(if unseen { SCAN_WAIT } else { IDLE_WAIT }) {
                Next::Read(read) => self.read(read),
                Next::Write(write) => self.write(write),
                Next::Idle => {
                    self.look_through();
                    self.maintain(FLUSH_EVERY);
                }
                Next::End => break,
            }
            if unseen && self.scanned_at.elapsed() >= SCAN_LATEST {
                self.look_through();
            }
            self.maintain(FLUSH_LATEST);
            // A sign of life. Not only after reads: while reads fail at once, none would come to clear this.
            self.shared.numbers.late_in_a_row.store(0, Ordering::Relaxed);
        }
        if let Some(engine) = self.engine.take() {
            match engine.flush() {
                Ok(()) => engine.close(),
                Err(_) => engine.abandon(),
            }
        }
    }

    fn read(&mut self, read: Read) {
        if read.reply.is_closed() {
            return;
        }
        let numbers = &self.shared.numbers;
        let answer = match self.engine.as_ref().map(|engine| engine.get(&read.key)) {
            None => DiskRead::Failed,
            Some(Ok((found, damage))) => {
                let counter = if matches!(found, DiskRead::Found(_)) { &numbers.hits } else { &numbers.misses };
                counter.fetch_add(1, Ordering::Relaxed);
                if damage == Damage::Found {
                    numbers.corrupt.fetch_add(1, Ordering::Relaxed);
                    // The queue may be full; then the damage is simply met again.
                    let _ = self.shared.queue.push_write(Write::Remove(read.key));
                }
                found
            }
            Some(Err(error)) => {
                self.fail(&error);
                DiskRead::Failed
            }
        };
        // Whoever asked may have gone.
        let _ = read.reply.send(answer);
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Put(key, value) => {
                self.put(&key, &value);
            }
            Write::PutSurely(key, value, reply) => {
                let done = self.put(&key, &value) && self.flush();
                // Whoever asked may have gone.
                let _ = reply.send(done);
            }
            Write::Remove(key) => self.remove(&key),
            Write::RemoveThis(key, value) => match self.engine.as_ref().map(|engine| engine.get(&key)) {
                Some(Ok((DiskRead::Found(found), _))) if found == value => self.remove(&key),
                Some(Err(error)) => self.fail(&error),
                Some(Ok(_)) | None => {}
            },
            Write::Sweep(dead) => self.sweep.ask(dead),
            Write::Discard(why) => {
                tracing::info!(cache.reason = %why, "disk cache: starting empty");
                self.replace(|worker| worker.shared.numbers.resets.fetch_add(1, Ordering::Relaxed));
            }
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Some(engine) = &self.engine else { return false };
        match engine.put(key, value) {
            Ok(change) => {
                self.shared.groups.note(key, change);
                self.shared.numbers.writes.fetch_add(1, Ordering::Relaxed);
                self.written += value.len() as u64;
                self.dirty_since.get_or_insert_with(clock::instant);
                true
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        match self.engine.as_ref().map(|engine| engine.remove(key)) {
            Some(Ok(change)) => self.shared.groups.note(key, change),
            Some(Err(error)) => self.fail(&error),
            None => {}
        }
        self.dirty_since.get_or_insert_with(clock::instant);
    }

    /// Counts a little more of what an earlier process left, and removes a little more of what is dead.
    fn look_through(&mut self) {
        self.scanned_at = clock::instant();
        let Some(engine) = &self.engine else { return };
        let Shared { groups, numbers, .. } = &*self.shared;
        let counted = match groups.unseen_after() {
            Some(from) => {
                engine.scan(&from, SCAN_LEN, |key, bytes, _| groups.see(key, bytes)).map(|next| groups.go_on(next))
            }
            None => Ok(()),
        };
        let swept = counted.and_then(|()| {
            self.sweep.step(engine, SCAN_LEN, |key, change| {
                groups.note(key, change);
                numbers.swept.fetch_add(1, Ordering::Relaxed);
            })
        });
        match swept {
            Ok(0) => {}
            Ok(_) => _ = self.dirty_since.get_or_insert_with(clock::instant),
            Err(error) => self.fail(&error),
        }
    }

    fn flush(&mut self) -> bool {
        self.dirty_since = None;
        match self.engine.as_ref().map(Engine::flush) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                self.fail(&error);
                false
            }
            None => false,
        }
    }

    /// Retries, flushes what is older than `age`, and watches the size.
    fn maintain(&mut self, age: Duration) {
        if self.engine.is_none() {
            if clock::instant() >= self.retry_at {
                self.try_open();
            }
            return;
        }
        if self.dirty_since.is_some_and(|since| since.elapsed() >= age) {
            self.flush();
            self.look_at_size();
        } else if self.written > self.options.bytes_max / 8 {
            self.look_at_size();
        } else if age == FLUSH_EVERY && !self.options.root.exists() {
            self.fail(&EngineError::Vanished);
        }
        if self.failures > 0 && self.failed_at.elapsed() > FORGIVE_AFTER {
            self.failures = 0;
        }
    }

    fn look_at_size(&mut self) {
        self.written = 0;
        if !self.has_room() {
            return self.give_way();
        }
        match self.engine.as_ref().map(Engine::size) {
            Some(Ok(bytes)) => {
                self.shared.numbers.bytes.store(bytes, Ordering::Relaxed);
                if bytes > self.options.bytes_max {
                    tracing::info!(cache.bytes = bytes, "disk cache: over its budget, starting empty");
                    self.replace(|worker| worker.shared.numbers.rotations.fetch_add(1, Ordering::Relaxed));
                }
            }
            Some(Err(error)) => self.fail(&error),
            None => {}
        }
    }

    fn has_room(&self) -> bool {
        // A folder that cannot be asked is no reason; it is met when it is opened.
        store::free_bytes(&self.options.root).map_or(true, |free| free >= limits::CACHE_ROOM_BYTES_MIN)
    }

    /// What lies here can be made again, and what the others store cannot.
    fn give_way(&mut self) {
        tracing::warn!("disk cache: {NO_ROOM}, answers go on without it");
        self.shared.numbers.resets.fetch_add(1, Ordering::Relaxed);
        self.shared.queue.clear_writes();
        self.dirty_since = None;
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
        engine::clear(&self.options.root);
        self.pause(NO_ROOM.to_owned());
    }

    fn replace(&mut self, count: impl FnOnce(&Self) -> u64) {
        count(self);
        self.dirty_since = None;
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
        self.opened_once = true;
        self.try_open();
    }

    fn fail(&mut self, error: &EngineError) {
        tracing::warn!(error = %error, "disk cache: failed, answers go on without it");
        self.shared.numbers.resets.fetch_add(1, Ordering::Relaxed);
        self.shared.queue.clear_writes();
        self.dirty_since = None;
        if let Some(engine) = self.engine.take() {
            engine.abandon();
        }
        self.pause(error.to_string());
    }

    fn pause(&mut self, why: String) {
        self.failed_at = clock::instant();
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures += 1;
        self.retry_at = clock::instant() + pause;
        self.opened_once = true;
        *self.shared.state.lock() = DiskState::Degraded(why);
    }

    fn try_open(&mut self) {
        if let Err(why) = self.take_lock() {
            self.pause(why);
            // Not a failure of what is stored there.
            self.opened_once = false;
            return;
        }
        if !self.has_room() {
            engine::clear(&self.options.root);
            if !self.has_room() {
                return self.pause(NO_ROOM.to_owned());
            }
        }
        let (root, memory) = (&self.options.root, self.options.memory_bytes);
        // What exists is tried once; after a failure nothing of it is trusted again.
        let opened = if self.opened_once {
            Engine::open_fresh(root, memory)
        } else {
            Engine::open(root, memory).or_else(|error| {
                if matches!(error, EngineError::InUse) {
                    return Err(error);
                }
                tracing::warn!(error = %error, "disk cache: could not be opened, starting empty");
                self.shared.numbers.resets.fetch_add(1, Ordering::Relaxed);
                Engine::open_fresh(root, memory)
            })
        };
        match opened {
            Ok(engine) => {
                self.engine = Some(engine);
                self.shared.groups.restart();
                self.shared.numbers.opened.fetch_add(1, Ordering::Release);
                *self.shared.state.lock() = DiskState::Ready;
            }
            Err(error) => {
                tracing::warn!(error = %error, "disk cache: not available");
                let in_use = matches!(error, EngineError::InUse);
                self.pause(error.to_string());
                // Not a failure of what is stored there.
                self.opened_once &= !in_use;
            }
        }
    }

    /// Holds `<root>/lock`, so that a second process leaves the folder alone. A vanished file is made and locked anew.
    fn take_lock(&mut self) -> Result<(), String> {
        let path = self.options.root.join("lock");
        if self.lock.is_some() && path.exists() {
            return Ok(());
        }
        self.lock = None;
        std::fs::create_dir_all(&self.options.root).map_err(|error| format!("no cache folder: {error}"))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| format!("no lock file: {error}"))?;
        file.try_lock().map_err(|_| "another process uses the cache folder".to_owned())?;
        self.lock = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
