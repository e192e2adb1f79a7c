//! Handles: [`TenantDb`] is the only door to a tenant's file, [`Tenants`] the table of those that are open.
//!
//! Keeps true: at most one handle per file; concurrent opens of one tenant share one opening; a handle in use is never
//! closed; beyond the bound the longest unused handle goes first. A closed tenant costs nothing.
//! Does not do: which tenants exist (the registry in the control database), names, rights.

use super::changelog::{LogHead, LoggedTx};
use super::check;
use super::files::FileRemover;
use super::migrate;
use super::options::{ReadMeter, StoreOptions, WriteMeta, Written};
use super::readers::{self, Allowance, ReadPool, Reader};
use super::stats::{Counters, StoreStats, TenantStats};
use super::writer::{self, WriteQueue, WriteState, WriterPool};
use super::writetx::WriteTx;
use super::{StoreError, connection};
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::schema::Schema;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use scheduled_thread_pool::ScheduledThreadPool;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OnceCell};

/// One open tenant; clones share it.
#[derive(Clone)]
pub struct TenantDb(Arc<TenantInner>);

/// What the parts of the store share about one open tenant.
pub(super) struct TenantInner {
    id: TenantId,
    path: PathBuf,
    schema: ArcSwap<Schema>,
    position: AtomicI64,
    /// Counts COMMITs, so that a reader knows whether its open snapshot is still the present.
    commits: AtomicU64,
    readers: ReadPool,
    queue: Mutex<WriteQueue>,
    write: Mutex<Option<WriteState>>,
    last_used_ms: AtomicI64,
    meter: Option<Arc<dyn ReadMeter>>,
    /// When the file was last looked at after a panic.
    looked_at_ms: AtomicI64,
    shared: Arc<Shared>,
}

/// What all tenants share.
pub(super) struct Shared {
    pub(super) options: Arc<StoreOptions>,
    pub(super) counters: Counters,
    pub(super) remover: FileRemover,
    writers: Arc<WriterPool>,
    openers: Arc<ScheduledThreadPool>,
}

impl std::fmt::Debug for TenantDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantDb").field("id", self.id()).field("position", &self.position()).finish_non_exhaustive()
    }
}

