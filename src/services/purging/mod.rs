//! The purge hook: tells caches in front of this node (a CDN) which of the `Cache-Tag`s it gave out are no longer true.
//!
//! Keeps true: taking note of a commit costs memory work only and never waits; what waits is bounded, and where it would
//! grow past its bound it becomes coarser (a record, its collection, its tenant) before anything is lost; what is lost is
//! counted. Tags named here are those that `records::keeping` puts on answers.
//! Does not do: surviving a crash. A change that was committed but not yet posted when the process dies is not posted;
//! the `max-age` of the policy bounds how long another cache may then be wrong.

mod pending;
mod sender;
mod tags;

use crate::kernel::ident::TenantId;
use crate::secrets::Secret;
use crate::services::tenants::Registry;
use crate::store::{Commit, CommitObserver};
use parking_lot::Mutex;
use pending::{Changes, Pending};
use sender::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// How long a stop waits for what is not posted yet.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// What a post names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeForm {
    /// `{"tags": […]}`: the words of `Cache-Tag`.
    Tags,
    /// `{"urls": […]}`: addresses of records and lists, without queries.
    Urls,
}

/// Where and how changes are posted.
#[derive(Debug, Clone)]
pub struct PurgeOptions {
    /// Where to; `{slug}` (or `{tenant}`) in it stands for the tenant's slug, `{id}` for its id, with which tags begin.
    pub url: String,
    /// The header that carries the secret.
    pub header: String,
    /// Its value.
    pub secret: Secret,
    /// What is posted.
    pub form: PurgeForm,
    /// Slugs of the tenants whose changes are posted; empty is all.
    pub tenants: Vec<String>,
    /// How long changes are gathered.
    pub window: Duration,
    /// Tags or addresses in one post at most.
    pub batch_len_max: usize,
    /// Where people reach this node, for addresses.
    pub public_url: String,
}

/// What the hook did.
#[derive(Debug, Default)]
struct Numbers {
    posts: AtomicU64,
    posted: AtomicU64,
    failures: AtomicU64,
    dropped: AtomicU64,
    /// Failures since the last success.
    failing: AtomicU64,
    /// Status or cause of the last failure. Locked for an assignment, by the sender and by reports.
    last_failure: Mutex<Arc<str>>,
}

impl Numbers {
    fn succeeded(&self, tags: u64) {
        self.posts.fetch_add(1, Ordering::Relaxed);
        self.posted.fetch_add(tags, Ordering::Relaxed);
        let failed = self.failing.swap(0, Ordering::Relaxed);
        if failed > 0 {
            tracing::info!({ cache.failures = failed }, "purge hook: posts are accepted again");
        }
    }

    /// Counts; the first failure after a success is logged, the others would say the same.
    fn failed(&self, why: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_failure.lock() = Arc::from(why);
        if self.failing.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!({ cache.why = %why }, "purge hook: a post failed; /health says while they go on failing");
        }
    }
}

/// The same as plain numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PurgeStats {
    /// Posts that were accepted.
    pub posts: u64,
    /// Tags or addresses in them.
    pub posted: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Tags or addresses given up.
    pub dropped: u64,
    /// Failures since the last success.
    pub failing: u64,
    /// Tenants with changes that wait or are being posted.
    pub waiting: u64,
}

#[derive(Debug)]
struct Shared {
    /// Locked for a few map operations: by writers after a commit, by the sender when it takes everything.
    pending: Mutex<Pending>,
    wake: Notify,
    numbers: Numbers,
}

/// The handle by which changes are noted. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct PurgeHook {
    shared: Arc<Shared>,
}

/// The background task; [`PurgeTask::close`] ends it.
#[derive(Debug)]
pub struct PurgeTask {
    closing: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Default for PurgeHook {
    fn default() -> Self {
        Self::new()
    }
}

impl PurgeHook {
    /// A hook that gathers; nothing is posted before [`PurgeHook::start`].
    pub fn new() -> Self {
        let shared = Shared { pending: Mutex::default(), wake: Notify::new(), numbers: Numbers::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Starts to post. Fails if the options cannot make a client.
    pub fn start(&self, options: PurgeOptions, registry: Registry) -> Result<PurgeTask, String> {
        let (closing, closed) = watch::channel(false);
        let sender = Sender::new(Arc::clone(&self.shared), options, registry, closed)?;
        Ok(PurgeTask { closing, task: tokio::spawn(sender.run()) })
    }

    /// Everything of a tenant: it is gone, suspended or replaced.
    pub fn note_tenant(&self, tenant: &TenantId) {
        self.note(tenant, Changes::Everything);
    }

    /// Somebody purged by hand what has these tags, given without the tenant.
    pub fn note_tags(&self, tenant: &TenantId, tags: impl IntoIterator<Item = Arc<str>>) {
        self.note(tenant, Changes::of_tags(tags));
    }

    /// Status or cause of the last failure; empty if there was none.
    pub fn last_failure(&self) -> Arc<str> {
        Arc::clone(&self.shared.numbers.last_failure.lock())
    }

    /// What it did.
    pub fn stats(&self) -> PurgeStats {
        let numbers = &self.shared.numbers;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let pending = self.shared.pending.lock();
        PurgeStats {
            posts: read(&numbers.posts),
            posted: read(&numbers.posted),
            failures: read(&numbers.failures),
            dropped: read(&numbers.dropped) + pending.dropped(),
            failing: read(&numbers.failing),
            waiting: pending.untold() as u64,
        }
    }

    fn note(&self, tenant: &TenantId, changes: Changes) {
        if tenant.is_control() {
            return;
        }
        self.shared.pending.lock().add(tenant, changes);
        self.shared.wake.notify_one();
    }
}

impl CommitObserver for PurgeHook {
    fn committed(&self, tenant: &TenantId, commit: &Commit) {
        // Another schema may mean other rules: what was public may not be any more.
        let changes = if commit.schema_changed { Changes::Everything } else { Changes::of_touches(&commit.touches) };
        self.note(tenant, changes);
    }
}

impl PurgeTask {
    /// Posts what waits, once and without patience, and ends.
    pub async fn close(self) {
        // The task may have ended already.
        let _ = self.closing.send(true);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(CLOSE_WAIT, self.task).await.is_err() {
            abort.abort();
        }
    }
}
