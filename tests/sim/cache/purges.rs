//! Purges while the disk has trouble: what the log cannot know must hold after restarts too.

use super::disk::{SimDisk, Trouble};
use super::reader::now;
use super::truth::{State, posts};
use std::sync::Arc;
use tenantry::cache::entry::Loaded;
use tenantry::cache::key::{CallerClass, Category, Key, Sub};
use tenantry::cache::mutation::Mutation;
use tenantry::cache::purge::Purge;
use tenantry::cache::stamp::Dependencies;
use tenantry::cache::{Cache, CacheOptions, Request};
use tenantry::kernel::clock::ManualClock;
use tenantry::kernel::ident::TenantId;
use tenantry::schema::cache_policy::Policy;

/// What is noticed here.
pub(super) const MUTATIONS: &[Mutation] = &[Mutation::PurgeOrderIgnored];

/// One tenant whose file stands still, over a disk that outlives processes.
struct Node {
    clock: Arc<ManualClock>,
    disk: SimDisk,
    cache: Cache,
    mutation: Option<Mutation>,
}

fn tenant() -> TenantId {
    TenantId::parse("t0").unwrap()
}

impl Node {
    fn new(mutation: Option<Mutation>) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let disk = SimDisk::default();
        Self { cache: open(&clock, &disk, mutation), clock, disk, mutation }
    }

    fn restart(self) -> Self {
        let Self { clock, disk, cache, mutation } = self;
        cache.close();
        clock.advance_ms(1);
        Self { cache: open(&clock, &disk, mutation), clock, disk, mutation }
    }

    /// The answer, which is `truth` if it has to be loaded.
    fn ask(&self, truth: &str) -> String {
        now(self.read(truth))
    }

    async fn read(&self, truth: &str) -> String {
        let cache = self.cache.tenant(&tenant());
        let key = Key::new(&tenant(), Category::List, &posts(), Sub::Word("page"), &[b"q"], &CallerClass::everyone());
        let dependencies = Dependencies::new().collection(&posts());
        let policy = Policy { tags: vec![Arc::from("front")], ..Policy::default() };
        let began = cache.begin();
        let request = Request { began, key: &key, dependencies: &dependencies, policy: &policy, replay: None };
        let load = || async { Ok::<_, ()>(Loaded::json(truth.to_owned(), 0)) };
        let answer = cache.get_or_load(request, load).await.unwrap();
        String::from_utf8_lossy(answer.body()).into_owned()
    }

    fn purge(&self, tag: &str) {
        self.clock.advance_ms(1);
        now(self.cache.tenant(&tenant()).purge(&Purge::Tag(Arc::from(tag))));
    }
}

fn open(clock: &Arc<ManualClock>, disk: &SimDisk, mutation: Option<Mutation>) -> Cache {
    let options = CacheOptions { clock: Arc::clone(clock) as _, mutation, ..CacheOptions::default() };
    let cache = Cache::with_disk(options, Arc::new(disk.clone()));
    cache.attach(&tenant(), &State::new([7; 16]).seed(0));
    cache
}

#[test]
fn an_answer_on_disk_is_there_after_a_restart_until_it_is_purged() {
    let node = Node::new(None);
    assert_eq!(node.ask("old"), "old");
    let node = node.restart();
    assert_eq!(node.ask("new"), "old", "kept on disk");
    node.purge("front");
    assert_eq!(node.ask("new"), "new");
    assert_eq!(node.restart().ask("newer"), "new");
}

/// Whether a purge is still in force after a restart, if so many reads of the disk failed around it.
fn holds(failing_reads: usize) -> bool {
    // A purge of something else, so that what is kept has a count of its own.
    let node = Node::new(None);
    node.purge("other");
    assert_eq!(node.ask("old"), "old");
    let node = node.restart();
    node.disk.set(Trouble { failing_reads, ..Trouble::default() });
    node.purge("front");
    node.disk.set(Trouble::default());
    node.ask("new") == "new" && node.restart().ask("new") == "new"
}

/// Whether an answer that was made after such a purge is forgotten by the next one.
fn is_followed(failing_reads: usize) -> bool {
    let node = Node::new(None);
    node.disk.set(Trouble { failing_reads, ..Trouble::default() });
    node.purge("front");
    node.disk.set(Trouble::default());
    assert_eq!(node.ask("old"), "old");
    let node = node.restart();
    node.purge("front");
    node.ask("new") == "new"
}

/// Whether a purge holds that could not be counted after those that the disk keeps, while a reader learned of them.
fn holds_beside_a_reader(mutation: Option<Mutation>) -> bool {
    let node = Node::new(mutation);
    node.purge("other");
    assert_eq!(node.ask("old"), "old");
    let node = node.restart();
    node.disk.set(Trouble { failing_reads: 1, slow: true, ..Trouble::default() });
    let (cache, purge) = (node.cache.tenant(&tenant()), Purge::Tag(Arc::from("front")));
    // The purge asks the disk first, in vain; the reader waits behind it and is told.
    now(futures_util::future::join(cache.purge(&purge), node.read("old")));
    drop(cache);
    node.disk.set(Trouble::default());
    node.ask("new") == "new" && node.restart().ask("new") == "new"
}

#[test]
fn a_purge_holds_though_the_disk_could_not_say_what_was_purged_before() {
    for failing_reads in 1..5 {
        assert!(holds(failing_reads), "{failing_reads} reads failed");
    }
}

#[test]
fn an_answer_made_after_such_a_purge_is_forgotten_by_the_next_one() {
    for failing_reads in 1..5 {
        assert!(is_followed(failing_reads), "{failing_reads} reads failed");
    }
}

#[test]
fn a_purge_holds_beside_a_reader_who_learns_what_was_purged_before() {
    assert!(holds_beside_a_reader(None));
    for mutation in MUTATIONS {
        assert!(!holds_beside_a_reader(Some(*mutation)), "{mutation:?} went unnoticed");
    }
}
