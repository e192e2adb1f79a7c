//! What upkeep removes, keeps and hands over; and a tenant's share of the disk.

use crate::cache::disk::{DiskCache, DiskRead, DiskStats, GroupUsage};
use crate::cache::entry::Loaded;
use crate::cache::persist;
use crate::cache::stamp::Dependencies;
use crate::cache::tests::{TableDisk, World, list_key, memory_only, posts, request, seed, tenant};
use crate::cache::{Cache, CacheOptions, CommitSummary, Source, warm};
use crate::kernel::clock::ManualClock;
use crate::kernel::ident::TenantId;
use crate::schema::cache_policy::Policy;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// A list was written by an orderly stop alone; a node that was killed started without one.
#[tokio::test]
async fn hot_keys_outlive_a_kill_and_a_start_that_nobody_visits() {
    let disk = Arc::new(TableDisk::default());
    let a = tenant("a");
    let (key, dependencies) = (list_key(&a, "q"), Dependencies::new().collection(&posts()));
    let replay: Arc<[u8]> = Arc::from(&b"r"[..]);
    let world = World::new(1 << 22, Arc::clone(&disk) as _);
    for _ in 0..3 {
        let load = || async { Ok::<_, ()>(Loaded::json("x", 0)) };
        world.cache.tenant(&a).get_or_load(request(&world, &key, &dependencies, Some(&replay)), load).await.unwrap();
    }
    // Aged by a write before upkeep looks: it was asked for all the same.
    world.commit(&a, 1);
    world.cache.maintain();
    assert!(World::new(1 << 22, Arc::clone(&disk) as _).cache.hot_keys_of_last_run().await.unwrap().is_empty());
    world.clock.advance_ms(60_000);
    world.cache.maintain();
    for _ in 0..2 {
        // Each of these is killed in turn, a minute after its start.
        let next = World::new(1 << 22, Arc::clone(&disk) as _);
        let hot = next.cache.hot_keys_of_last_run().await.unwrap();
        assert_eq!(hot.iter().map(|hot| hot.key.clone()).collect::<Vec<_>>(), [key.to_string()]);
        next.clock.advance_ms(60_000);
        next.cache.maintain();
    }
    // A process that ends in good order before it has looked, as a command of the administrator's may, leaves the list alone.
    World::new(1 << 22, Arc::clone(&disk) as _).cache.close();
    let hot = World::new(1 << 22, Arc::clone(&disk) as _).cache.hot_keys_of_last_run().await.unwrap();
    assert_eq!(hot.len(), 1);
}

/// An answer that one release got wrong was served by the next one, from disk, for as long as nothing it was made from changed.
#[tokio::test]
async fn what_another_build_of_the_program_left_on_disk_is_not_served_and_what_was_hot_is_known() {
    let disk = Arc::new(TableDisk::default());
    let a = tenant("a");
    let (key, dependencies) = (list_key(&a, "q"), Dependencies::new().collection(&posts()));
    let replay: Arc<[u8]> = Arc::from(&b"r"[..]);
    for (build, expected, source) in [
        (1, "of 1", Source::Miss),
        (1, "of 1", Source::Disk),
        (2, "of 2", Source::Miss),
        (2, "of 2", Source::Disk),
        // Back to the one before, whose answers may be older than what the newer one wrote since.
        (1, "of 1", Source::Miss),
    ] {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let options = CacheOptions { build, clock: Arc::clone(&clock) as _, ..CacheOptions::default() };
        let cache = Cache::with_disk(options, Arc::clone(&disk) as _);
        cache.attach(&a, &seed(1, 10, 10));
        let known = cache.hot_keys_of_last_run().await.unwrap();
        let world = World { cache, clock, policy: Policy::default() };
        let load = || async move { Ok::<_, ()>(Loaded::json(format!("of {build}"), 0)) };
        let handle = world.cache.tenant(&a);
        let answer = handle.get_or_load(request(&world, &key, &dependencies, Some(&replay)), load).await.unwrap();
        assert_eq!((&answer.body()[..], answer.source()), (expected.as_bytes(), source), "build {build}");
        assert!(handle.get(&key).is_some());
        world.cache.maintain();
        assert_eq!(world.cache.hot_keys().len(), 1);
        assert!(known.len() == 1 || build == 1, "the list of what is hot goes on from build to build");
        world.cache.close();
    }
}

