//! Handles: [`TenantDb`] is the only door to a tenant's file.
//!
//! Keeps true: a read sees what was acknowledged before it; reads of one tenant take no more threads than it has read
//! connections, whoever waits for one waits without a thread. Does not do: which handles are open (`table`), which
//! tenants exist (the registry in the control database), names, rights.

use super::changelog::{LogHead, LoggedTx};
use super::check;
use super::checkpoint::{self, LogFile};
use super::counts::RecordCounts;
use super::files::FileRemover;
use super::ills::{self, Ills};
use super::migrate;
use super::options::{ReadMeter, StoreOptions, WriteMeta, Written};
use super::read_queue::ReadQueue;
use super::readers::{self, Allowance, ReadPool, Reader};
use super::stats::{Counters, TenantStats};
use super::writer::{self, WriteQueue, WriteState};
use super::writer_pool::WriterPool;
use super::writetx::WriteTx;
use super::{StoreError, connection};
use crate::kernel::clock;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::schema::Schema;
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use scheduled_thread_pool::ScheduledThreadPool;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use tokio::sync::OwnedSemaphorePermit;

/// One open tenant; clones share it.
#[derive(Clone)]
pub struct TenantDb(Arc<TenantInner>);

/// What the parts of the store share about one open tenant.
pub(super) struct TenantInner {
    id: TenantId,
    path: PathBuf,
    schema: ArcSwap<Schema>,
    position: AtomicI64,
    /// By which a reader knows whether its open snapshot is still the present.
    present: AtomicU64,
    /// Held while snapshots must not begin; see [`TenantInner::hold_snapshots`].
    beginning: RwLock<()>,
    counts: RecordCounts,
    readers: ReadPool,
    reads: ReadQueue,
    queue: Mutex<WriteQueue>,
    write: Mutex<Option<WriteState>>,
    last_used_ms: AtomicI64,
    meter: Option<Arc<dyn ReadMeter>>,
    /// When the file was last looked at after a panic.
    looked_at_ms: AtomicI64,
    /// Whether its owner has looked whether it comes from an earlier version.
    brought_up: AtomicBool,
    shared: Arc<Shared>,
    /// Given back when the handle is closed.
    _place: OwnedSemaphorePermit,
}

/// What all tenants share.
pub(super) struct Shared {
    pub(super) options: Arc<StoreOptions>,
    pub(super) counters: Counters,
    pub(super) remover: FileRemover,
    pub(super) ills: Ills,
    pub(super) writers: Arc<WriterPool>,
    pub(super) openers: Arc<ScheduledThreadPool>,
}

impl std::fmt::Debug for TenantDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantDb").field("id", self.id()).field("position", &self.position()).finish_non_exhaustive()
    }
}

impl TenantInner {
    /// Opens the file, brings it up to date and reads what the writer must know.
    pub(super) fn open(
        shared: &Arc<Shared>,
        id: &TenantId,
        path: PathBuf,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, StoreError> {
        if !ills::is_there(&path)? {
            return Err(StoreError::TenantMissing(id.clone()));
        }
        let options = &shared.options;
        let (connection, budget) = connection::open_writer(&path, options)?;
        migrate::migrate(&connection)?;
        let oid = migrate::ensure_lineage(&connection, options.node, &*options.random)?;
        let log = LogHead::load(&connection, oid)?;
        let schema = readers::load_schema(&connection)?;
        Counters::add(&shared.counters.opens, 1);
        Ok(Self {
            id: id.clone(),
            counts: RecordCounts::default(),
            readers: ReadPool::new(&path, options, &shared.openers),
            reads: ReadQueue::new(options),
            path,
            schema: ArcSwap::from_pointee(schema),
            position: AtomicI64::new(log.lsn),
            present: AtomicU64::new(0),
            beginning: RwLock::new(()),
            queue: Mutex::default(),
            write: Mutex::new(Some(WriteState { connection, budget, log, turns: 0, log_file: LogFile::default() })),
            last_used_ms: AtomicI64::new(options.clock.now_ms()),
            meter: shared.options.meters.as_ref().map(|meters| meters.meter(id)),
            looked_at_ms: AtomicI64::new(i64::MIN),
            brought_up: AtomicBool::new(false),
            shared: Arc::clone(shared),
            _place: place,
        })
    }

    pub(super) fn meter(&self) -> Option<&dyn ReadMeter> {
        self.meter.as_deref()
    }

    pub(super) fn id(&self) -> &TenantId {
        &self.id
    }

    /// How many records collections have.
    pub(super) fn counts(&self) -> &RecordCounts {
        &self.counts
    }

    /// The database file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn ills(&self) -> &Ills {
        &self.shared.ills
    }

