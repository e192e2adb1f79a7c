//! The key-value store over both tiers: values, counters, locks, quotas, restarts.

use super::*;
use crate::cache::CacheOptions;
use crate::cache::tests::{NarrowDisk, TableDisk};
use crate::kernel::clock::ManualClock;
use proptest::prelude::*;
use std::collections::HashMap;

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn store() -> TenantStore {
    TenantStore::new(Bounds { keys_max: 4, bytes_max: 2_000, value_bytes_max: 1_000, locks_max: 2 })
}

#[test]
fn values_live_as_long_as_they_were_given() {
    let mut store = store();
    assert_eq!(store.set("a", bytes("1"), Some(10), SetIf::Always, 0), Ok(true));
    assert_eq!(store.set("a", bytes("2"), None, SetIf::Absent, 9), Ok(false));
    assert_eq!(store.ttl_ms("a", 9), Some(Some(1)));
    assert_eq!(store.get("a", 9), Some(bytes("1")));
    assert_eq!(store.get("a", 10), None);
    assert_eq!(store.set("a", bytes("2"), None, SetIf::Present, 10), Ok(false));
    assert_eq!(store.set("a", bytes("2"), None, SetIf::Absent, 10), Ok(true));
    assert_eq!(store.ttl_ms("a", 1_000_000), Some(None));
    assert!(store.delete("a", 11) && !store.delete("a", 11));
    assert_eq!(store.usage(), Usage::default());
}

#[test]
fn counters_count_and_refuse_what_is_no_number() {
    let mut store = store();
    assert_eq!(store.increment("n", 5, Some(100), 0), Ok(5));
    assert_eq!(store.increment("n", -7, Some(100), 50), Ok(-2));
    assert_eq!(store.ttl_ms("n", 50), Some(Some(50)), "the first TTL stays");
    store.set("t", bytes("word"), None, SetIf::Always, 0).unwrap();
    assert_eq!(store.increment("t", 1, None, 0), Err(KvError::NotANumber));
    store.set("m", bytes(&i64::MAX.to_string()), None, SetIf::Always, 0).unwrap();
    let over = KvError::Overflow { present: i64::MAX, delta: 1 };
    assert_eq!(store.increment("m", 1, None, 0), Err(over));
}

#[test]
fn what_was_used_longest_ago_leaves_first_and_expired_before_it() {
    let mut store = store();
    for key in ["a", "b", "c", "d"] {
        store.set(key, bytes("x"), None, SetIf::Always, 0).unwrap();
    }
    store.get("a", 0);
    store.set("e", bytes("x"), None, SetIf::Always, 0).unwrap();
    assert_eq!((store.get("a", 0).is_some(), store.get("b", 0)), (true, None));
    store.set("c", bytes("x"), Some(5), SetIf::Always, 0).unwrap();
    store.set("f", bytes("x"), None, SetIf::Always, 6).unwrap();
    assert_eq!((store.get("c", 6), store.get("d", 6).is_some()), (None, true));
    let large = bytes(&"y".repeat(1_001));
    assert!(matches!(store.set("g", large, None, SetIf::Always, 6), Err(KvError::ValueTooLarge { .. })));
    for key in ["", "line\nbreak", &"k".repeat(251)] {
        assert_eq!(store.set(key, bytes("x"), None, SetIf::Always, 6), Err(KvError::KeyInvalid));
    }
    assert_eq!(store.set("g", bytes("x"), Some(0), SetIf::Always, 6), Err(KvError::TtlInvalid { ms: 0 }));
}

#[test]
fn locks_exclude_expire_and_fence() {
    let mut store = store();
    let first = store.acquire("job", "me", 100, 1_000).unwrap();
    assert_eq!(store.acquire("job", "you", 100, 1_050), Err(KvError::LockHeld { remaining_ms: 50 }));
    assert_eq!(store.acquire("job", "me", 100, 1_050).unwrap(), Lease { fence: first.fence, expires_ms: 1_150 });
    assert_eq!(store.release("job", "you", 1_060), Err(KvError::LeaseOver));
    assert_eq!(store.renew("job", "me", 100, 1_150), Err(KvError::LeaseOver));
    let second = store.acquire("job", "you", 100, 1_150).unwrap();
    assert!(second.fence > first.fence);
    store.release("job", "you", 1_160).unwrap();
    let restarted = TenantStore::new(Bounds::default()).acquire("job", "x", 1, 1_161).unwrap();
    assert!(restarted.fence > second.fence, "fences rise over a restart that forgot everything");
    store.acquire("a", "t", 100, 1_200).unwrap();
    store.acquire("b", "t", 100, 1_200).unwrap();
    assert_eq!(store.acquire("c", "t", 100, 1_200), Err(KvError::TooManyLocks));
    assert!(store.acquire("c", "t", 100, 1_300).is_ok());
}