/// Hits from just before a change of the schema brought the question back under the key of before, beside the one of now.
#[tokio::test]
async fn a_question_that_moved_does_not_come_back_under_its_old_key() {
    let world = memory_only();
    let a = tenant("a");
    let (old, new, dependencies) = (list_key(&a, "old"), list_key(&a, "new"), Dependencies::new().collection(&posts()));
    let replay: Arc<[u8]> = Arc::from(&b"r"[..]);
    for _ in 0..2 {
        for _ in 0..3 {
            let load = || async { Ok::<_, ()>(Loaded::json("x", 0)) };
            let request = request(&world, &old, &dependencies, Some(&replay));
            world.cache.tenant(&a).get_or_load(request, load).await.unwrap();
        }
        if world.cache.hot_keys().is_empty() {
            world.cache.maintain();
        }
    }
    let moved = |_| std::future::ready(warm::Refill::Moved(new.clone(), Arc::clone(&replay)));
    world.commit(&a, 1);
    assert_eq!(world.cache.warm(world.cache.hot_keys(), Duration::ZERO, moved).await.filled, 1);
    world.cache.maintain();
    let hot = world.cache.hot_keys();
    assert_eq!(hot.iter().map(|hot| (&*hot.key, hot.score)).collect::<Vec<_>>(), [(&*new.to_string(), 5.0)]);
}

#[tokio::test]
async fn upkeep_takes_what_is_stale_or_expired_out_of_memory() {
    let world = memory_only();
    let (a, b, c) = (tenant("a"), tenant("b"), tenant("c"));
    for tenant in [&a, &b] {
        world.expect(&list_key(tenant, "q"), "1", "1", Source::Miss).await;
    }
    world.commit(&a, 1);
    world.cache.maintain();
    let report = world.cache.stats();
    assert_eq!((report.memory_entries, report.total.swept), (1, 1));
    world.clock.advance_ms(300_000);
    world.expect(&list_key(&c, "q"), "1", "1", Source::Miss).await;
    world.cache.maintain();
    let report = world.cache.stats();
    assert_eq!((report.memory_entries, report.total.swept), (1, 2));
    world.expect(&list_key(&c, "q"), "2", "1", Source::Memory).await;
}

/// A tenant was let go at the moment of its closing or never, and every commit of one that nobody reads made a part.
#[tokio::test]
async fn tenants_that_hold_nothing_are_let_go_and_their_numbers_stay_in_the_sums() {
    let world = memory_only();
    let tenants: Vec<TenantId> = (0..20).map(|n| tenant(&format!("t{n}"))).collect();
    for tenant in &tenants {
        world.commit(tenant, 1);
    }
    assert_eq!(world.cache.stats().tenants.len(), 0, "nobody has asked for them");
    for tenant in &tenants {
        let handle = world.cache.tenant(tenant);
        world.cache.attach(tenant, &seed(1, 10, 10));
        world.expect(&list_key(tenant, "q"), "1", "1", Source::Miss).await;
        drop(handle);
        world.cache.detach(tenant);
    }
    let report = world.cache.stats();
    assert_eq!(report.tenants.len(), 20);
    assert!(report.stamp_bytes > 20 * 128, "{}", report.stamp_bytes);
    let kept = world.cache.tenant(&tenants[0]);
    world.clock.advance_ms(300_000);
    world.cache.maintain();
    let report = world.cache.stats();
    assert_eq!((report.tenants.len(), report.memory_entries), (1, 0), "one has a handle");
    assert_eq!(report.total.misses, 20);
    // Whoever has a handle while the file is described misses no commit.
    world.commit(&tenants[0], 11);
    world.cache.attach(&tenants[0], &seed(1, 10, 10));
    assert!(!kept.is_same(&world.cache.tenant(&tenants[0])), "its position had moved on");
}

