//! Tests of the parent module.

use super::*;
use crate::cache::compress::Encoding;
use crate::cache::disk::{DiskRead, DiskStats, GroupUsage, IsDead};
use crate::cache::entry::Loaded;
use crate::cache::key::{CallerClass, Category, Key, KeyParts, Sub};
use crate::cache::purge::Purge;
use crate::cache::stamp::Dependencies;
use crate::kernel::clock::ManualClock;
use crate::kernel::ident::{CollectionId, RecordId};
use crate::schema::cache_policy::{Policy, Tier, TtlClass};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::atomic::AtomicUsize;

/// A disk tier in memory that outlives the cache over it.
#[derive(Debug, Default)]
pub(crate) struct TableDisk(Mutex<HashMap<Vec<u8>, Bytes>>, AtomicUsize);

impl DiskCache for TableDisk {
    fn get(&self, key: Vec<u8>) -> BoxFuture<'_, DiskRead> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let found = self.0.lock().get(&key).cloned();
        Box::pin(std::future::ready(found.map_or(DiskRead::Absent, DiskRead::Found)))
    }
    fn put(&self, key: Vec<u8>, value: Bytes) -> bool {
        self.0.lock().insert(key, value);
        true
    }
    fn put_surely(&self, key: Vec<u8>, value: Bytes) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(self.put(key, value)))
    }
    fn remove(&self, key: Vec<u8>) {
        self.0.lock().remove(&key);
    }
    fn remove_this(&self, key: Vec<u8>, value: Bytes) {
        let mut table = self.0.lock();
        if table.get(&key) == Some(&value) {
            table.remove(&key);
        }
    }
    fn sweep(&self, dead: IsDead) {
        self.0.lock().retain(|key, value| !dead(key, value));
    }
    fn discard(&self, _why: &str) {
        self.0.lock().clear();
    }
    fn stats(&self) -> DiskStats {
        DiskStats { state: DiskState::Ready, ..DiskStats::off() }
    }
    fn usage(&self, group: &[u8]) -> GroupUsage {
        let table = self.0.lock();
        let of_group = table.iter().filter(|(key, _)| key.starts_with(group)).map(|(_, value)| value.len() as u64);
        of_group.fold(GroupUsage::default(), |sum, len| GroupUsage { bytes: sum.bytes + len, entries: sum.entries + 1 })
    }
    fn close(&self) {}
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(crate) fn posts() -> CollectionId {
    CollectionId::parse("posts").unwrap()
}

pub(crate) fn list_key(tenant: &TenantId, plan: &str) -> Key {
    Key::new(tenant, Category::List, &posts(), Sub::Word("page"), &[plan.as_bytes()], &CallerClass::everyone())
}

pub(crate) fn request<'r>(
    world: &'r World,
    key: &'r Key,
    dependencies: &'r Dependencies,
    replay: Option<&'r Arc<[u8]>>,
) -> Request<'r> {
    let began = world.cache.tenant(key.tenant()).begin();
    Request { began, key, dependencies, policy: &world.policy, replay }
}

pub(crate) struct World {
    pub(crate) cache: Cache,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) policy: Policy,
}

impl World {
    pub(crate) fn new(memory_bytes_max: u64, disk: Arc<dyn DiskCache>) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let options = CacheOptions { memory_bytes_max, clock: Arc::clone(&clock) as _, ..CacheOptions::default() };
        Self { cache: Cache::with_disk(options, disk), clock, policy: Policy::default() }
    }

    pub(crate) async fn read(&self, key: &Key, body: &str) -> (String, Source) {
        let dependencies = Dependencies::new().collection(&posts());
        let request = request(self, key, &dependencies, None);
        let body = body.to_owned();
        let load = || async move { Ok::<_, ()>(Loaded::json(body, 0)) };
        let answer = self.cache.tenant(key.tenant()).get_or_load(request, load).await.unwrap();
        (String::from_utf8_lossy(answer.body()).into_owned(), answer.source())
    }

    pub(crate) fn commit(&self, tenant: &TenantId, lsn: i64) {
        let record = RecordId::parse("r1").unwrap();
        let touches = [Touched { collection: posts(), record, partitions: Vec::new(), lsn }];
        self.cache.on_commit(&CommitSummary { tenant, lsn, mark: lsn * 10, schema_changed: false, touches: &touches });
    }

    pub(crate) async fn expect(&self, key: &Key, body: &str, expected: &str, source: Source) {
        assert_eq!(self.read(key, body).await, (expected.to_owned(), source));
    }
}

