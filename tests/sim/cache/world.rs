//! The world around the cache: tenants, writers, readers, a clock and a seed that decides what happens next; what goes wrong
//! there is in `troubles`.
//!
//! A read is right if some state between the last one acknowledged before it began and the last one committed before it
//! ended gives exactly its bytes to exactly its caller.

use super::disk::{SimDisk, Table};
use super::reader::{self, Asking, Manner, dependencies_of, key_of, now};
use super::tally::Tally;
use super::truth::{self, Caller, PARTITIONS, Query, RECORDS, RULES, Row, Rule, State, USERS};
use futures_util::task::noop_waker_ref;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tenantry::cache::entry::Loaded;
use tenantry::cache::key::Key;
use tenantry::cache::mutation::Mutation;
use tenantry::cache::purge::Purge;
use tenantry::cache::stamp::Touched;
use tenantry::cache::{Began, Cache, CacheOptions, CommitSummary, Request, Source, TenantCache};
use tenantry::kernel::clock::ManualClock;
use tenantry::kernel::ident::TenantId;
use tenantry::kernel::random::{SeededRandom, below};

pub(super) const TENANTS: usize = 2;
const READS_MAX: usize = 12;
const REMEMBERED_MAX: usize = 8;
const MEMORY_BYTES_AMPLE: u64 = 64 * 1024 * 1024;
/// Room for a few answers only.
const MEMORY_BYTES_TIGHT: u64 = 6 * 1024;

/// What is broken in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// A rule of the cache itself.
    Cache(Mutation),
    /// The caller leaves out what the rule looks up.
    MissingDependency,
    /// The caller leaves what the rule reads of them out of the key.
    ValueLeftOut,
    /// The caller answers from a snapshot that has another rule than the one the key was made by.
    LoadsUnderAnotherRule,
    /// The writer acknowledges before the cache has heard of the commit.
    AcknowledgesBeforeObservers,
    /// The seed claims a complete log tail but has none.
    SeedWithoutTail,
    /// Of a record that moves to another partition only the new one is told.
    MoveTellsNewPartitionAlone,
}

/// A wrong answer.
#[derive(Debug)]
pub(super) struct Breach {
    step: usize,
    caller: Caller,
    got: String,
    allowed: Vec<String>,
    source: Source,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "step {}: {:?} got {:?} from {:?}, allowed were {:?}",
            self.step, self.caller, self.got, self.source, self.allowed
        )
    }
}

/// The history of one tenant: every state that was ever current, in order.
pub(super) struct History {
    pub(super) states: Vec<State>,
    /// Index of the last state whose writer was answered.
    pub(super) acknowledged: usize,
}

impl History {
    /// A further state.
    pub(super) fn push(&mut self, state: State) {
        self.states.push(state);
    }

    pub(super) fn rule(&self) -> (Rule, i64) {
        self.states.last().map(|state| (state.rule, state.schema_lsn)).unwrap()
    }
}

pub(super) struct Tenant {
    pub(super) id: TenantId,
    pub(super) history: Rc<RefCell<History>>,
    /// A write that is committed and not yet acknowledged.
    pub(super) pending: Option<Pending>,
    /// Answers that acknowledged writers made and have not handed to the cache yet.
    pub(super) throughs: Vec<Through>,
    /// Copies of the disk tier that an operator might put back.
    pub(super) copies: Vec<Table>,
    /// Reads that a worker goes on answering without looking anything up but the account behind them.
    pub(super) remembered: Vec<Remembered>,
}

pub(super) struct Remembered {
    cache: TenantCache,
    key: Key,
    caller: Caller,
    query: Query,
}

/// What a writer answered at its own position, to be kept as what a reader of that position would be answered.
pub(super) struct Through {
    cache: TenantCache,
    began: Began,
    state: State,
    caller: Caller,
    query: Query,
}

pub(super) struct Pending {
    /// The cache of the tenant and where it stood before the write was queued.
    cache: TenantCache,
    began: Began,
    schema_changed: bool,
    touches: Vec<Touched>,
    observed: bool,
}

pub(super) struct Reading {
    tenant: usize,
    caller: Caller,
    query: Query,
    since: usize,
    future: Pin<Box<dyn Future<Output = reader::Told>>>,
}

/// A read that has its answer.
struct Judged {
    tenant: usize,
    caller: Caller,
    query: Query,
    since: usize,
}

