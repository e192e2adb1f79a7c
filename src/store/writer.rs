//! Writing: one bounded queue per tenant, group commit.
//!
//! Keeps true: one thread at a time writes to a tenant; requests of a tenant run in the order they were queued, each to be
//! undone alone; nobody is acknowledged before COMMIT returned and the observers ran; after a failed COMMIT the
//! writer's memory (schema, log head, clock) is what it was before the group.
//! Does not do: what a request may change (`writetx`), whose turn it is (`writer_pool`).
//!
//! Undoing: while nothing else is written, ROLLBACK undoes a request; behind others it needs a savepoint, for which SQLite
//! keeps a copy of every page that is changed again.

use super::StoreError;
use super::changelog::{LogHead, TxHeader};
use super::checkpoint::{self, LogFile};
use super::connection::Budget;
use super::faults::FaultPoint;
use super::files::{Released, released};
use super::migrate;
use super::options::{Commit, Touch, WriteMeta, WriteToken, Written};
use super::readers::{Reader, partition_key};
use super::rowclock::Clock2;
use super::space;
use super::stats::Counters;
use super::tenant::{TenantDb, TenantInner};
use super::writetx::WriteTx;
use crate::kernel::clock;
use crate::kernel::ident::CollectionId;
use crate::kernel::limits;
use crate::schema::Schema;
use rusqlite::{Connection, params};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::oneshot;

/// One queued request.
pub(super) trait Job: Send {
    fn meta(&self) -> &WriteMeta;
    /// Nobody waits any more.
    fn abandoned(&self) -> bool;
    fn run(&mut self, tx: &mut WriteTx<'_>) -> Verdict;
    fn settle(self: Box<Self>, outcome: Result<Receipt, StoreError>);
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Undo,
    Panicked,
}

/// What an acknowledged request gets.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    lsn: i64,
    token: Option<WriteToken>,
}

struct TypedJob<T, E, F> {
    meta: WriteMeta,
    run: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<Written<T>, E>>,
}

impl<T, E, F> Job for TypedJob<T, E, F>
where
    F: FnOnce(&mut WriteTx<'_>) -> Result<T, E> + Send,
    E: From<StoreError> + Send,
    T: Send,
{
    fn meta(&self) -> &WriteMeta {
        &self.meta
    }

    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn run(&mut self, tx: &mut WriteTx<'_>) -> Verdict {
        let Some(run) = self.run.take() else { return Verdict::Undo };
        match catch_unwind(AssertUnwindSafe(|| run(tx))) {
            Ok(result) => {
                let verdict = if result.is_ok() { Verdict::Keep } else { Verdict::Undo };
                self.result = Some(result);
                verdict
            }
            Err(panic) => {
                self.result = Some(Err(StoreError::Panicked(panic_text(&*panic)).into()));
                Verdict::Panicked
            }
        }
    }

    fn settle(self: Box<Self>, outcome: Result<Receipt, StoreError>) {
        let answer = match (self.result, outcome) {
            (Some(Err(own)), _) => Err(own),
            (_, Err(error)) => Err(error.into()),
            (Some(Ok(value)), Ok(receipt)) => Ok(Written { value, lsn: receipt.lsn, token: receipt.token }),
            (None, Ok(_)) => Err(StoreError::Closing.into()),
        };
        // The caller may have gone away; the write stands all the same.
        let _ = self.reply.send(answer);
    }
}

/// The text of a panic, for the log.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> Arc<str> {
    let text = panic.downcast_ref::<&str>().copied();
    Arc::from(text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message"))
}

/// The queue of one tenant. Bound: `limits::WRITE_QUEUE_LEN_MAX`. Shared by requests and the writer thread of the moment.
#[derive(Default)]
pub(super) struct WriteQueue {
    jobs: VecDeque<Box<dyn Job>>,
    /// The tenant is in the run queue or on a thread.
    scheduled: bool,
}

impl WriteQueue {
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }
}

/// The writing connection with what the writer must remember between groups.
pub(super) struct WriteState {
    pub(super) connection: Connection,
    pub(super) budget: Arc<Budget>,
    pub(super) log: LogHead,
    pub(super) turns: u32,
    pub(super) log_file: LogFile,
}

/// Whether requests wait; if not, the tenant is no longer scheduled.
pub(super) fn go_on(tenant: &TenantDb) -> bool {
    let mut queue = tenant.inner().queue().lock();
    queue.scheduled = !queue.jobs.is_empty();
    queue.scheduled
}

/// Tells everybody who waits for the writer of this tenant that it is closing.
pub(super) fn turn_away(tenant: &TenantDb) {
    let jobs: Vec<Box<dyn Job>> = tenant.inner().queue().lock().jobs.drain(..).collect();
    jobs.into_iter().for_each(|job| job.settle(Err(StoreError::Closing)));
}