    pub(super) fn remover(&self) -> &FileRemover {
        &self.shared.remover
    }

    pub(super) fn schema(&self) -> Arc<Schema> {
        self.schema.load_full()
    }

    pub(super) fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// Makes a commit visible: schema first, so that whoever sees the position has the schema too.
    pub(super) fn publish(&self, schema: Arc<Schema>, position: i64) {
        self.schema.store(schema);
        self.position.store(position, Ordering::Release);
        self.outdate_snapshots();
    }

    /// No read that begins from now on uses a snapshot that is open already.
    pub(super) fn outdate_snapshots(&self) {
        self.present.fetch_add(1, Ordering::AcqRel);
    }

    /// While a snapshot is being begun; waits where they are held.
    pub(super) fn beginning(&self) -> RwLockReadGuard<'_, ()> {
        self.beginning.read()
    }

    /// No snapshot begins until the guard is dropped; one that is being begun is waited for.
    pub(super) fn hold_snapshots(&self) -> RwLockWriteGuard<'_, ()> {
        self.beginning.write()
    }

    /// Counts how often snapshots were outdated: by every COMMIT published through this handle, and by a log to begin anew.
    pub(super) fn present(&self) -> u64 {
        self.present.load(Ordering::Acquire)
    }

    pub(super) fn options(&self) -> &StoreOptions {
        &self.shared.options
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub(super) fn writers(&self) -> &WriterPool {
        &self.shared.writers
    }

    pub(super) fn queue(&self) -> &Mutex<WriteQueue> {
        &self.queue
    }

    pub(super) fn write_state(&self) -> &Mutex<Option<WriteState>> {
        &self.write
    }

    pub(super) fn readers(&self) -> &ReadPool {
        &self.readers
    }

    /// Somebody's code panicked over this file: has it checked, aside and not over and over.
    pub(super) fn note_panic(&self) {
        let now_ms = self.options().clock.now_ms();
        let last_ms = self.looked_at_ms.load(Ordering::Relaxed);
        let due = last_ms == i64::MIN || now_ms.saturating_sub(last_ms) >= limits::PANIC_CHECK_EVERY_MS;
        let mine = || self.looked_at_ms.compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if due && mine() {
            let (shared, id) = (Arc::clone(&self.shared), self.id.clone());
            let look = move || check::look_after_panic(&shared, &id);
            if let Err(error) = std::thread::Builder::new().name("tn-check".into()).spawn(look) {
                tracing::warn!(tenant.id = %self.id, %error, "the tenant cannot be checked after a panic");
            }
        }
    }

    /// Folds the log into the file and lets go of it; readers first, so that the last connection is the writer's.
    pub(super) fn close(self) {
        let Self { readers, write, shared, _place, .. } = self;
        drop(readers);
        if let Some(state) = write.into_inner() {
            checkpoint::settle_file(&state.connection, state.turns > 0);
        }
        Counters::add(&shared.counters.closes, 1);
    }
}

impl TenantDb {
    /// The tenant.
    pub fn id(&self) -> &TenantId {
        &self.0.id
    }

    /// The collections as last committed.
    pub fn schema(&self) -> Arc<Schema> {
        self.0.schema()
    }

    /// Log position of the last committed transaction.
    pub fn position(&self) -> i64 {
        self.0.position()
    }

    /// Whether [`Self::note_brought_up`] was called since the file was opened.
    pub fn is_brought_up(&self) -> bool {
        self.0.brought_up.load(Ordering::Acquire)
    }

    /// Notes that what this version expects in the file was looked for, and added where it was missing.
    pub fn note_brought_up(&self) {
        self.0.brought_up.store(true, Ordering::Release);
    }

    pub(super) fn new(inner: TenantInner) -> Self {
        Self(Arc::new(inner))
    }

    pub(super) fn inner(&self) -> &TenantInner {
        &self.0
    }

    /// What the handle holds, if this is the last clone.
    pub(super) fn into_last(self) -> Option<TenantInner> {
        Arc::into_inner(self.0)
    }

