//! The table of open handles.
//!
//! Keeps true: at most one handle per file; concurrent opens of one tenant share one opening; a handle in use is never
//! closed; beyond the bound the longest unused handle goes first; handles in use are bounded too, and one more waits a
//! moment and is refused. A closed tenant costs nothing.
//! Does not do: what a handle can do (`tenant`), which tenants exist (the registry in the control database).

use super::files::FileRemover;
use super::ills::Ills;
use super::options::StoreOptions;
use super::space;
use super::stats::{Counters, StoreStats};
use super::tenant::{Shared, TenantDb, TenantInner};
use super::writer_pool::WriterPool;
use super::{StoreError, connection};
use crate::kernel::clock;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use parking_lot::Mutex;
use scheduled_thread_pool::ScheduledThreadPool;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore};

/// The open handles of this process, and what makes, copies, moves and deletes tenant files.
pub struct Tenants {
    pub(super) shared: Arc<Shared>,
    /// Shared with the handles that are on their way out.
    table: Arc<Mutex<Table>>,
    /// Told when a handle was closed or an exclusive operation ended.
    changed: Arc<Notify>,
    /// Places for open handles: the bound and `limits::OPEN_TENANTS_HEADROOM`. Each handle holds one until it is closed.
    places: Arc<Semaphore>,
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
        let id = inner.id().clone();
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
        let ills = Ills::new(&options.data_dir);
        let options = Arc::new(options);
        let places = Arc::new(Semaphore::new(options.open_max.saturating_add(limits::OPEN_TENANTS_HEADROOM)));
        let shared = Arc::new(Shared { options, counters: Counters::default(), remover, ills, writers, openers });
        Ok(Self { shared, table: Arc::default(), changed: Arc::default(), places })
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
                        tenant.note_use(self.shared.options.clock.now_ms());
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
            tenant.note_use(self.shared.options.clock.now_ms());
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
        let place = self.find_place().await?;
        let (shared, id, path) = (Arc::clone(&self.shared), id.clone(), self.path(id));
        let open = move || {
            let opened = TenantInner::open(&shared, &id, path.clone(), place);
            opened.map_err(|error| space::explain(error, &path))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let inner = opened.map_err(|_| StoreError::Closing)??;
        self.shared.ills.opened(inner.id());
        Ok(TenantDb::new(inner))
    }

    /// A place for one more handle. While all are taken by handles in use: [`StoreError::Busy`] after a moment.
    async fn find_place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let until = clock::instant() + self.shared.options.open_wait;
        loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return Ok(place);
            }
            if !self.close_longest_unused().await {
                if clock::instant() >= until {
                    return Err(StoreError::Busy);
                }
                self.wait_briefly().await;
            }
        }
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
        if Arc::strong_count(cell) > 1 || cell.get().is_none_or(TenantDb::is_shared) {
            return None;
        }
        let cell = Arc::into_inner(table.open.remove(id)?)?;
        let inner = cell.into_inner()?.into_last()?;
        table.closing.insert(id.clone());
        Some(Leaving { inner: Some(inner), table: Arc::clone(&self.table), changed: Arc::clone(&self.changed) })
    }

    /// Says whether there was one.
    async fn close_longest_unused(&self) -> bool {
        let victim = {
            let mut table = self.table.lock();
            Self::forget_abandoned(&mut table);
            let mut candidates: Vec<(i64, TenantId)> = table
                .open
                .iter()
                .filter_map(|(id, cell)| {
                    let tenant = cell.get().filter(|tenant| !tenant.is_shared())?;
                    Some((tenant.last_used_ms(), id.clone()))
                })
                .collect();
            candidates.sort();
            candidates.into_iter().find_map(|(_, id)| self.take_unused(&mut table, &id))
        };
        let found = victim.is_some();
        if let Some(leaving) = victim {
            close_off_thread(leaving).await;
        }
        found
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
                .filter(|(_, cell)| cell.get().is_some_and(|tenant| tenant.last_used_ms() < before))
                .map(|(id, _)| id.clone())
                .collect();
            old.iter().filter_map(|id| self.take_unused(&mut table, id)).collect()
        };
        let mut closed = idle.len();
        for leaving in idle {
            close_off_thread(leaving).await;
        }
        while self.open_len() > self.shared.options.open_max && self.close_longest_unused().await {
            closed += 1;
        }
        closed
    }

    /// The tenants with an open handle. Names, not handles: a list of clones would keep all of them from closing.
    pub fn list_open(&self) -> Vec<TenantId> {
        self.table.lock().open.iter().filter(|(_, cell)| cell.get().is_some()).map(|(id, _)| id.clone()).collect()
    }

    /// The handle of a tenant if it is open; taking it here does not count as using it.
    pub fn find_open(&self, id: &TenantId) -> Option<TenantDb> {
        self.table.lock().open.get(id).and_then(|cell| cell.get().cloned())
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
        let until = clock::instant() + patience;
        while !self.try_close(id).await {
            if clock::instant() >= until {
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
