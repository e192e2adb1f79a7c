//! The world around the cache: tenants, writers, readers, a clock and a seed that decides what happens next.
//!
//! A read is right if some state between the last one acknowledged before it began and the last one committed before it
//! ended gives exactly its bytes to exactly its caller.

use super::disk::{DiskTally, SimDisk, Table, Trouble};
use super::reader::{self, Asking, Manner, dependencies_of, key_of, now};
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
use tenantry::schema::cache_policy::Policy;

const TENANTS: usize = 2;
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

/// What happened in a run that went well.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) reads: u64,
    pub(super) memory: u64,
    pub(super) disk: u64,
    pub(super) joined: u64,
    /// Answers that a worker remembered the way to.
    pub(super) remembered: u64,
    pub(super) bypassed: u64,
    pub(super) verified: u64,
    pub(super) evicted: u64,
    pub(super) mismatches: u64,
    pub(super) failed_reads: u64,
    pub(super) refused_writes: u64,
    pub(super) uncertain_writes: u64,
    pub(super) lost_writes: u64,
    pub(super) discards: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.reads += other.reads;
        self.memory += other.memory;
        self.disk += other.disk;
        self.joined += other.joined;
        self.remembered += other.remembered;
        self.bypassed += other.bypassed;
        self.verified += other.verified;
        self.evicted += other.evicted;
        self.mismatches += other.mismatches;
        self.failed_reads += other.failed_reads;
        self.refused_writes += other.refused_writes;
        self.uncertain_writes += other.uncertain_writes;
        self.lost_writes += other.lost_writes;
        self.discards += other.discards;
    }

    /// What one process of the cache counted itself.
    fn add_cache(&mut self, cache: &Cache) {
        let total = cache.stats().total;
        self.joined += total.joined;
        self.verified += total.verified;
        self.mismatches += total.mismatches;
        self.evicted += total.evictions;
    }

    fn add_disk(&mut self, disk: DiskTally) {
        self.failed_reads += disk.failed_reads;
        self.refused_writes += disk.refused_writes;
        self.uncertain_writes += disk.uncertain_writes;
        self.lost_writes += disk.lost_writes;
        self.discards += disk.discards;
    }
}

/// The history of one tenant: every state that was ever current, in order.
pub(super) struct History {
    pub(super) states: Vec<State>,
    /// Index of the last state whose writer was answered.
    acknowledged: usize,
}

impl History {
    /// A further state.
    fn push(&mut self, state: State) {
        self.states.push(state);
    }

    pub(super) fn rule(&self) -> (Rule, i64) {
        self.states.last().map(|state| (state.rule, state.schema_lsn)).unwrap()
    }
}

struct Tenant {
    id: TenantId,
    history: Rc<RefCell<History>>,
    /// A write that is committed and not yet acknowledged.
    pending: Option<Pending>,
    /// Answers that acknowledged writers made and have not handed to the cache yet.
    throughs: Vec<Through>,
    /// Copies of the disk tier that an operator might put back.
    copies: Vec<Table>,
    /// Reads that a worker goes on answering without looking anything up but the account behind them.
    remembered: Vec<Remembered>,
}

struct Remembered {
    cache: TenantCache,
    key: Key,
    caller: Caller,
    query: Query,
}

/// What a writer answered at its own position, to be kept as what a reader of that position would be answered.
struct Through {
    cache: TenantCache,
    began: Began,
    state: State,
    caller: Caller,
    query: Query,
}

struct Pending {
    /// The cache of the tenant and where it stood before the write was queued.
    cache: TenantCache,
    began: Began,
    schema_changed: bool,
    touches: Vec<Touched>,
    observed: bool,
}

struct Reading {
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

struct World {
    random: SeededRandom,
    clock: Arc<ManualClock>,
    disk: SimDisk,
    /// Bytes of memory of the cache: plenty, or so few that answers are driven out all the time.
    memory_bytes: u64,
    cache: Cache,
    tenants: Vec<Tenant>,
    reads: Vec<Reading>,
    defect: Option<Defect>,
    values: u64,
    lineages: u8,
    tally: Tally,
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
    world.tally.add_disk(world.disk.tally());
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
            cache: open(&clock, &disk, memory_bytes, defect),
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

    fn draw(&self, bound: usize) -> usize {
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
    fn move_writer(&mut self, tenant: usize) {
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
            let policy = Policy::default();
            let request = Request { began, key: &key, dependencies: &dependencies, policy: &policy, replay: None };
            cache.write_through(request, Loaded::json(state.answer(tenant, caller, query), state.lsn), state.lsn);
        }
    }