#[tokio::test]
async fn one_tenant_cannot_fill_the_disk_of_all_and_alone_it_may() {
    for beside_others in [false, true] {
        let disk = Arc::new(TableDisk::default());
        let options = CacheOptions { disk_bytes_max: 200_000, ..CacheOptions::default() };
        let world = World { cache: Cache::with_disk(options, Arc::clone(&disk) as _), ..memory_only() };
        let (loud, quiet) = (tenant("loud"), tenant("quiet"));
        for tenant in [&loud, &quiet] {
            world.cache.attach(tenant, &seed(1, 10, 10));
        }
        if beside_others {
            world.expect(&list_key(&quiet, "q"), "1", "1", Source::Miss).await;
        }
        for n in 0..100 {
            let key = list_key(&loud, &format!("n{n}"));
            for _ in 0..2 {
                world.read(&key, &"n".repeat(1_000)).await;
            }
        }
        // The first round counts who is active, the second keeps what was wanted.
        world.cache.maintain();
        world.cache.maintain();
        if !beside_others {
            assert_eq!(world.cache.stats().total.disk_refused, 0);
            continue;
        }
        let loud_before = world.cache.stats().tenants[0].disk;
        for n in 100..200 {
            let key = list_key(&loud, &format!("n{n}"));
            for _ in 0..2 {
                world.read(&key, &"n".repeat(1_000)).await;
            }
        }
        world.read(&list_key(&quiet, "q"), "1").await;
        world.cache.maintain();
        let report = world.cache.stats();
        assert_eq!(report.total.disk_refused, 100);
        world.cache.maintain();
        assert_eq!(world.cache.stats().total.disk_refused, 100, "each is counted once, however often it is tried");
        assert_eq!(report.tenants[0].disk, loud_before, "{report:?}");
        assert_eq!((report.tenants[1].tenant.as_str(), report.tenants[1].disk.entries), ("quiet", 1));
    }
}

#[tokio::test]
async fn an_answer_that_is_met_stale_or_expired_on_disk_is_removed_there() {
    let disk = Arc::new(TableDisk::default());
    let a = tenant("a");
    let (stale, expired) = (list_key(&a, "stale"), list_key(&a, "expired"));
    let first = World::new(1 << 22, Arc::clone(&disk) as _);
    first.cache.attach(&a, &seed(1, 10, 10));
    for key in [&stale, &expired] {
        first.expect(key, "1", "1", Source::Miss).await;
    }
    first.cache.close();
    let next = World::new(1 << 22, Arc::clone(&disk) as _);
    next.cache.attach(&a, &seed(1, 12, 11));
    assert_eq!(next.cache.stats().tenants[0].disk.entries, 2);
    next.expect(&stale, "2", "2", Source::Miss).await;
    assert_eq!(next.cache.stats().tenants[0].disk.entries, 1);
    let later = World::new(1 << 22, Arc::clone(&disk) as _);
    later.clock.advance_ms(300_000);
    later.cache.attach(&a, &seed(1, 10, 10));
    later.expect(&expired, "2", "2", Source::Miss).await;
    assert_eq!(later.cache.stats().tenants[0].disk.entries, 0);
}