pub(super) struct World {
    random: SeededRandom,
    pub(super) clock: Arc<ManualClock>,
    pub(super) disk: SimDisk,
    /// Bytes of memory of the cache: plenty, or so few that answers are driven out all the time.
    pub(super) memory_bytes: u64,
    pub(super) cache: Cache,
    /// Which build of the program runs.
    pub(super) build: u64,
    pub(super) tenants: Vec<Tenant>,
    pub(super) reads: Vec<Reading>,
    pub(super) defect: Option<Defect>,
    values: u64,
    pub(super) lineages: u8,
    pub(super) tally: Tally,
}

/// Runs one seed; the first wrong answer ends it.
pub(super) fn run(seed: u64, steps: usize, defect: Option<Defect>) -> Result<Tally, Breach> {
    let mut world = World::new(seed, defect);
    for step in 0..steps {
        world.step(step)?;
    }
    while !world.reads.is_empty() {
        world.poll_one(steps)?;
    }
    world.tally.add_cache(&world.cache);
    world.tally.store.add(&world.disk.tally());
    Ok(world.tally)
}

impl World {
    fn new(seed: u64, defect: Option<Defect>) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let disk = SimDisk::default();
        let tenants = (0..TENANTS).map(|n| Tenant {
            id: TenantId::parse(&format!("t{n}")).unwrap(),
            history: Rc::new(RefCell::new(History {
                states: vec![State::new([u8::try_from(n).unwrap(); 16])],
                acknowledged: 0,
            })),
            pending: None,
            throughs: Vec::new(),
            copies: Vec::new(),
            remembered: Vec::new(),
        });
        let memory_bytes = if seed % 4 == 3 { MEMORY_BYTES_TIGHT } else { MEMORY_BYTES_AMPLE };
        let mut world = Self {
            random: SeededRandom::new(seed),
            memory_bytes,
            cache: open(&clock, &disk, memory_bytes, (0, defect)),
            build: 0,
            clock,
            disk,
            tenants: tenants.collect(),
            reads: Vec::new(),
            defect,
            values: 0,
            lineages: 100,
            tally: Tally::default(),
        };
        world.attach_all();
        world
    }

    pub(super) fn draw(&self, bound: usize) -> usize {
        usize::try_from(below(&self.random, bound as u64)).unwrap()
    }

    fn step(&mut self, step: usize) -> Result<(), Breach> {
        self.clock.advance_ms(i64::try_from(self.draw(40)).unwrap());
        let tenant = self.draw(TENANTS);
        match self.draw(1_000) {
            0..=259 => self.begin_read(tenant),
            260..=299 => self.ask_again(tenant, step)?,
            300..=789 => {
                for _ in 0..3 {
                    self.poll_one(step)?;
                }
            }
            790..=799 => self.trouble_disk(),
            800..=889 => self.move_writer(tenant),
            890..=899 => self.write_through(tenant),
            900..=919 => self.cancel_one(),
            920..=949 => self.cache.maintain(),
            950..=959 => self.purge_external(tenant),
            960..=964 => self.reopen(tenant),
            965..=967 => self.restore(tenant),
            968..=979 => {
                self.copy_disk();
                self.disturb_disk(false);
            }
            980..=995 => self.restart(),
            _ => self.clock.advance_ms(120_000),
        }
        Ok(())
    }

    fn begin_read(&mut self, tenant: usize) {
        if self.reads.len() >= READS_MAX {
            return;
        }
        let query = match self.draw(8) {
            0..=2 => Query::Record(self.draw(RECORDS)),
            3 | 4 => Query::Everything,
            5 | 6 => Query::Partition(self.draw(PARTITIONS)),
            _ => Query::External,
        };
        let user = self.draw(USERS + 1).checked_sub(1);
        let manner = match self.draw(16) {
            0 => Manner::Reload,
            1 => Manner::Verify,
            _ => Manner::Plain,
        };
        let looks_twice = self.draw(4) == 0;
        let at = &self.tenants[tenant];
        let history = at.history.borrow();
        let since = history.acknowledged;
        let admin = user.is_some_and(|user| history.states[since].admins[user]);
        drop(history);
        let caller = Caller { user, admin };
        let asking = Asking {
            cache: self.cache.clone(),
            id: at.id.clone(),
            history: Rc::clone(&at.history),
            tenant,
            caller,
            query,
            manner,
            looks_twice,
            defect: self.defect,
        };
        self.reads.push(Reading { tenant, caller, query, since, future: Box::pin(reader::read(asking)) });
    }

    /// A worker answers a read it remembers, if the account behind it is what it was; else it is forgotten.
    fn ask_again(&mut self, tenant: usize, step: usize) -> Result<(), Breach> {
        if self.tenants[tenant].remembered.is_empty() {
            return Ok(());
        }
        let which = self.draw(self.tenants[tenant].remembered.len());
        let at = &self.tenants[tenant];
        let Remembered { cache, key, caller, query } = &at.remembered[which];
        let (caller, query) = (*caller, *query);
        let since = at.history.borrow().acknowledged;
        let stands = caller.user.is_none_or(|user| at.history.borrow().states[since].admins[user] == caller.admin);
        let found = cache.get(key).filter(|_| stands);
        let Some(answer) = found else {
            self.tenants[tenant].remembered.swap_remove(which);
            return Ok(());
        };
        let got = String::from_utf8_lossy(answer.body()).into_owned();
        self.tally.remembered += 1;
        self.judge(step, &Judged { tenant, caller, query, since }, got, answer.source())
    }

    fn poll_one(&mut self, step: usize) -> Result<(), Breach> {
        if self.reads.is_empty() {
            return Ok(());
        }
        let at = self.draw(self.reads.len());
        let mut context = Context::from_waker(noop_waker_ref());
        if let Poll::Ready(reader::Told { got, source, cache, key }) = self.reads[at].future.as_mut().poll(&mut context)
        {
            let Reading { tenant, caller, query, since, .. } = self.reads.swap_remove(at);
            let remembered = &mut self.tenants[tenant].remembered;
            if remembered.len() < REMEMBERED_MAX {
                remembered.push(Remembered { cache, key, caller, query });
            }
            return self.judge(step, &Judged { tenant, caller, query, since }, got, source);
        }
        Ok(())
    }

    fn judge(&mut self, step: usize, done: &Judged, got: String, source: Source) -> Result<(), Breach> {
        let history = self.tenants[done.tenant].history.borrow();
        let mut allowed: Vec<String> = history.states[done.since..]
            .iter()
            .map(|state| state.answer(done.tenant, done.caller, done.query))
            .collect();
        allowed.dedup();
        self.tally.reads += 1;
        self.tally.memory += u64::from(source == Source::Memory);
        self.tally.disk += u64::from(source == Source::Disk);
        self.tally.bypassed += u64::from(source == Source::Bypass);
        if allowed.contains(&got) {
            return Ok(());
        }
        Err(Breach { step, caller: done.caller, got, allowed, source })
    }

    /// Cancels a read wherever it stands.
    fn cancel_one(&mut self) {
        if !self.reads.is_empty() {
            let at = self.draw(self.reads.len());
            self.reads.swap_remove(at);
        }
    }

    /// Commits, tells the cache, acknowledges: one of these per step.
    pub(super) fn move_writer(&mut self, tenant: usize) {
        let early = self.defect == Some(Defect::AcknowledgesBeforeObservers);
        match self.tenants[tenant].pending.take() {
            None => {
                let pending = self.commit(tenant);
                if early {
                    self.acknowledge(tenant);
                }
                self.tenants[tenant].pending = Some(pending);
            }
            Some(mut pending) if !pending.observed => {
                self.observe(tenant, &pending);
                pending.observed = true;
                self.tenants[tenant].pending = Some(pending);
            }
            Some(pending) => {
                self.acknowledge(tenant);
                self.answer_writer(tenant, pending);
            }
        }
    }

    /// The writer has its answer, made under the rule of its own transaction; the cache gets it some time later.
    fn answer_writer(&mut self, tenant: usize, pending: Pending) {
        let Pending { cache, began, touches, .. } = pending;
        let written = touches.iter().rev().find(|touched| touched.collection == truth::posts());
        let Some(n) = written.and_then(|touched| (0..RECORDS).find(|n| truth::record_id(*n) == touched.record)) else {
            return;
        };
        let state = self.latest(tenant);
        let user = self.draw(USERS + 1).checked_sub(1);
        let caller = Caller { user, admin: user.is_some_and(|user| state.admins[user]) };
        let through = Through { cache, began, state, caller, query: Query::Record(n) };
        self.tenants[tenant].throughs.push(through);
    }

    fn write_through(&mut self, tenant: usize) {
        let at = &mut self.tenants[tenant];
        for Through { cache, began, state, caller, query } in at.throughs.drain(..) {
            // Some callers look the cache up once more.
            let cache = if state.lsn % 2 == 0 { self.cache.tenant(&at.id) } else { cache };
            let key = key_of(cache.tenant(), state.rule, caller, query, self.defect);
            let dependencies = dependencies_of(state.rule, caller, query, self.defect);
            let policy = query.policy();
            let request = Request { began, key: &key, dependencies: &dependencies, policy: &policy, replay: None };
            cache.write_through(request, Loaded::json(state.answer(tenant, caller, query), state.lsn), state.lsn);
        }
    }

    pub(super) fn commit(&mut self, tenant: usize) -> Pending {
        let cache = self.cache.tenant(&self.tenants[tenant].id);
        let began = cache.begin();
        let mut next = self.latest(tenant);
        let (mut schema_changed, mut touches) = (false, Vec::new());
        for _ in 0..=self.draw(2) {
            self.values += 1;
            next.begin(self.values);
            match self.draw(16) {
                0 => {
                    next.set_rule(RULES[self.draw(RULES.len())]);
                    schema_changed = true;
                }
                1 | 2 => {
                    let user = self.draw(USERS);
                    let admin = !next.admins[user];
                    touches.push(next.set_admin(user, admin));
                }
                3 => touches.push(next.write(self.draw(RECORDS), None, false)),
                _ => {
                    let row = Row { value: self.values, partition: self.draw(PARTITIONS), owner: self.draw(USERS) };
                    let partly = self.defect == Some(Defect::MoveTellsNewPartitionAlone);
                    touches.push(next.write(self.draw(RECORDS), Some(row), partly));
                }
            }
        }
        self.tenants[tenant].history.borrow_mut().push(next);
        Pending { cache, began, schema_changed, touches, observed: false }
    }

    fn observe(&self, tenant: usize, pending: &Pending) {
        let at = &self.tenants[tenant];
        let state = self.latest(tenant);
        self.cache.on_commit(&CommitSummary {
            tenant: &at.id,
            lsn: state.lsn,
            mark: state.stamp(),
            schema_changed: pending.schema_changed,
            touches: &pending.touches,
        });
    }

    pub(super) fn acknowledge(&self, tenant: usize) {
        let mut history = self.tenants[tenant].history.borrow_mut();
        history.acknowledged = history.states.len() - 1;
    }

    pub(super) fn latest(&self, tenant: usize) -> State {
        self.tenants[tenant].history.borrow().states.last().unwrap().clone()
    }

    pub(super) fn settle(&mut self, tenant: usize) {
        while self.tenants[tenant].pending.is_some() {
            self.move_writer(tenant);
        }
    }

    /// Something outside the log changes, and a purge by tag says so.
    fn purge_external(&mut self, tenant: usize) {
        self.settle(tenant);
        let mut next = self.latest(tenant);
        self.values += 1;
        next.external = self.values;
        self.tenants[tenant].history.borrow_mut().push(next);
        let purge = match self.draw(4) {
            0 => Purge::All,
            1 => Purge::Collection(truth::posts()),
            2 => Purge::Event(Arc::from("external.changed")),
            _ => Purge::Tag(Arc::from("external")),
        };
        let handle = self.cache.tenant(&self.tenants[tenant].id);
        now(handle.purge(&purge));
        // A copy of the disk from before the purge is beyond what a purge can promise.
        for tenant in &mut self.tenants {
            tenant.copies.clear();
        }
        self.acknowledge(tenant);
    }

    pub(super) fn seed_of(&self, tenant: usize) -> tenantry::cache::stamp::Seed {
        let state = self.latest(tenant);
        let tail_after = match self.draw(3) {
            0 => state.lsn,
            1 => 0,
            _ => i64::try_from(self.draw(usize::try_from(state.lsn).unwrap() + 1)).unwrap(),
        };
        let mut seed = state.seed(tail_after);
        if self.defect == Some(Defect::SeedWithoutTail) {
            seed.tail.clear();
            seed.tail_after = 0;
        }
        seed
    }
}

pub(super) fn open(
    clock: &Arc<ManualClock>,
    disk: &SimDisk,
    memory_bytes_max: u64,
    (build, defect): (u64, Option<Defect>),
) -> Cache {
    let mutation = match defect {
        Some(Defect::Cache(mutation)) => Some(mutation),
        _ => None,
    };
    let clock = Arc::clone(clock) as _;
    let options = CacheOptions { clock, build, mutation, memory_bytes_max, ..CacheOptions::default() };
    Cache::with_disk(options, Arc::new(disk.clone()))
}