#[tokio::test]
async fn an_orderly_stop_keeps_values_a_crash_keeps_none_and_tenants_stay_apart() {
    let disk = Arc::new(TableDisk::default());
    let clock = Arc::new(ManualClock::new(1_000));
    let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
    let open = || {
        let options = CacheOptions { clock: Arc::clone(&clock) as _, ..CacheOptions::default() };
        Cache::with_disk(options, Arc::clone(&disk) as _).kv(KvOptions::default())
    };
    let kv = open();
    kv.tenant(&a).set("k", bytes("of a"), None, SetIf::Always).unwrap();
    kv.tenant(&a).set("gone", bytes("x"), Some(10), SetIf::Always).unwrap();
    let set: &[_] = &[("m1", bytes("1"), None), ("m2", bytes("2"), Some(1_000))];
    kv.tenant(&a).batch(Batch { set, ..Batch::default() }).unwrap();
    let refused: &[_] = &[("m1", bytes("9"), None), ("", bytes("2"), None)];
    let batch = Batch { delete: &["m1"], set: refused, get: &[] };
    assert_eq!(
        kv.tenant(&a).batch(batch).map_err(|(_, refused)| refused),
        Err(KvError::KeyInvalid),
        "and nothing is deleted"
    );
    let found = kv.tenant(&a).batch(Batch { get: &["m1", "m2", "no"], ..Batch::default() }).unwrap().found;
    assert_eq!(found, [Some(bytes("1")), Some(bytes("2")), None]);
    assert_eq!(kv.tenant(&b).get("k"), None);
    for n in 0..3 {
        kv.tenant(&b).set(&format!("large{n}"), bytes(&"x".repeat(250_000)), None, SetIf::Always).unwrap();
    }
    kv.save();
    clock.advance_ms(20);
    let next = open();
    assert_eq!(next.restore().await, 6);
    assert_eq!((next.tenant(&a).get("k"), next.tenant(&a).get("gone")), (Some(bytes("of a")), None));
    assert_eq!(next.tenant(&a).find("m2"), Some((bytes("2"), Some(980))));
    assert_eq!(next.tenant(&b).get("large2").map(|value| value.len()), Some(250_000));
    next.tenant(&a).set("k", bytes("newer"), None, SetIf::Always).unwrap();
    // No save: a crash.
    let after = open();
    assert_eq!(after.restore().await, 0);
    assert_eq!(after.tenant(&a).get("k"), None, "empty rather than old");
}

/// A clock of which every look takes a millisecond.
#[derive(Debug, Default)]
struct Ticking(std::sync::atomic::AtomicI64);