/// What was over its share kept the answer of yesterday on disk, and so the room for those of today.
#[tokio::test]
async fn an_answer_that_finds_no_room_on_disk_takes_the_older_one_of_its_key_away() {
    let disk = Arc::new(TableDisk::default());
    let options = CacheOptions { disk_bytes_max: 20_000, ..CacheOptions::default() };
    let world = World { cache: Cache::with_disk(options, Arc::clone(&disk) as _), ..memory_only() };
    let (loud, quiet) = (tenant("loud"), tenant("quiet"));
    for tenant in [&loud, &quiet] {
        world.cache.attach(tenant, &seed(1, 10, 10));
    }
    let keys = [list_key(&loud, "a"), list_key(&loud, "b")];
    world.expect(&list_key(&quiet, "q"), "1", "1", Source::Miss).await;
    for key in &keys {
        for _ in 0..2 {
            world.read(key, &"1".repeat(3_000)).await;
        }
    }
    world.cache.maintain();
    assert_eq!(world.cache.stats().tenants[0].disk.entries, 2, "more than its share of 5,000 bytes now");
    world.commit(&loud, 11);
    for _ in 0..2 {
        world.read(&keys[0], &"2".repeat(3_000)).await;
    }
    world.cache.maintain();
    let report = world.cache.stats();
    assert_eq!((report.tenants[0].disk.entries, report.total.disk_refused), (1, 1));
    world.cache.maintain();
    let next = World { cache: Cache::with_disk(CacheOptions::default(), Arc::clone(&disk) as _), ..memory_only() };
    next.cache.attach(&loud, &seed(1, 11, 11));
    // Where the older one stood, there was room for it in the next round.
    next.expect(&keys[0], "3", &"2".repeat(3_000), Source::Disk).await;
}

/// What a change of the schema, a restored file or time had voided went on counting against its tenant's part of the disk
/// until the whole tier was started afresh: nobody asks for it again.
#[tokio::test]
async fn answers_that_serve_nobody_any_more_leave_the_disk_and_make_room_there() {
    let disk = Arc::new(TableDisk::default());
    let (loud, quiet) = (tenant("loud"), tenant("quiet"));
    let of = |world: &World, name: &str| {
        let report = world.cache.stats();
        report.tenants.iter().find(|row| row.tenant.as_str() == name).map_or(0, |row| row.disk.entries)
    };
    let fill = async |world: &World, version: &str| {
        for key in ["a", "b"].map(|plan| list_key(&loud, &format!("{plan}{version}"))) {
            for _ in 0..2 {
                world.read(&key, &version.repeat(3_000)).await;
            }
        }
        for _ in 0..2 {
            world.read(&list_key(&quiet, "q"), "1").await;
        }
        world.cache.maintain();
        world.clock.advance_ms(15_000);
        world.cache.maintain();
    };
    let open = || {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let options =
            CacheOptions { clock: Arc::clone(&clock) as _, disk_bytes_max: 20_000, ..CacheOptions::default() };
        World { cache: Cache::with_disk(options, Arc::clone(&disk) as _), clock, policy: Policy::default() }
    };
    let world = open();
    for tenant in [&loud, &quiet] {
        world.cache.attach(tenant, &seed(1, 10, 10));
    }
    fill(&world, "1").await;
    assert_eq!((of(&world, "loud"), of(&world, "quiet")), (2, 1), "more than a quarter now");
    // A change of the schema: the same questions have other keys by now.
    let change = CommitSummary { tenant: &loud, lsn: 11, mark: 110, schema_changed: true, touches: &[] };
    world.cache.on_commit(&change);
    fill(&world, "2").await;
    assert_eq!((of(&world, "loud"), of(&world, "quiet")), (2, 1));
    world.cache.close();
    // Another history of the file.
    let world = open();
    world.cache.attach(&loud, &seed(2, 11, 11));
    world.cache.attach(&quiet, &seed(1, 10, 10));
    fill(&world, "3").await;
    assert_eq!((of(&world, "loud"), of(&world, "quiet")), (2, 1));
    for version in ["2", "3"] {
        let next = open();
        next.cache.attach(&loud, &seed(2, 11, 11));
        let source = if version == "3" { Source::Disk } else { Source::Miss };
        assert_eq!(next.read(&list_key(&loud, &format!("a{version}")), "new").await.1, source, "{version}");
    }
    // Time, and nobody who asks.
    world.clock.advance_ms(300_000);
    world.cache.maintain();
    assert_eq!((of(&world, "loud"), of(&world, "quiet")), (0, 0));
}

