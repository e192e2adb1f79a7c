//! The threads that write, and the tenants that wait for one.
//!
//! Fairness: a tenant gets one group per turn and then goes to the back of the run queue. A transaction cannot be split, so a
//! long one (an index over many rows, a deletion that cascades far) keeps its thread; where such hold every thread, others
//! come to help the tenants that wait, up to `limits::WRITER_HELPERS_MAX`.
//!
//! Keeps true: a tenant with an empty queue holds no thread; while something waits that no idle thread is about to take, a
//! watchman is awake. Does not do: what a turn is (`writer`).

use super::StoreError;
use super::tenant::TenantDb;
use super::writer;
use crate::kernel::limits;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Threads that write, and a watchman. They end when the pool is closed and the run queue is empty.
pub(super) struct WriterPool {
    run: Mutex<RunQueue>,
    /// Something waits, or the pool closes.
    wake: Condvar,
    /// The same for the watchman, where no idle thread will see to it.
    watch: Condvar,
}

#[derive(Default)]
struct RunQueue {
    tenants: VecDeque<TenantDb>,
    closing: bool,
    threads: usize,
    /// Threads that wait for a tenant.
    idle: usize,
    /// Threads that came to help.
    helpers: usize,
    /// Turns that began so far.
    turns: u64,
    /// The watchman is looking whether turns begin.
    watched: bool,
}

/// Why a thread is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Post {
    Permanent,
    /// Ends when nothing waited for a while.
    Helper,
}

impl WriterPool {
    /// Starts `threads` writers (at least one).
    pub(super) fn start(threads: usize) -> Result<Arc<Self>, StoreError> {
        let pool = Arc::new(Self { run: Mutex::new(RunQueue::default()), wake: Condvar::new(), watch: Condvar::new() });
        for number in 0..threads.max(1) {
            pool.begin(&mut pool.run.lock(), format!("tn-writer-{number}"), Post::Permanent)?;
        }
        let watchman = Arc::clone(&pool);
        std::thread::Builder::new().name("tn-writer-watch".into()).spawn(move || watchman.watch())?;
        Ok(pool)
    }

    fn begin(self: &Arc<Self>, run: &mut RunQueue, name: String, post: Post) -> std::io::Result<()> {
        let worker = Arc::clone(self);
        std::thread::Builder::new().name(name).spawn(move || worker.work(post))?;
        run.threads += 1;
        run.helpers += usize::from(post == Post::Helper);
        Ok(())
    }

    /// Puts a tenant with a queue at the back.
    pub(super) fn schedule(&self, tenant: TenantDb) {
        let mut run = self.run.lock();
        if run.threads == 0 {
            // The pool closed between the look and now; nobody would ever come for this.
            drop(run);
            return writer::turn_away(&tenant);
        }
        run.tenants.push_back(tenant);
        self.wake.notify_one();
        if run.tenants.len() > run.idle && !run.watched {
            self.watch.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn helpers(&self) -> usize {
        self.run.lock().helpers
    }

    pub(super) fn backlog(&self) -> usize {
        self.run.lock().tenants.len()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.run.lock().closing
    }

    /// Refuses new requests, writes what is queued, ends the threads. Blocks until that is done.
    pub(super) fn close(&self) {
        let mut run = self.run.lock();
        self.end(&mut run);
        while run.threads > 0 {
            self.wake.wait(&mut run);
        }
    }

    /// Lets the threads end on their own; for a store that is dropped without [`WriterPool::close`].
    pub(super) fn abandon(&self) {
        self.end(&mut self.run.lock());
    }

    fn end(&self, run: &mut RunQueue) {
        run.closing = true;
        self.wake.notify_all();
        self.watch.notify_all();
    }

    fn work(&self, post: Post) {
        while let Some(tenant) = self.take(post) {
            writer::turn(&tenant);
            if writer::go_on(&tenant) {
                self.schedule(tenant);
            }
        }
    }

    /// The tenant whose turn it is; `None` ends the thread.
    fn take(&self, post: Post) -> Option<TenantDb> {
        let mut run = self.run.lock();
        let mut waited = false;
        loop {
            if let Some(tenant) = run.tenants.pop_front() {
                run.turns = run.turns.wrapping_add(1);
                return Some(tenant);
            }
            if run.closing || (waited && post == Post::Helper) {
                run.threads -= 1;
                run.helpers -= usize::from(post == Post::Helper);
                self.wake.notify_all();
                return None;
            }
            run.idle += 1;
            waited = match post {
                Post::Permanent => {
                    self.wake.wait(&mut run);
                    false
                }
                Post::Helper => {
                    let linger = Duration::from_millis(limits::WRITER_HELPER_LINGER_MS);
                    self.wake.wait_for(&mut run, linger).timed_out()
                }
            };
            run.idle -= 1;
        }
    }

    /// Sends for help where something waits and no turn begins.
    fn watch(self: Arc<Self>) {
        let mut run = self.run.lock();
        while !run.closing {
            if run.tenants.len() <= run.idle {
                run.watched = false;
                self.watch.wait(&mut run);
                continue;
            }
            run.watched = true;
            let turns = run.turns;
            self.watch.wait_for(&mut run, Duration::from_millis(limits::WRITER_PATIENCE_MS));
            if run.turns == turns && run.tenants.len() > run.idle && !run.closing {
                self.help(&mut run);
            }
        }
    }

    fn help(self: &Arc<Self>, run: &mut MutexGuard<'_, RunQueue>) {
        if run.helpers >= limits::WRITER_HELPERS_MAX {
            return;
        }
        let name = format!("tn-writer-help-{}", run.helpers);
        match self.begin(run, name, Post::Helper) {
            Ok(()) => tracing::info!(
                writer.helpers = run.helpers,
                writer.backlog = run.tenants.len(),
                "long writes hold every writer thread; one more helps"
            ),
            Err(error) => tracing::warn!(%error, "long writes hold every writer thread, and no other can be started"),
        }
    }
}