impl crate::kernel::clock::Clock for Ticking {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

/// Value and time were looked up one after the other; of a value that ended in between it was said that it never ends.
#[test]
fn a_value_and_the_time_it_has_left_are_of_one_moment() {
    let kv = Kv::in_memory(KvOptions::default(), Arc::new(Ticking::default())).tenant(&tenant_ids(1)[0]);
    for ttl_ms in 1..9 {
        kv.set("k", bytes("v"), Some(ttl_ms), SetIf::Always).unwrap();
        let left: Vec<_> = std::iter::from_fn(|| kv.find("k").map(|(_, left)| left)).collect();
        assert_eq!(left, (1..ttl_ms).rev().map(Some).collect::<Vec<_>>());
    }
}

fn tenant_ids(count: usize) -> Vec<TenantId> {
    (0..count).map(|n| TenantId::parse(&format!("t{n}")).unwrap()).collect()
}

/// Stores in memory that may hold `bytes_max` together.
fn shared(bytes_max: usize) -> Kv {
    let options = KvOptions { bytes_max, ..KvOptions::default() };
    Kv::in_memory(options, Arc::new(ManualClock::new(1_000)))
}

#[test]
fn all_tenants_together_stay_within_the_nodes_bytes_and_whoever_was_used_longest_ago_gives_way() {
    let kv = shared(64 * 1024);
    let tenants = tenant_ids(100);
    for tenant in &tenants {
        // In use all the time, beside each of the others.
        kv.tenant(&tenants[0]).get("k");
        kv.tenant(tenant).set("k", bytes(&"x".repeat(2_000)), None, SetIf::Always).unwrap();
        assert!(kv.stats().usage.bytes <= 64 * 1024, "{:?}", kv.stats());
    }
    assert!(kv.tenant(&tenants[0]).get("k").is_some() && kv.tenant(&tenants[99]).get("k").is_some());
    assert_eq!(kv.tenant(&tenants[1]).get("k"), None);
    assert!(kv.stats().usage.evictions > 50);
}

#[test]
fn stores_with_nothing_in_them_are_let_go_and_a_handle_never_writes_into_one() {
    let clock = Arc::new(ManualClock::new(1_000));
    let kv = Kv::in_memory(KvOptions::default(), Arc::clone(&clock) as _);
    let tenants = tenant_ids(50);
    for tenant in &tenants {
        kv.tenant(tenant).set("k", bytes("x"), Some(10), SetIf::Always).unwrap();
    }
    kv.tenant(&tenants[0]).acquire("job", "me", 1_000).unwrap();
    let handle = kv.tenant(&tenants[1]);
    clock.advance_ms(20);
    kv.maintain();
    assert_eq!(kv.stats().tenants, 2, "one with a lock, one with a handle");
    handle.set("late", bytes("y"), None, SetIf::Always).unwrap();
    drop(handle);
    kv.maintain();
    assert_eq!(kv.tenant(&tenants[1]).get("late"), Some(bytes("y")));
    clock.advance_ms(1_000);
    kv.tenant(&tenants[1]).delete("late");
    kv.maintain();
    assert_eq!((kv.stats().tenants, kv.stats().usage.bytes), (0, 0));
}

#[test]
fn locks_outlast_values_under_pressure_and_one_too_many_for_the_node_is_refused() {
    let kv = shared(2_000);
    let tenants = tenant_ids(3);
    kv.tenant(&tenants[0]).set("k", bytes(&"x".repeat(500)), None, SetIf::Always).unwrap();
    let mut granted = 0;
    let refused = loop {
        match kv.tenant(&tenants[granted % 3]).acquire(&format!("lock{granted}"), "me", 1_000) {
            Ok(_) => granted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((refused, granted), (KvError::TooManyLocks, 14));
    assert_eq!(kv.tenant(&tenants[0]).get("k"), None, "values gave way");
    let again = kv.tenant(&tenants[0]).acquire("lock0", "me", 1_000);
    assert!(again.is_ok(), "what is held can be prolonged");
    assert!(kv.stats().usage.bytes <= 2_000);
}

#[tokio::test]
async fn a_stop_waits_for_the_disk_instead_of_dropping_a_tenant() {
    let disk = Arc::new(NarrowDisk::with_room(3));
    let open = || Cache::with_disk(CacheOptions::default(), Arc::clone(&disk) as _).kv(KvOptions::default());
    let kv = open();
    let tenants = tenant_ids(20);
    for tenant in &tenants {
        kv.tenant(tenant).set("k", bytes("x"), None, SetIf::Always).unwrap();
    }
    kv.save();
    let next = open();
    assert_eq!(next.restore().await, 20);
}

proptest! {
    /// Against a plain map without bounds: whatever is found is the latest, and bounds hold.
    #[test]
    fn the_store_agrees_with_a_map_and_keeps_its_bounds(
        steps in prop::collection::vec((0_u8..5, 0_u8..8, 0_usize..600, prop::option::of(1_i64..50), 0_i64..20), 1..200),
    ) {
        let mut store = store();
        let mut model: HashMap<String, (Bytes, Option<i64>)> = HashMap::new();
        let mut now_ms = 0;
        for (what, key, len, ttl_ms, pass) in steps {
            now_ms += pass;
            let key = format!("k{key}");
            model.retain(|_, (_, expires)| expires.is_none_or(|at| at > now_ms));
            match what {
                0 | 1 => {
                    let value = Bytes::from(vec![b'v'; len]);
                    prop_assert_eq!(store.set(&key, value.clone(), ttl_ms, SetIf::Always, now_ms), Ok(true));
                    model.insert(key, (value, ttl_ms.map(|ttl| now_ms + ttl)));
                }
                2 => {
                    let deleted = store.delete(&key, now_ms);
                    prop_assert!(model.remove(&key).is_some() || !deleted);
                }
                _ => {
                    if let Some(found) = store.get(&key, now_ms) {
                        prop_assert_eq!(Some(&found), model.get(&key).map(|(value, _)| value));
                    }
                }
            }
            let Usage { keys, bytes, .. } = store.usage();
            prop_assert!(keys <= 4 && bytes <= 2_000, "{} keys, {} bytes", keys, bytes);
        }
    }

    #[test]
    fn noise_on_disk_is_read_without_harm(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        saved::parse_manifest(&noise);
        saved::load_block(&Bytes::from(noise), &mut store(), 0);
    }
}