    fn commit(&mut self, tenant: usize) -> Pending {
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

    fn acknowledge(&self, tenant: usize) {
        let mut history = self.tenants[tenant].history.borrow_mut();
        history.acknowledged = history.states.len() - 1;
    }

    fn latest(&self, tenant: usize) -> State {
        self.tenants[tenant].history.borrow().states.last().unwrap().clone()
    }

    fn settle(&mut self, tenant: usize) {
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
        let purge = match self.draw(3) {
            0 => Purge::All,
            1 => Purge::Collection(truth::posts()),
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

    /// The file is closed for idleness and opened again.
    fn reopen(&mut self, tenant: usize) {
        self.settle(tenant);
        let id = self.tenants[tenant].id.clone();
        self.cache.detach(&id);
        self.cache.attach(&id, &self.seed_of(tenant));
    }

    /// An older state of the file is restored while the node runs; that starts a new history.
    fn restore(&mut self, tenant: usize) {
        self.settle(tenant);
        let mut next = self.older(tenant);
        self.lineages += 1;
        next.lineage = [self.lineages; 16];
        self.tenants[tenant].history.borrow_mut().push(next);
        let seed = self.seed_of(tenant);
        self.cache.reset(&self.tenants[tenant].id.clone(), &seed);
        self.acknowledge(tenant);
    }

    fn older(&self, tenant: usize) -> State {
        let history = self.tenants[tenant].history.borrow();
        let at = self.draw(history.states.len());
        // External things are not in the file and do not go back with it.
        State { external: history.states.last().unwrap().external, ..history.states[at].clone() }
    }

    fn copy_disk(&mut self) {
        let copy = self.disk.copy();
        let tenant = self.draw(TENANTS);
        self.tenants[tenant].copies.push(copy);
    }

    /// The disk has trouble of some kind for a while, or none any more.
    fn trouble_disk(&mut self) {
        let trouble = match self.draw(6) {
            0 => Trouble { failing_reads: 1 + self.draw(3), ..Trouble::default() },
            1 => Trouble { room: Some(self.draw(4)), ..Trouble::default() },
            2 => Trouble { uncertain: true, ..Trouble::default() },
            3 => return self.disk.start_anew(),
            _ => Trouble::default(),
        };
        self.disk.set(trouble);
    }

    /// Loses or damages what is on disk; while the process is down, an older copy may also be put back.
    fn disturb_disk(&mut self, down: bool) {
        let copies: Vec<Table> = self.tenants.iter().flat_map(|tenant| tenant.copies.clone()).collect();
        match self.draw(7) {
            0 => self.disk.replace(Table::new()),
            4 => self.disk.misfile(|bound| self.draw(bound)),
            1 if down && !copies.is_empty() => self.disk.replace(copies[self.draw(copies.len())].clone()),
            2 | 3 => self.disk.flip(|bound| self.draw(bound)),
            _ => {}
        }
    }

    /// The process ends, in an orderly way or not, and starts again, perhaps over an older or restored file.
    fn restart(&mut self) {
        self.reads.clear();
        if self.draw(2) == 0 {
            for tenant in 0..TENANTS {
                self.settle(tenant);
            }
            self.cache.close();
        } else {
            self.disk.cut_power(|bound| self.draw(bound));
        }
        for tenant in 0..TENANTS {
            self.tenants[tenant].throughs.clear();
            self.tenants[tenant].remembered.clear();
            // A crash between commit and observer: the commit stands. Nobody was told, everybody may see it.
            if self.tenants[tenant].pending.take().is_some() {
                self.acknowledge(tenant);
            }
        }
        self.disturb_disk(true);
        for tenant in 0..TENANTS {
            match self.draw(8) {
                0 => self.roll_back(tenant),
                1 => {
                    let mut next = self.older(tenant);
                    self.lineages += 1;
                    next.lineage = [self.lineages; 16];
                    self.tenants[tenant].history.borrow_mut().push(next);
                    self.acknowledge(tenant);
                }
                _ => {}
            }
        }
        self.tally.add_cache(&self.cache);
        self.disk.set(Trouble::default());
        self.cache = open(&self.clock, &self.disk, self.memory_bytes, self.defect);
        self.attach_all();
    }

    /// Somebody copied a file from another time, or another future, into place by hand: its history claims to go on.
    fn roll_back(&mut self, tenant: usize) {
        let present = self.latest(tenant);
        let mut history = self.tenants[tenant].history.borrow_mut();
        let same: Vec<&State> = history.states.iter().filter(|state| state.lineage == present.lineage).collect();
        let next = State { external: present.external, ..same[self.draw(same.len())].clone() };
        history.push(next);
        drop(history);
        self.acknowledge(tenant);
    }

    fn attach_all(&mut self) {
        for tenant in 0..TENANTS {
            self.cache.attach(&self.tenants[tenant].id.clone(), &self.seed_of(tenant));
        }
    }

    fn seed_of(&self, tenant: usize) -> tenantry::cache::stamp::Seed {
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

fn open(clock: &Arc<ManualClock>, disk: &SimDisk, memory_bytes_max: u64, defect: Option<Defect>) -> Cache {
    let mutation = match defect {
        Some(Defect::Cache(mutation)) => Some(mutation),
        _ => None,
    };
    let clock = Arc::clone(clock) as _;
    let options = CacheOptions { clock, mutation, memory_bytes_max, ..CacheOptions::default() };
    Cache::with_disk(options, Arc::new(disk.clone()))
}