    /// Whether there are other clones.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Notes that somebody got the handle at `now_ms`.
    pub(super) fn note_use(&self, now_ms: i64) {
        self.0.last_used_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When somebody last got it.
    pub(super) fn last_used_ms(&self) -> i64 {
        self.0.last_used_ms.load(Ordering::Relaxed)
    }

    /// Bytes of the file, its write-ahead log not counted; 0 if it cannot be asked.
    pub(super) fn file_bytes(&self) -> u64 {
        std::fs::metadata(&self.0.path).map_or(0, |meta| meta.len())
    }

    /// Runs `read` over one snapshot that holds every write acknowledged before.
    ///
    /// It runs on the calling thread first, under a small budget of steps; if that is used up, again from the start on
    /// the blocking pool with the full budget, once it is its turn among the tenant's reads there. Dropping the future
    /// stops it. Past the budget: [`StoreError::TooExpensive`]; too many before it: [`StoreError::Busy`].
    pub async fn read<T, E, F>(&self, read: F) -> Result<T, E>
    where
        F: Fn(&Reader<'_>) -> Result<T, E> + Send + Sync + 'static,
        E: From<StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let options = self.0.options();
        if let Some(mut connection) = self.0.readers.try_get() {
            let allowance = Allowance { steps: options.read_inline_steps, deadline: None, cancelled: None };
            if let Some(value) = connection.attempt(&self.0, allowance, &read)? {
                Counters::add(&self.0.counters().reads_inline, 1);
                return Ok(value);
            }
        }
        let turn = self.0.reads.take_turn().await?;
        let cancelled = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        let (tenant, flag) = (self.clone(), Arc::clone(&cancelled.0));
        // The turn ends with the thread's work, not with the caller's interest in it.
        let pooled = move || {
            let done = tenant.read_pooled(flag, &read);
            drop(turn);
            done
        };
        let done = tokio::task::spawn_blocking(pooled).await;
        done.unwrap_or_else(|failed| {
            let why = if failed.is_panic() { "a read panicked" } else { "the runtime is stopping" };
            Err(StoreError::Panicked(Arc::from(why)).into())
        })
    }

    /// [`TenantDb::read`] for callers that are on a blocking thread already: the whole budget at once.
    pub fn read_blocking<T, E, F>(&self, read: F) -> Result<T, E>
    where
        F: Fn(&Reader<'_>) -> Result<T, E>,
        E: From<StoreError>,
    {
        self.read_pooled(Arc::new(AtomicBool::new(false)), &read)
    }

    fn read_pooled<T, E: From<StoreError>>(
        &self,
        cancelled: Arc<AtomicBool>,
        read: &dyn Fn(&Reader<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        if cancelled.load(Ordering::Relaxed) {
            return Err(StoreError::TooExpensive.into());
        }
        let options = self.0.options();
        let mut connection = self.0.readers.get()?;
        let deadline = Some(clock::instant() + options.read_deadline);
        let allowance = Allowance { steps: options.read_steps_max, deadline, cancelled: Some(Arc::clone(&cancelled)) };
        match connection.attempt(&self.0, allowance, read)? {
            Some(value) => {
                Counters::add(&self.0.counters().reads_pooled, 1);
                Ok(value)
            }
            None => {
                let counters = self.0.counters();
                let left = cancelled.load(Ordering::Relaxed);
                let why = if left { &counters.reads_cancelled } else { &counters.reads_too_expensive };
                Counters::add(why, 1);
                Err(StoreError::TooExpensive.into())
            }
        }
    }

    /// Runs `write` inside the tenant's next group commit, in a savepoint of its own.
    ///
    /// Returns after COMMIT and the observers. An error or a panic of `write` rolls back its own changes alone.
    /// Past `limits::WRITE_QUEUE_LEN_MAX` waiting requests: [`StoreError::QueueFull`].
    pub async fn write<T, E, F>(&self, meta: WriteMeta, write: F) -> Result<Written<T>, E>
    where
        F: FnOnce(&mut WriteTx<'_>) -> Result<T, E> + Send + 'static,
        E: From<StoreError> + Send + 'static,
        T: Send + 'static,
    {
        writer::submit(self, meta, write).await
    }

    /// Transactions after position `since_lsn`, oldest first, at most `limit`.
    pub async fn changes(&self, since_lsn: i64, limit: usize) -> Result<Vec<LoggedTx>, StoreError> {
        self.read(move |reader| reader.changes(since_lsn, limit)).await
    }

    /// Queue, readers and log of this tenant.
    pub fn stats(&self) -> TenantStats {
        let (readers, readers_busy) = self.0.readers.state();
        let wal = self.0.path.with_extension("db-wal");
        TenantStats {
            queue_len: self.0.queue.lock().len(),
            readers,
            readers_busy,
            wal_bytes: std::fs::metadata(wal).map_or(0, |meta| meta.len()),
            position: self.position(),
        }
    }
}

/// Stops a pooled read whose caller went away.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