/// A disk on which somebody else keeps a newer answer while an old one is read.
#[derive(Debug, Default)]
struct BusyDisk(TableDisk);

const NEWER: Bytes = Bytes::from_static(b"newer");

impl DiskCache for BusyDisk {
    fn get(&self, key: Vec<u8>) -> BoxFuture<'_, DiskRead> {
        Box::pin(async move {
            let found = self.0.get(key.clone()).await;
            if persist::group_of(&key).is_some() && matches!(found, DiskRead::Found(_)) {
                self.0.put(key, NEWER);
            }
            found
        })
    }
    fn put(&self, key: Vec<u8>, value: Bytes) -> bool {
        self.0.put(key, value)
    }
    fn put_surely(&self, key: Vec<u8>, value: Bytes) -> BoxFuture<'_, bool> {
        self.0.put_surely(key, value)
    }
    fn remove(&self, key: Vec<u8>) {
        self.0.remove(key);
    }
    fn remove_this(&self, key: Vec<u8>, value: Bytes) {
        self.0.remove_this(key, value);
    }
    fn discard(&self, why: &str) {
        self.0.discard(why);
    }
    fn stats(&self) -> DiskStats {
        self.0.stats()
    }
    fn usage(&self, group: &[u8]) -> GroupUsage {
        self.0.usage(group)
    }
    fn close(&self) {}
}

#[tokio::test]
async fn an_answer_that_is_kept_while_an_old_one_is_read_from_disk_stays() {
    let disk = Arc::new(BusyDisk::default());
    let a = tenant("a");
    let first = World::new(1 << 22, Arc::clone(&disk) as _);
    first.cache.attach(&a, &seed(1, 10, 10));
    first.expect(&list_key(&a, "q"), "1", "1", Source::Miss).await;
    first.cache.close();
    let next = World::new(1 << 22, Arc::clone(&disk) as _);
    next.cache.attach(&a, &seed(1, 12, 11));
    next.expect(&list_key(&a, "q"), "2", "2", Source::Miss).await;
    let left = next.cache.stats().tenants[0].disk;
    assert_eq!((left.entries, left.bytes), (1, NEWER.len() as u64));
}

/// The list of what was hot names its questions. After the last tenant that had any was deleted it stayed on disk.
#[tokio::test]
async fn a_deleted_tenant_leaves_the_list_of_hot_keys() {
    for (first_asks, reads) in [(true, false), (false, true), (false, false)] {
        let disk = Arc::new(TableDisk::default());
        let (a, replay): (_, Arc<[u8]>) = (tenant("a"), Arc::from(&b"who"[..]));
        let ask = async |world: &World| {
            world.cache.attach(&a, &seed(1, 10, 10));
            let (key, dependencies) = (list_key(&a, "q"), Dependencies::new().collection(&posts()));
            for _ in 0..5 {
                let load = || async { Ok::<_, ()>(Loaded::json("x", 0)) };
                let request = request(world, &key, &dependencies, Some(&replay));
                world.cache.tenant(&a).get_or_load(request, load).await.unwrap();
            }
            world.cache.maintain();
        };
        let names_it = async || match disk.get(b"w".to_vec()).await {
            DiskRead::Found(list) => list.windows(3).any(|text| text == b"who"),
            _ => false,
        };
        let mut world = World::new(1 << 22, Arc::clone(&disk) as _);
        ask(&world).await;
        world.cache.close();
        assert!(names_it().await);
        if !first_asks {
            world = World::new(1 << 22, Arc::clone(&disk) as _);
            world.cache.close();
            assert!(names_it().await, "a process that ends before it has read the list leaves it");
        }
        if reads {
            assert_eq!(world.cache.hot_keys_of_last_run().await.unwrap().len(), 1);
        }
        world.cache.forget(&a);
        if !first_asks && !reads {
            assert!(world.cache.hot_keys_of_last_run().await.unwrap().is_empty(), "gone before it was read");
        }
        world.cache.close();
        assert!(!names_it().await, "{first_asks} {reads}");
    }
}