/// Queues a request and waits for its acknowledgement.
pub(super) async fn submit<T, E, F>(tenant: &TenantDb, meta: WriteMeta, run: F) -> Result<Written<T>, E>
where
    F: FnOnce(&mut WriteTx<'_>) -> Result<T, E> + Send + 'static,
    E: From<StoreError> + Send + 'static,
    T: Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    enqueue(tenant, Box::new(TypedJob { meta, run: Some(run), result: None, reply }))?;
    answer.await.unwrap_or_else(|_| Err(StoreError::Closing.into()))
}

fn enqueue(tenant: &TenantDb, job: Box<dyn Job>) -> Result<(), StoreError> {
    let pool = tenant.inner().writers();
    {
        let mut queue = tenant.inner().queue().lock();
        if pool.is_closing() {
            return Err(StoreError::Closing);
        }
        if queue.jobs.len() >= limits::WRITE_QUEUE_LEN_MAX {
            Counters::add(&tenant.inner().counters().requests_refused, 1);
            return Err(StoreError::QueueFull);
        }
        queue.jobs.push_back(job);
        if std::mem::replace(&mut queue.scheduled, true) {
            return Ok(());
        }
    }
    pool.schedule(tenant.clone());
    Ok(())
}

/// One group of one tenant.
pub(super) fn turn(tenant: &TenantDb) {
    let inner = tenant.inner();
    let mut jobs: VecDeque<Box<dyn Job>> = {
        let mut queue = inner.queue().lock();
        let len = queue.jobs.len().min(limits::GROUP_COMMIT_LEN_MAX);
        queue.jobs.drain(..len).collect()
    };
    let mut state = inner.write_state().lock();
    let Some(state) = state.as_mut() else {
        jobs.into_iter().for_each(|job| job.settle(Err(StoreError::Closing)));
        return;
    };
    let group = Group::new(inner, state);
    // A defect in the group itself must not take the thread with it; the requests learn by their dropped channel.
    let left = catch_unwind(AssertUnwindSafe(|| group.run(&mut jobs)));
    if left.is_err() {
        Counters::add(&inner.counters().panics, 1);
        inner.note_panic();
        recover(inner, state);
    }
    if !jobs.is_empty() {
        let mut queue = inner.queue().lock();
        jobs.into_iter().rev().for_each(|job| queue.jobs.push_front(job));
    }
    state.turns = state.turns.wrapping_add(1);
    if state.turns.is_multiple_of(16) || inner.queue().lock().len() == 0 {
        checkpoint::maintain(inner, &state.connection, &mut state.log_file);
    }
}

/// After a defect: roll back and read the head from the file again.
fn recover(inner: &TenantInner, state: &mut WriteState) {
    state.budget.disarm();
    let _ = rollback(&state.connection);
    if let Ok(log) = LogHead::load(&state.connection, i64::from(state.log.oid)) {
        state.log = log;
    }
    if let Ok(schema) = super::readers::load_schema(&state.connection) {
        inner.publish(Arc::new(schema), state.log.lsn);
    }
}

/// What a request left in the log: its sequence number and its position.
#[derive(Debug, Clone, Copy)]
struct Logged {
    seq: i64,
    lsn: i64,
}

/// A group while it runs.
struct Group<'a> {
    inner: &'a TenantInner,
    state: &'a mut WriteState,
    schema: Arc<Schema>,
    saved: LogHead,
    kept: Vec<(Box<dyn Job>, Option<Logged>)>,
    undone: Vec<Box<dyn Job>>,
    touches: Vec<Touch>,
    released: Vec<Released>,
    schema_changed: bool,
    stored: bool,
}

impl<'a> Group<'a> {
    fn new(inner: &'a TenantInner, state: &'a mut WriteState) -> Self {
        let saved = state.log.clone();
        Self {
            schema: inner.schema(),
            inner,
            state,
            saved,
            kept: Vec::new(),
            undone: Vec::new(),
            touches: Vec::new(),
            released: Vec::new(),
            schema_changed: false,
            stored: false,
        }
    }

    fn run(mut self, jobs: &mut VecDeque<Box<dyn Job>>) {
        if let Err(error) = execute(&self.state.connection, "BEGIN IMMEDIATE") {
            let error = space::explain(error, self.inner.path());
            self.inner.ills().met(self.inner.id(), &error);
            jobs.drain(..).for_each(|job| job.settle(Err(error.clone())));
            return;
        }
        let began = clock::instant();
        while let Some(job) = jobs.pop_front() {
            if job.abandoned() {
                continue;
            }
            if let Err((error, job)) = self.request(job) {
                let error = space::explain(error, self.inner.path());
                job.settle(Err(error.clone()));
                return self.fail(error);
            }
            if began.elapsed() >= self.inner.options().group_time_max {
                break;
            }
        }
        match self.commit() {
            Ok(()) => self.acknowledge(),
            Err(error) => {
                let error = space::explain(error, self.inner.path());
                self.fail(error);
            }
        }
    }