pub(crate) fn memory_only() -> World {
    World::new(1 << 22, Arc::new(NoDisk))
}

#[tokio::test]
async fn hits_until_a_write_and_only_for_that_tenant() {
    let world = memory_only();
    let (a, b) = (list_key(&tenant("a"), "q"), list_key(&tenant("b"), "q"));
    world.expect(&a, "1", "1", Source::Miss).await;
    world.expect(&b, "x", "x", Source::Miss).await;
    world.expect(&a, "2", "1", Source::Memory).await;
    world.commit(a.tenant(), 1);
    world.expect(&a, "2", "2", Source::Miss).await;
    world.expect(&b, "y", "x", Source::Memory).await;
    let report = world.cache.stats();
    assert_eq!((report.total.l1_hits, report.total.misses, report.total.stale), (2, 3, 1));
    assert_eq!(report.total.entries, 2);
}

#[tokio::test]
async fn time_and_policy_bound_what_is_kept() {
    let mut world = memory_only();
    let key = list_key(&tenant("a"), "q");
    world.policy = Policy::of(TtlClass::Live);
    world.expect(&key, "1", "1", Source::Miss).await;
    world.clock.advance_ms(59_999);
    world.expect(&key, "2", "1", Source::Memory).await;
    world.clock.advance_ms(1);
    world.expect(&key, "2", "2", Source::Miss).await;
    world.policy = Policy { tier: Tier::Off, ..Policy::default() };
    world.expect(&key, "3", "3", Source::Bypass).await;
}

#[tokio::test]
async fn errors_are_not_kept_and_cost_the_next_reader_nothing() {
    let world = memory_only();
    let key = list_key(&tenant("a"), "q");
    let dependencies = Dependencies::new();
    let request = request(&world, &key, &dependencies, None);
    let failed = world.cache.tenant(key.tenant()).get_or_load(request, || async { Err::<Loaded, _>("no") }).await;
    assert_eq!(failed.map(|_| ()), Err("no"));
    world.expect(&key, "1", "1", Source::Miss).await;
}