impl TenantInner {
    fn open(shared: &Arc<Shared>, id: &TenantId, path: PathBuf) -> Result<Self, StoreError> {
        if !path.is_file() {
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
            readers: ReadPool::new(&path, options, &shared.openers),
            path,
            schema: ArcSwap::from_pointee(schema),
            position: AtomicI64::new(log.lsn),
            commits: AtomicU64::new(0),
            queue: Mutex::default(),
            write: Mutex::new(Some(WriteState { connection, budget, log, turns: 0 })),
            last_used_ms: AtomicI64::new(options.clock.now_ms()),
            meter: shared.options.meters.as_ref().map(|meters| meters.meter(id)),
            looked_at_ms: AtomicI64::new(i64::MIN),
            shared: Arc::clone(shared),
        })
    }

    pub(super) fn meter(&self) -> Option<&dyn ReadMeter> {
        self.meter.as_deref()
    }

    pub(super) fn id(&self) -> &TenantId {
        &self.id
    }

    /// The database file.
    pub(super) fn path(&self) -> &Path {
        &self.path
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
        self.commits.fetch_add(1, Ordering::AcqRel);
    }

    /// How many COMMITs were published through this handle.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
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
    fn close(self) {
        let Self { readers, write, shared, .. } = self;
        drop(readers);
        if let Some(state) = write.into_inner() {
            writer::settle_file(&state);
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

    pub(super) fn inner(&self) -> &TenantInner {
        &self.0
    }

    /// Bytes of the file, its write-ahead log not counted; 0 if it cannot be asked.
    pub(super) fn file_bytes(&self) -> u64 {
        std::fs::metadata(&self.0.path).map_or(0, |meta| meta.len())
    }

    /// Runs `read` over one snapshot that holds every write acknowledged before.
    ///
    /// It runs on the calling thread first, under a small budget of steps; if that is used up, again from the start on
    /// the blocking pool with the full budget. Dropping the future stops it. Past the budget:
    /// [`StoreError::TooExpensive`].
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
        let cancelled = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        let (tenant, flag) = (self.clone(), Arc::clone(&cancelled.0));
        let done = tokio::task::spawn_blocking(move || tenant.read_pooled(flag, &read)).await;
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
        let deadline = Some(Instant::now() + options.read_deadline);
        let allowance = Allowance { steps: options.read_steps_max, deadline, cancelled: Some(cancelled) };
        match connection.attempt(&self.0, allowance, read)? {
            Some(value) => {
                Counters::add(&self.0.counters().reads_pooled, 1);
                Ok(value)
            }
            None => {
                Counters::add(&self.0.counters().reads_too_expensive, 1);
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

/// The open handles of this process, and what makes, copies, moves and deletes tenant files.
pub struct Tenants {
    pub(super) shared: Arc<Shared>,
    /// Shared with the handles that are on their way out.
    table: Arc<Mutex<Table>>,
    /// Told when a handle was closed or an exclusive operation ended.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Table {
    open: HashMap<TenantId, Arc<OnceCell<TenantDb>>>,
    /// Tenants whose handle left `open` and still lets go of the file; each is held by one [`Leaving`].
    closing: HashSet<TenantId>,
    /// Tenants on which an exclusive operation runs.
    held: HashSet<TenantId>,
}

/// What an opener finds in the table.
enum Seat {
    /// The handle.
    Open(TenantDb),
    /// The cell in which the handle will be, and whether one more is too many.
    Free(Arc<OnceCell<TenantDb>>, bool),
    /// The handle before it still lets go of the file.
    Leaving,
}

/// A handle that nobody can get any more. Dropping closes it, which blocks; only then may the file be opened or moved.
struct Leaving {
    inner: Option<TenantInner>,
    table: Arc<Mutex<Table>>,
    changed: Arc<Notify>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let id = inner.id.clone();
        // A panic while closing leaves a consistent file; the tenant must not stay unreachable for it.
        let _ = catch_unwind(AssertUnwindSafe(|| inner.close()));
        self.table.lock().closing.remove(&id);
        self.changed.notify_waiters();
    }
}

impl std::fmt::Debug for Tenants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenants").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// Closes a handle on a thread that may block.
async fn close_off_thread(leaving: Leaving) {
    // Nothing to learn from the join: dropping does not panic.
    let _ = tokio::task::spawn_blocking(move || drop(leaving)).await;
}

/// Holds a tenant for an exclusive operation; dropping lets it go.
pub(super) struct Hold<'a> {
    tenants: &'a Tenants,
    id: TenantId,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.tenants.table.lock().held.remove(&self.id);
        self.tenants.changed.notify_waiters();
    }
}

impl Tenants {
    /// Builds the table: makes the data folder, raises the limit of open files, starts the writer threads. Opens no tenant.
    pub fn start(options: StoreOptions) -> Result<Self, StoreError> {
        connection::assert_sqlite()?;
        super::node::raise_file_limit();
        std::fs::create_dir_all(options.data_dir.join("tenants"))?;
        super::snapshot::sweep_rubbish(&options.data_dir)?;
        let writers = WriterPool::start(options.writer_threads)?;
        let openers = Arc::new(ScheduledThreadPool::builder().num_threads(1).thread_name_pattern("tn-open-{}").build());
        let remover = FileRemover::start(options.data_dir.clone())?;
        let options = Arc::new(options);
        let shared = Arc::new(Shared { options, counters: Counters::default(), remover, writers, openers });
        Ok(Self { shared, table: Arc::default(), changed: Arc::default() })
    }

    /// Where the file of a tenant is: `control.db`, or `tenants/<id>/data.db`.
    pub fn path(&self, id: &TenantId) -> PathBuf {
        file_path(&self.shared.options.data_dir, id)
    }

    /// Whether a file for the tenant is there.
    pub fn exists(&self, id: &TenantId) -> bool {
        self.path(id).is_file()
    }

    /// The handle of a tenant, opening its file if needed.
    pub async fn open(&self, id: &TenantId) -> Result<TenantDb, StoreError> {
        loop {
            let (cell, crowded) = match self.seat(id)? {
                Seat::Open(tenant) => return Ok(tenant),
                Seat::Free(cell, crowded) => (cell, crowded),
                // The handle before this one is still letting go of the file.
                Seat::Leaving => {
                    self.wait_briefly().await;
                    continue;
                }
            };
            if crowded {
                self.close_longest_unused().await;
            }
            let opened = cell.get_or_try_init(|| self.open_file(id)).await;
            match opened {
                Ok(tenant) => {
                    let tenant = tenant.clone();
                    // A close may have taken the cell out between the two locks; then this handle is not the table's.
                    if self.is_current(id, &cell) {
                        tenant.0.last_used_ms.store(self.shared.options.clock.now_ms(), Ordering::Relaxed);
                        return Ok(tenant);
                    }
                }
                Err(error) => {
                    self.forget_failed(id, &cell);
                    return Err(error);
                }
            }
        }
    }

    fn seat(&self, id: &TenantId) -> Result<Seat, StoreError> {
        let mut table = self.table.lock();
        if table.held.contains(id) {
            return Err(StoreError::TenantBusy(id.clone()));
        }
        // The usual case. Cloned under the lock, under which nobody can be closing it.
        if let Some(tenant) = table.open.get(id).and_then(|cell| cell.get()) {
            tenant.0.last_used_ms.store(self.shared.options.clock.now_ms(), Ordering::Relaxed);
            return Ok(Seat::Open(tenant.clone()));
        }
        if table.closing.contains(id) {
            return Ok(Seat::Leaving);
        }
        let known = table.open.contains_key(id);
        let crowded = !known && table.open.len() >= self.shared.options.open_max;
        Ok(Seat::Free(Arc::clone(table.open.entry(id.clone()).or_default()), crowded))
    }

    /// Until something was closed, or a moment: users of a handle do not announce that they are done.
    async fn wait_briefly(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(5), self.changed.notified()).await;
    }

    async fn open_file(&self, id: &TenantId) -> Result<TenantDb, StoreError> {
        let (shared, id, path) = (Arc::clone(&self.shared), id.clone(), self.path(id));
        let opened = tokio::task::spawn_blocking(move || TenantInner::open(&shared, &id, path)).await;
        let inner = opened.map_err(|_| StoreError::Closing)??;
        Ok(TenantDb(Arc::new(inner)))
    }

    fn is_current(&self, id: &TenantId, cell: &Arc<OnceCell<TenantDb>>) -> bool {
        self.table.lock().open.get(id).is_some_and(|present| Arc::ptr_eq(present, cell))
    }

    fn forget_failed(&self, id: &TenantId, cell: &Arc<OnceCell<TenantDb>>) {
        let mut table = self.table.lock();
        if table.open.get(id).is_some_and(|present| Arc::ptr_eq(present, cell) && present.get().is_none()) {
            table.open.remove(id);
        }
    }

    /// Drops openings whose callers all went away before the file was open.
    fn forget_abandoned(table: &mut Table) {
        table.open.retain(|_, cell| Arc::strong_count(cell) > 1 || cell.get().is_some());
    }

    /// Takes a handle out of the table if nobody else has it. Under the table's lock nobody can get it meanwhile.
    fn take_unused(&self, table: &mut Table, id: &TenantId) -> Option<Leaving> {
        let cell = table.open.get(id)?;
        // 1 is the table's own; an opener or a caller that is about to clone holds the cell.
        if Arc::strong_count(cell) > 1 || cell.get().is_none_or(|tenant| Arc::strong_count(&tenant.0) > 1) {
            return None;
        }
        let cell = Arc::into_inner(table.open.remove(id)?)?;
        let inner = Arc::into_inner(cell.into_inner()?.0)?;
        table.closing.insert(id.clone());
        Some(Leaving { inner: Some(inner), table: Arc::clone(&self.table), changed: Arc::clone(&self.changed) })
    }

    async fn close_longest_unused(&self) {
        let victim = {
            let mut table = self.table.lock();
            Self::forget_abandoned(&mut table);
            let mut candidates: Vec<(i64, TenantId)> = table
                .open
                .iter()
                .filter_map(|(id, cell)| {
                    let tenant = cell.get().filter(|tenant| Arc::strong_count(&tenant.0) == 1)?;
                    Some((tenant.0.last_used_ms.load(Ordering::Relaxed), id.clone()))
                })
                .collect();
            candidates.sort();
            candidates.into_iter().find_map(|(_, id)| self.take_unused(&mut table, &id))
        };
        if let Some(leaving) = victim {
            close_off_thread(leaving).await;
        }
    }

    /// Closes handles that were not used for `idle_close_ms`, and as many as the bound asks for. Call it now and then.
    pub async fn sweep(&self) -> usize {
        let before = self.shared.options.clock.now_ms() - self.shared.options.idle_close_ms;
        let idle: Vec<Leaving> = {
            let mut table = self.table.lock();
            Self::forget_abandoned(&mut table);
            let old: Vec<TenantId> = table
                .open
                .iter()
                .filter(|(_, cell)| {
                    cell.get().is_some_and(|tenant| tenant.0.last_used_ms.load(Ordering::Relaxed) < before)
                })
                .map(|(id, _)| id.clone())
                .collect();
            old.iter().filter_map(|id| self.take_unused(&mut table, id)).collect()
        };
        let mut closed = idle.len();
        for leaving in idle {
            close_off_thread(leaving).await;
        }
        while self.open_len() > self.shared.options.open_max {
            let len = self.open_len();
            self.close_longest_unused().await;
            if self.open_len() >= len {
                break;
            }
            closed += 1;
        }
        closed
    }

    /// Clones of the open handles; taking one here does not count as using it.
    pub fn list_open(&self) -> Vec<TenantDb> {
        self.table.lock().open.values().filter_map(|cell| cell.get().cloned()).collect()
    }

    /// Handles that are open.
    pub fn open_len(&self) -> usize {
        self.table.lock().open.len()
    }

    /// Closes one handle; waits a moment for its users and says whether it is closed now.
    pub async fn close(&self, id: &TenantId) -> bool {
        self.close_within(id, Duration::from_millis(200)).await
    }

    async fn close_within(&self, id: &TenantId, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while !self.try_close(id).await {
            if Instant::now() >= until {
                return false;
            }
            self.wait_briefly().await;
        }
        true
    }

    async fn try_close(&self, id: &TenantId) -> bool {
        let taken = {
            let mut table = self.table.lock();
            Self::forget_abandoned(&mut table);
            if !table.open.contains_key(id) {
                return !table.closing.contains(id);
            }
            self.take_unused(&mut table, id)
        };
        match taken {
            Some(leaving) => {
                close_off_thread(leaving).await;
                true
            }
            None => false,
        }
    }

    /// Keeps everybody else away from a tenant and waits until its handle is unused and closed.
    pub(super) async fn hold(&self, id: &TenantId, patience: Duration) -> Result<Hold<'_>, StoreError> {
        if !self.table.lock().held.insert(id.clone()) {
            return Err(StoreError::TenantBusy(id.clone()));
        }
        let hold = Hold { tenants: self, id: id.clone() };
        if !self.close_within(id, patience).await {
            return Err(StoreError::TenantBusy(id.clone()));
        }
        Ok(hold)
    }

    /// Writes what is queued, closes every handle, ends the threads. Handles still in use are left to their users.
    pub async fn shutdown(&self) {
        let writers = Arc::clone(&self.shared.writers);
        let shared = Arc::clone(&self.shared);
        let closing = move || {
            writers.close();
            shared.remover.close();
        };
        let _ = tokio::task::spawn_blocking(closing).await;
        let ids: Vec<TenantId> = self.table.lock().open.keys().cloned().collect();
        for id in ids {
            if !self.close(&id).await {
                tracing::warn!(tenant.id = %id, "a tenant was still in use when the store closed");
            }
        }
    }

    /// Totals since the start.
    pub fn stats(&self) -> StoreStats {
        let mut stats = self.shared.counters.snapshot();
        stats.open_tenants = u64::try_from(self.open_len()).unwrap_or(u64::MAX);
        stats.writer_backlog = u64::try_from(self.shared.writers.backlog()).unwrap_or(u64::MAX);
        stats
    }

    /// The options the store was started with.
    pub fn options(&self) -> &StoreOptions {
        &self.shared.options
    }
}

impl Drop for Tenants {
    fn drop(&mut self) {
        self.shared.writers.abandon();
    }
}

/// Where the file of a tenant is under `data_dir`.
pub(super) fn file_path(data_dir: &Path, id: &TenantId) -> PathBuf {
    if id.is_control() {
        data_dir.join("control.db")
    } else {
        data_dir.join("tenants").join(id.as_str()).join("data.db")
    }
}