    /// Runs one request in its savepoint. An error is one of the connection: the group is lost.
    fn request(&mut self, mut job: Box<dyn Job>) -> Result<(), (StoreError, Box<dyn Job>)> {
        let before = self.state.log.clone();
        match self.attempt(&mut *job) {
            Ok(Some(logged)) => self.kept.push((job, logged)),
            Ok(None) => {
                self.state.log = before;
                self.undone.push(job);
            }
            Err(error) => {
                self.state.log = before;
                return Err((error, job));
            }
        }
        Ok(())
    }

    /// `Ok(Some)`: kept, with what it logged if anything. `Ok(None)`: rolled back alone.
    fn attempt(&mut self, job: &mut dyn Job) -> Result<Option<Option<Logged>>, StoreError> {
        let behind = self.wrote();
        if behind {
            execute(&self.state.connection, "SAVEPOINT request")?;
        }
        let options = self.inner.options();
        let now_ms = options.clock.now_ms();
        let hlc = self.state.log.hlc.tick(now_ms);
        let reader = Reader {
            connection: &self.state.connection,
            schema: Arc::clone(&self.schema),
            lsn: self.state.log.lsn,
            tenant: self.inner.id(),
            slow: options.slow_queries.as_deref().map(|sink| (sink, options.slow_query)),
            meter: self.inner.meter(),
            counts: None,
            ills: Some(self.inner.ills()),
            system: None,
        };
        let clock = Clock2 { oid: self.state.log.oid, hlc: hlc.as_i64() };
        let mut tx = WriteTx::new(reader, &self.state.budget, options.sealer.as_deref(), clock, now_ms);
        self.state.budget.arm(options.read_steps_max, Some(clock::instant() + options.read_deadline), None);
        let verdict = job.run(&mut tx);
        self.state.budget.disarm();
        let (ops, outcome, schema, storage) = (tx.ops, tx.outcome, tx.reader.schema, tx.storage.into_inner());
        if self.state.connection.is_autocommit() {
            // SQLite gave up the whole transaction (disk full, I/O error).
            let unknown = || StoreError::GroupFailed(Arc::from("the transaction was rolled back by SQLite"));
            return Err(storage.unwrap_or_else(unknown));
        }
        if verdict == Verdict::Panicked {
            Counters::add(&self.inner.counters().panics, 1);
            self.inner.note_panic();
        }
        if verdict != Verdict::Keep || outcome.dry_run {
            self.undo(behind, ops.schema_changed)?;
            return Ok(None);
        }
        let schema_changed = ops.schema_changed;
        let (ops, touches) = ops.finish(self.state.log.lsn + 1);
        let released = released(&self.schema, &schema, &ops);
        let mut logged = None;
        if !ops.is_empty() {
            let meta = job.meta();
            let actor = meta.actor.to_string();
            let header = TxHeader {
                hlc,
                schema: schema.version(),
                actor: &actor,
                request_id: &meta.request_id,
                ip: meta.ip.as_ref(),
            };
            self.state.log.append(&self.state.connection, &header, ops)?;
            logged = Some(Logged { seq: self.state.log.seq, lsn: self.state.log.lsn });
        }
        if behind {
            execute(&self.state.connection, "RELEASE request")?;
        }
        self.touches.extend(touches);
        self.released.extend(released);
        self.stored |= outcome.stored;
        self.state.log_file.shrunk |= outcome.shrunk;
        if schema_changed {
            self.schema = schema;
            self.schema_changed = true;
        }
        Ok(Some(logged))
    }

    /// Undoes the request that ran last, which was `behind` others or not.
    fn undo(&self, behind: bool, schema_changed: bool) -> Result<(), StoreError> {
        if behind {
            execute(&self.state.connection, "ROLLBACK TO request")?;
            execute(&self.state.connection, "RELEASE request")?;
        } else {
            execute(&self.state.connection, "ROLLBACK")?;
            execute(&self.state.connection, "BEGIN IMMEDIATE")?;
        }
        if schema_changed {
            self.state.connection.flush_prepared_statement_cache();
        }
        Ok(())
    }

    fn logged(&self) -> bool {
        self.state.log.lsn != self.saved.lsn
    }