#[tokio::test]
async fn a_thousand_concurrent_misses_are_one_load() {
    let world = memory_only();
    let key = list_key(&tenant("a"), "q");
    let (loads, gate) = (AtomicUsize::new(0), tokio::sync::Notify::new());
    let dependencies = Dependencies::new().collection(&posts());
    let request = request(&world, &key, &dependencies, None);
    let cache = world.cache.tenant(key.tenant());
    let readers = (0..1_000).map(|_| {
        cache.get_or_load(request, || async {
            loads.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
            Ok::<_, ()>(Loaded::json("one", 0))
        })
    });
    let all = futures_util::future::join_all(readers);
    let open = async {
        tokio::task::yield_now().await;
        gate.notify_one();
    };
    let (answers, ()) = tokio::join!(all, open);
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().body() == "one"));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(world.cache.stats().total.joined, 999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stampede_over_threads_is_one_load_too() {
    let world = Arc::new(memory_only());
    let loads = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..1_000)
        .map(|_| {
            let (world, loads) = (Arc::clone(&world), Arc::clone(&loads));
            tokio::spawn(async move {
                let key = list_key(&tenant("a"), "q");
                let dependencies = Dependencies::new().collection(&posts());
                let request = request(&world, &key, &dependencies, None);
                let load = || async {
                    loads.fetch_add(1, Ordering::SeqCst);
                    #[expect(clippy::disallowed_methods, reason = "a load that takes time")]
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, ()>(Loaded::json("one", 0))
                };
                world.cache.tenant(key.tenant()).get_or_load(request, load).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_cancelled_leader_hands_over_and_a_late_waiter_takes_nothing_older_than_itself() {
    let world = memory_only();
    let key = list_key(&tenant("a"), "q");
    let dependencies = Dependencies::new().collection(&posts());
    let request = request(&world, &key, &dependencies, None);
    let cache = world.cache.tenant(key.tenant());
    let mut stuck = Box::pin(cache.get_or_load(request, std::future::pending::<Result<Loaded, ()>>));
    assert!(futures_util::poll!(&mut stuck).is_pending());
    let mut waiting = Box::pin(cache.get_or_load(request, || async { Ok::<_, ()>(Loaded::json("second", 0)) }));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(stuck);
    assert_eq!(waiting.await.unwrap().body(), "second");

    world.commit(key.tenant(), 1);
    let request = Request { began: cache.begin(), ..request };
    let gate = tokio::sync::Notify::new();
    let mut old = Box::pin(cache.get_or_load(request, || async {
        gate.notified().await;
        Ok::<_, ()>(Loaded::json("before the write", 0))
    }));
    assert!(futures_util::poll!(&mut old).is_pending());
    world.commit(key.tenant(), 2);
    let request = Request { began: cache.begin(), ..request };
    let mut late = Box::pin(cache.get_or_load(request, || async { Ok::<_, ()>(Loaded::json("after the write", 0)) }));
    assert!(futures_util::poll!(&mut late).is_pending());
    gate.notify_one();
    assert_eq!(old.await.unwrap().body(), "before the write");
    assert_eq!(late.await.unwrap().body(), "after the write");
}

#[tokio::test]
async fn one_tenant_cannot_push_out_all_others() {
    let world = World::new(1 << 20, Arc::new(NoDisk));
    let quiet: Vec<Key> = (0..20).map(|n| list_key(&tenant("quiet"), &format!("q{n}"))).collect();
    for _ in 0..3 {
        for key in &quiet {
            world.read(key, &"q".repeat(500)).await;
        }
    }
    world.cache.maintain();
    for n in 0..3_000 {
        world.read(&list_key(&tenant("noisy"), &format!("n{n}")), &"n".repeat(2_000)).await;
        if n % 200 == 0 {
            for key in &quiet {
                world.read(key, &"q".repeat(500)).await;
            }
            world.cache.maintain();
        }
    }
    let report = world.cache.stats();
    let bytes = |name: &str| report.tenants.iter().find(|row| row.tenant.as_str() == name).unwrap().total.bytes;
    assert!(bytes("noisy") <= (1 << 20) / 2, "{}", bytes("noisy"));
    let kept = quiet.iter().filter(|key| world.cache.tenant(key.tenant()).get(key).is_some()).count();
    assert_eq!(kept, quiet.len());
}

#[tokio::test]
async fn memory_stays_within_its_bytes_and_reports_truthfully() {
    let world = World::new(1 << 20, Arc::new(NoDisk));
    for n in 0..2_000 {
        world.read(&list_key(&tenant("a"), &format!("n{n}")), &"n".repeat(n)).await;
    }
    let report = world.cache.stats();
    assert!(report.memory_bytes <= (1 << 20) + (1 << 16), "{}", report.memory_bytes);
    assert_eq!(report.memory_bytes, report.total.bytes);
    assert!(report.total.evictions > 0);
    let huge = list_key(&tenant("a"), "huge");
    world.expect(&huge, &"h".repeat(1 << 20), &"h".repeat(1 << 20), Source::Miss).await;
    assert_eq!(world.cache.stats().total.rejected, 1);
}

pub(crate) fn seed(lineage: u8, lsn: i64, posts_lsn: i64) -> Seed {
    Seed {
        lineage: [lineage; 16],
        lsn,
        marks: (1..=lsn).map(|lsn| stamp::Mark { lsn, stamp: lsn * 10 }).collect(),
        schema_lsn: 0,
        generations: vec![stamp::Generation { collection: posts(), partition: None, lsn: posts_lsn }],
        unlisted_lsn: 0,
        tail: Vec::new(),
        tail_after: lsn,
    }
}

#[tokio::test]
async fn a_restart_finds_on_disk_what_is_current_and_only_that() {
    let disk = Arc::new(TableDisk::default());
    let a = tenant("a");
    let key = list_key(&a, "q");
    let first = World::new(1 << 22, Arc::clone(&disk) as _);
    first.cache.attach(&a, &seed(1, 10, 10));
    first.expect(&key, "1", "1", Source::Miss).await;
    first.cache.close();

    for (seed, source) in [
        (seed(1, 10, 10), Source::Disk),
        (seed(1, 12, 10), Source::Disk),
        (seed(1, 12, 11), Source::Miss),
        (Seed::cold([1; 16], stamp::Mark { lsn: 12, stamp: 120 }), Source::Miss),
        (seed(2, 10, 10), Source::Miss),
        (seed(1, 9, 9), Source::Miss),
    ] {
        let copy = Arc::new(TableDisk(Mutex::new(disk.0.lock().clone()), AtomicUsize::new(0)));
        let world = World::new(1 << 22, copy);
        world.cache.attach(&a, &seed);
        let expected = if source == Source::Disk { "1" } else { "2" };
        world.expect(&key, "2", expected, source).await;
        world.expect(&key, "3", expected, Source::Memory).await;
    }
}

/// Every write made every next read ask the disk for an answer that could only be as old as the one memory had.
#[tokio::test]
async fn what_memory_knows_to_be_old_is_not_looked_for_on_disk() {
    let disk = Arc::new(TableDisk::default());
    let world = World::new(1 << 22, Arc::clone(&disk) as _);
    let key = list_key(&tenant("a"), "q");
    world.cache.attach(key.tenant(), &seed(1, 10, 5));
    world.expect(&key, "old", "old", Source::Miss).await;
    let asked = || disk.1.load(Ordering::Relaxed);
    let before = asked();
    assert!(before > 0, "nothing is known of a key that was never asked for");
    world.commit(key.tenant(), 11);
    world.expect(&key, "new", "new", Source::Miss).await;
    world.clock.advance_ms(world.policy.ttl_ms() + 1);
    world.expect(&key, "newer", "newer", Source::Miss).await;
    assert_eq!(asked(), before);
    assert_eq!((world.cache.stats().total.stale, world.cache.stats().total.expired), (1, 1));
}

/// A disk tier that takes few writes until somebody waits for it.
#[derive(Debug)]
pub(crate) struct NarrowDisk {
    table: TableDisk,
    room: AtomicUsize,
}

const NARROW_LEN: usize = 600;

impl NarrowDisk {
    /// One that takes `writes` before somebody waits.
    pub(crate) fn with_room(writes: usize) -> Self {
        Self { table: TableDisk::default(), room: AtomicUsize::new(writes) }
    }
}

impl DiskCache for NarrowDisk {
    fn get(&self, key: Vec<u8>) -> BoxFuture<'_, DiskRead> {
        self.table.get(key)
    }
    fn put(&self, key: Vec<u8>, value: Bytes) -> bool {
        let taken = self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(1)).is_ok();
        taken && self.table.put(key, value)
    }
    fn put_surely(&self, key: Vec<u8>, value: Bytes) -> BoxFuture<'_, bool> {
        self.table.put_surely(key, value)
    }
    fn remove(&self, key: Vec<u8>) {
        self.table.remove(key);
    }
    fn remove_this(&self, key: Vec<u8>, value: Bytes) {
        self.table.remove_this(key, value);
    }
    fn discard(&self, why: &str) {
        self.table.discard(why);
    }
    fn stats(&self) -> DiskStats {
        self.table.stats()
    }
    fn await_room(&self) -> bool {
        self.room.store(NARROW_LEN, Ordering::SeqCst);
        true
    }
    fn close(&self) {}
}

/// The first pass after a restart once found only two thirds on disk: closing handed over more answers at once than the
/// disk's queue takes, and what upkeep could not hand over was not tried again.
#[tokio::test]
async fn everything_reaches_a_disk_that_takes_little_at_a_time() {
    for closes in [true, false] {
        let disk = Arc::new(NarrowDisk::with_room(NARROW_LEN));
        let world = World::new(1 << 24, Arc::clone(&disk) as _);
        let a = tenant("a");
        world.cache.attach(&a, &seed(1, 10, 10));
        let keys: Vec<Key> = (0..3_000).map(|n| list_key(&a, &format!("q{n}"))).collect();
        for key in &keys {
            world.expect(key, "1", "1", Source::Miss).await;
            world.expect(key, "2", "1", Source::Memory).await;
        }
        if closes {
            world.cache.close();
        } else {
            for _ in 0..8 {
                world.cache.maintain();
                disk.await_room();
            }
        }
        let next = World::new(1 << 24, disk);
        next.cache.attach(&a, &seed(1, 10, 10));
        for key in &keys {
            next.expect(key, "2", "1", Source::Disk).await;
        }
    }
}

#[tokio::test]
async fn what_was_written_after_a_rollback_is_not_mistaken_for_what_was_before() {
    let disk = Arc::new(TableDisk::default());
    let a = tenant("a");
    let key = list_key(&a, "q");
    let run = |seed: Seed, body: &'static str, commits: std::ops::RangeInclusive<i64>| {
        let (disk, key, a) = (Arc::clone(&disk), key.clone(), a.clone());
        async move {
            let world = World::new(1 << 22, disk);
            world.cache.attach(&a, &seed);
            let (_, source) = world.read(&key, body).await;
            commits.for_each(|lsn| world.commit(&a, lsn));
            world.cache.close();
            source
        }
    };
    #[expect(clippy::reversed_empty_ranges, reason = "no commits")]
    let none = 1..=0;
    assert_eq!(run(seed(1, 100, 90), "of the future", none.clone()).await, Source::Miss);
    // An older copy of the file, same history by its own account, is written past the position of that answer.
    assert_eq!(run(seed(1, 80, 80), "restored", 81..=95).await, Source::Miss);
    assert_eq!(run(seed(1, 150, 95), "now", none).await, Source::Miss);
}

#[tokio::test]
async fn commits_before_and_during_attach_are_not_lost() {
    let world = World::new(1 << 22, Arc::new(TableDisk::default()));
    let a = tenant("a");
    let key = list_key(&a, "q");
    let early = world.cache.tenant(&a);
    world.expect(&key, "1", "1", Source::Miss).await;
    world.commit(&a, 11);
    world.cache.attach(&a, &seed(1, 10, 9));
    assert!(early.get(&key).is_none(), "a handle from before only loads");
    world.expect(&key, "2", "2", Source::Miss).await;
    world.cache.attach(&a, &seed(1, 11, 11));
    world.expect(&key, "3", "2", Source::Memory).await;
    world.cache.detach(&a);
    world.cache.attach(&a, &seed(1, 11, 11));
    world.expect(&key, "3", "2", Source::Memory).await;
    world.cache.detach(&a);
    world.cache.attach(&a, &seed(1, 13, 12));
    world.expect(&key, "3", "3", Source::Miss).await;
    world.cache.reset(&a, &seed(2, 5, 5));
    world.expect(&key, "4", "4", Source::Miss).await;
    assert_eq!(world.cache.stats().memory_entries, 1, "the replaced file's answers are gone");
    world.cache.forget(&a);
    assert_eq!(world.cache.stats().memory_entries, 0);
}

/// A tenant that was closed and is opened again by a reader and a writer at once: the file was read before the commit, and
/// what the commit aged was believed on disk.
#[tokio::test]
async fn a_commit_beside_the_description_of_a_file_that_opens_again_is_not_lost() {
    let world = World::new(1 << 22, Arc::new(TableDisk::default()));
    let a = tenant("a");
    let key = list_key(&a, "q");
    world.cache.attach(&a, &seed(1, 10, 10));
    world.expect(&key, "1", "1", Source::Miss).await;
    for (_, held) in world.cache.0.memory.all() {
        world.cache.0.persist(&held);
    }
    world.cache.detach(&a);
    let described = seed(1, 10, 10);
    world.commit(&a, 11);
    world.cache.attach(&a, &described);
    world.expect(&key, "2", "2", Source::Miss).await;
    world.commit(&a, 12);
    world.expect(&key, "3", "3", Source::Miss).await;
}

#[tokio::test]
async fn purges_reach_memory_disk_and_loads_under_way() {
    let disk = Arc::new(TableDisk::default());
    let (a, b) = (tenant("a"), tenant("b"));
    let (key, other, foreign) = (list_key(&a, "q"), list_key(&a, "other"), list_key(&b, "q"));
    let visible = KeyParts { digest: None, ..KeyParts::parse(&key.to_string()).unwrap() };
    for (purge, other_goes) in [
        (Purge::All, true),
        (Purge::Collection(posts()), true),
        (Purge::Tag(Arc::from("news")), true),
        (Purge::Event(Arc::from("paid")), true),
        (Purge::Key(visible), true),
        (Purge::Key(KeyParts::parse(&key.to_string()).unwrap()), false),
    ] {
        disk.0.lock().clear();
        let mut world = World::new(1 << 22, Arc::clone(&disk) as _);
        world.policy.tags.push(Arc::from("news"));
        world.policy.events.push(Arc::from("paid"));
        for tenant in [&a, &b] {
            world.cache.attach(tenant, &seed(1, 10, 10));
        }
        for key in [&key, &other, &foreign] {
            world.expect(key, "1", "1", Source::Miss).await;
        }
        for (_, held) in world.cache.0.memory.all() {
            world.cache.0.persist(&held);
        }
        world.cache.tenant(&a).purge(&purge).await;
        world.expect(&foreign, "2", "1", Source::Memory).await;
        if !other_goes {
            world.expect(&other, "2", "1", Source::Memory).await;
        }
        world.expect(&key, "2", "2", Source::Miss).await;
        // A restart after the purge, with what the disk held at that moment.
        let again = World::new(1 << 22, Arc::clone(&disk) as _);
        again.cache.attach(&a, &seed(1, 10, 10));
        let (body, source) = again.read(&key, "3").await;
        assert_ne!(body, "1", "{purge:?}");
        assert_eq!(source, Source::Miss, "{purge:?}");
    }
}

#[tokio::test]
async fn a_hit_allocates_nothing() {
    let world = World::new(1 << 20, Arc::new(TableDisk::default()));
    let (acme, body) = (tenant("acme"), "the same again, ".repeat(200));
    let key = list_key(&acme, "a");
    world.expect(&key, &body, &body, Source::Miss).await;
    let place = world.cache.tenant(&acme).place(&key);
    let hit = || {
        let answer = place.find(world.clock.now_ms()).expect("it is in memory");
        (answer.body().clone(), answer.coded(Encoding::Brotli).expect("it shrinks"))
    };
    // The first hit encodes, and makes of both bodies what can be shared.
    assert_eq!(hit().0, body);
    let found = allocation_counter::measure(|| (0..100).for_each(|_| drop(hit())));
    assert_eq!((found.count_total, found.bytes_total), (0, 0));
    let made = allocation_counter::measure(|| drop(std::hint::black_box(body.clone())));
    assert_eq!(made.count_total, 1, "what is measured can be seen");
}

#[tokio::test]
async fn write_through_answers_the_next_read_and_ends_with_the_next_write() {
    let world = memory_only();
    let a = tenant("a");
    let key = list_key(&a, "q");
    let dependencies = Dependencies::new().collection(&posts());
    let request = request(&world, &key, &dependencies, None);
    world.commit(&a, 5);
    world.cache.tenant(&a).write_through(request, Loaded::json("written", 0), 5);
    world.expect(&key, "loaded", "written", Source::Memory).await;
    world.commit(&a, 6);
    world.expect(&key, "loaded", "loaded", Source::Miss).await;
}

#[tokio::test]
async fn verification_notices_an_answer_that_is_wrong() {
    let clock = Arc::new(ManualClock::new(0));
    let options = CacheOptions { verify_every: 1, clock, ..CacheOptions::default() };
    let mut world = memory_only();
    world.cache = Cache::with_disk(options, Arc::new(NoDisk));
    let key = list_key(&tenant("a"), "q");
    world.expect(&key, "1", "1", Source::Miss).await;
    world.expect(&key, "1", "1", Source::Memory).await;
    world.expect(&key, "changed behind the log", "changed behind the log", Source::Bypass).await;
    let total = world.cache.stats().total;
    assert_eq!((total.verified, total.mismatches), (2, 1));

    let replay: Arc<[u8]> = Arc::from(&b"q"[..]);
    let dependencies = Dependencies::new();
    let request = request(&world, &key, &dependencies, Some(&replay));
    let load = || async { Ok::<_, ()>(Loaded::json("kept", 0)) };
    world.cache.tenant(key.tenant()).reload(request, load).await.unwrap();
    let equal = world.cache.verify(None, 10, |_| async { Ok((Bytes::from_static(b"kept"), 0)) }).await;
    assert_eq!((equal.equal, equal.different.len()), (1, 0));
    let different = world.cache.verify(None, 10, |_| async { Ok((Bytes::from_static(b"else"), 0)) }).await;
    assert_eq!(different.different, [key.to_string()]);
}

#[tokio::test]
async fn hot_keys_are_learned_kept_over_a_restart_and_filled_by_priority() {
    let disk = Arc::new(TableDisk::default());
    let a = tenant("a");
    let dependencies = Dependencies::new().collection(&posts());
    let keys: Vec<Key> = (0..3).map(|n| list_key(&a, &format!("q{n}"))).collect();
    {
        let world = World::new(1 << 22, Arc::clone(&disk) as _);
        world.cache.attach(&a, &seed(1, 10, 10));
        for (n, key) in keys.iter().enumerate() {
            let replay: Arc<[u8]> = Arc::from([u8::try_from(n).unwrap()]);
            let request = request(&world, key, &dependencies, Some(&replay));
            for _ in 0..=n * 3 + 1 {
                let load = || async { Ok::<_, ()>(Loaded::json("x", 0)) };
                world.cache.tenant(&a).get_or_load(request, load).await.unwrap();
            }
        }
        world.cache.maintain();
        world.cache.close();
    }
    let world = World::new(1 << 22, Arc::clone(&disk) as _);
    world.cache.attach(&a, &seed(1, 10, 10));
    world.expect(&keys[1], "y", "x", Source::Disk).await;
    let hot = world.cache.hot_keys_of_last_run().await.unwrap();
    let asked = Mutex::new(Vec::new());
    let refill = |hot: warm::HotKey| {
        asked.lock().push(hot.replay[0]);
        std::future::ready(warm::Refill::Filled)
    };
    let report = world.cache.warm(hot, Duration::from_millis(5), refill).await;
    assert_eq!((report.filled, report.present, report.failed), (2, 1, 0));
    assert_eq!(*asked.lock(), [2, 0]);
}