    /// Whether the transaction holds anything of the requests so far.
    fn wrote(&self) -> bool {
        self.logged() || self.stored
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if !self.wrote() {
            return rollback(&self.state.connection);
        }
        if self.logged() {
            bump(&self.state.connection, &self.touches, self.schema_changed.then_some(self.state.log.lsn))?;
            self.state.log.save(&self.state.connection)?;
        }
        if let Some(injected) = self.inner.options().faults.at(FaultPoint::BeforeCommit) {
            return Err(injected.into());
        }
        let began = clock::instant();
        execute(&self.state.connection, "COMMIT")?;
        let counters = self.inner.counters();
        Counters::add(&counters.commits, 1);
        Counters::add(&counters.commit_micros, u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        Counters::raise(&counters.group_len_max, u64::try_from(self.kept.len()).unwrap_or(u64::MAX));
        // Nobody hears a failure planned here: the write is durable and will be acknowledged.
        let _ = self.inner.options().faults.at(FaultPoint::AfterCommit);
        Ok(())
    }

    fn acknowledge(mut self) {
        let logged = self.logged();
        let committed = self.wrote();
        if self.schema_changed {
            self.inner.counts().clear();
        } else if logged {
            self.inner.counts().advance(self.saved.lsn, self.state.log.lsn, &self.touches);
        }
        if committed {
            self.inner.publish(Arc::clone(&self.schema), self.state.log.lsn);
        }
        if logged {
            self.observe();
        }
        self.inner.remover().submit(self.inner.id(), std::mem::take(&mut self.released));
        let counters = self.inner.counters();
        Counters::add(&counters.requests_committed, u64::try_from(self.kept.len()).unwrap_or(0));
        Counters::add(&counters.requests_undone, u64::try_from(self.undone.len()).unwrap_or(0));
        let position = self.state.log.lsn;
        let (tenant, origin) = (self.inner.id(), self.state.log.uid);
        for (job, logged) in std::mem::take(&mut self.kept) {
            let token = logged.map(|logged| WriteToken { tenant: tenant.clone(), origin, seq: logged.seq });
            job.settle(Ok(Receipt { lsn: logged.map_or(position, |logged| logged.lsn), token }));
        }
        for job in std::mem::take(&mut self.undone) {
            job.settle(Ok(Receipt { lsn: position, token: None }));
        }
        if committed {
            self.inner.readers().release_stale(self.inner.present());
        }
    }

    fn observe(&mut self) {
        let options = self.inner.options();
        let commit = Commit {
            lsn_first: self.saved.lsn + 1,
            lsn_last: self.state.log.lsn,
            mark_last: self.state.log.mark,
            schema_changed: self.schema_changed,
            touches: std::mem::take(&mut self.touches),
        };
        for observer in &options.observers {
            let _ = options.faults.at(FaultPoint::InObserver);
            if catch_unwind(AssertUnwindSafe(|| observer.committed(self.inner.id(), &commit))).is_err() {
                Counters::add(&self.inner.counters().panics, 1);
                tracing::error!(tenant.id = %self.inner.id(), "a commit observer panicked");
            }
        }
    }

    /// Nothing of the group is stored; everybody learns it, and the writer's memory is what it was.
    fn fail(mut self, error: StoreError) {
        let _ = rollback(&self.state.connection);
        self.state.connection.flush_prepared_statement_cache();
        self.state.log = self.saved.clone();
        Counters::add(&self.inner.counters().commit_failures, 1);
        self.inner.ills().met(self.inner.id(), &error);
        tracing::error!(tenant.id = %self.inner.id(), %error, "a group commit failed");
        for (job, _) in std::mem::take(&mut self.kept) {
            job.settle(Err(error.clone()));
        }
        for job in std::mem::take(&mut self.undone) {
            job.settle(Err(error.clone()));
        }
    }
}

fn execute(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

fn rollback(connection: &Connection) -> Result<(), StoreError> {
    if connection.is_autocommit() { Ok(()) } else { execute(connection, "ROLLBACK") }
}

/// Moves the positions of what the group touched; `schema_lsn` is the group's last position if it changed collections.
fn bump(connection: &Connection, touches: &[Touch], schema_lsn: Option<i64>) -> Result<(), StoreError> {
    let mut moved: HashMap<(&CollectionId, Vec<u8>), i64> = HashMap::new();
    for touch in touches {
        moved.insert((&touch.collection, Vec::new()), touch.lsn);
        for value in &touch.partitions {
            moved.insert((&touch.collection, partition_key(value)), touch.lsn);
        }
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO _tn_gen (coll, part, lsn) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET lsn = excluded.lsn
         WHERE excluded.lsn > lsn",
    )?;
    for ((collection, part), lsn) in moved {
        statement.execute(params![collection.as_str(), part, lsn])?;
    }
    if let Some(lsn) = schema_lsn {
        migrate::set_meta_number(connection, migrate::SCHEMA_LSN, lsn)?;
        // A collection that went away in this group keeps no position.
        connection.execute("DELETE FROM _tn_gen WHERE coll NOT IN (SELECT id FROM _tn_collection)", [])?;
    }
    Ok(())
}
