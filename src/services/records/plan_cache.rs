//! Plans are made once per text: the bounded memory of parsed, resolved and rendered questions.
//!
//! Keeps true: a plan is handed out only for the very schema it was made from, so a changed or restored tenant never
//! meets an old plan; the plans kept weigh at most [`limits::PLAN_CACHE_BYTES_MAX`] together, those of one owner a quarter
//! of that, so that nobody's many different questions push out everybody's plans.
//! Does not do: answers. Plans hold no rows and no caller's values.
//!
//! Shared by every request of the node. A lookup takes one of 16 read locks, a new plan one write lock; nothing is
//! computed under either. Eviction is by generation: when the young half is full, the old half is dropped.

use crate::kernel::limits;
use crate::schema::Schema;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

const SHARDS: usize = 16;
/// Shards over which the plans of one owner are spread.
const SHARDS_PER_OWNER: u64 = SHARDS as u64 / 4;
/// Bytes of plans in one half of a shard.
const HALF_BYTES_MAX: usize = limits::PLAN_CACHE_BYTES_MAX / (2 * SHARDS);

/// What plans are found by.
pub(super) trait PlanKeyed: Hash + Eq {
    /// Whose plan it is.
    fn owner(&self) -> &str;
}

/// How much memory something takes, about.
pub(super) trait Weighed {
    /// Bytes, what it points at included.
    fn weight(&self) -> usize;
}

/// Plans of type `P` by keys of type `K`.
#[derive(Debug)]
pub(super) struct PlanCache<K, P> {
    shards: Vec<RwLock<Generations<K, P>>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Generations<K, P> {
    young: HashMap<K, Entry<P>>,
    old: HashMap<K, Entry<P>>,
    young_bytes: usize,
}

#[derive(Debug)]
struct Entry<P> {
    schema: Arc<Schema>,
    plan: Arc<P>,
}

impl<K: PlanKeyed + Weighed, P: Weighed> PlanCache<K, P> {
    pub(super) fn new() -> Self {
        let empty = || Generations { young: HashMap::new(), old: HashMap::new(), young_bytes: 0 };
        Self { shards: (0..SHARDS).map(|_| RwLock::new(empty())).collect(), hasher: RandomState::new() }
    }

    /// The plan for `key` under `schema`, made by `make` when there is none.
    pub(super) fn get_or_make<E>(
        &self,
        schema: &Arc<Schema>,
        key: K,
        make: impl FnOnce() -> Result<P, E>,
    ) -> Result<Arc<P>, E> {
        let Some(shard) = self.shard(&key) else { return make().map(Arc::new) };
        if let Some(plan) = shard.read().find(schema, &key) {
            return Ok(plan);
        }
        let plan = Arc::new(make()?);
        let bytes = key.weight().saturating_add(plan.weight());
        // One plan that would fill a shard is made again where it is asked for again.
        if bytes <= HALF_BYTES_MAX {
            shard.write().keep(key, Entry { schema: Arc::clone(schema), plan: Arc::clone(&plan) }, bytes);
        }
        Ok(plan)
    }

    fn shard(&self, key: &K) -> Option<&RwLock<Generations<K, P>>> {
        let (owner, own) = (self.hasher.hash_one(key.owner()), self.hasher.hash_one(key));
        let at = (owner % SHARDS as u64 + own % SHARDS_PER_OWNER) % SHARDS as u64;
        self.shards.get(usize::try_from(at).unwrap_or(0))
    }
}

impl<K: Hash + Eq, P> Generations<K, P> {
    fn find(&self, schema: &Arc<Schema>, key: &K) -> Option<Arc<P>> {
        self.young
            .get(key)
            .or_else(|| self.old.get(key))
            .filter(|entry| Arc::ptr_eq(&entry.schema, schema))
            .map(|entry| Arc::clone(&entry.plan))
    }

    fn keep(&mut self, key: K, entry: Entry<P>, bytes: usize) {
        if self.young_bytes.saturating_add(bytes) > HALF_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        // A plan that takes the place of another is counted twice until the half is dropped: never too little.
        self.young_bytes += bytes;
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Whose plan, which, and how heavy.
    #[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
    struct Key(&'static str, u32, usize);

    impl PlanKeyed for Key {
        fn owner(&self) -> &str {
            self.0
        }
    }

    impl Weighed for Key {
        fn weight(&self) -> usize {
            self.2
        }
    }

    impl Weighed for u32 {
        fn weight(&self) -> usize {
            0
        }
    }

    fn made(cache: &PlanCache<Key, u32>, schema: &Arc<Schema>, key: Key) -> bool {
        let mut made = false;
        let plan = cache.get_or_make::<Infallible>(schema, key, || {
            made = true;
            Ok(key.1)
        });
        assert_eq!(plan.map(|plan| *plan), Ok(key.1));
        made
    }

    fn held(cache: &PlanCache<Key, u32>) -> usize {
        let weight = |half: &HashMap<Key, Entry<u32>>| half.keys().map(|key| key.2).sum::<usize>();
        cache.shards.iter().map(|shard| weight(&shard.read().young) + weight(&shard.read().old)).sum()
    }

    #[test]
    fn a_plan_is_made_once_per_schema() {
        let cache = PlanCache::new();
        let (first, second) = (Arc::new(Schema::new(1, vec![])), Arc::new(Schema::new(1, vec![])));
        let key = Key("a", 1, 100);
        assert!(made(&cache, &first, key));
        assert!(!made(&cache, &first, key));
        assert!(made(&cache, &second, key), "another schema with the same version is another schema");
    }

    #[test]
    fn the_memory_is_bounded_and_shared_out() {
        let cache = PlanCache::new();
        let schema = Arc::new(Schema::new(1, vec![]));
        let heavy = HALF_BYTES_MAX / 3;
        made(&cache, &schema, Key("small", 0, 100));
        let rest = |key: &Key| key.0 == "small";
        for number in 0..1_000 {
            made(&cache, &schema, Key("loud", number, heavy));
            assert!(held(&cache) <= limits::PLAN_CACHE_BYTES_MAX / 4 + 100, "{number}");
        }
        assert!(!made(&cache, &schema, Key("loud", 999, heavy)), "the youngest stays");
        let shards_in_use = cache.shards.iter().filter(|shard| shard.read().young.keys().any(|key| !rest(key))).count();
        assert!(shards_in_use <= 4, "{shards_in_use}");
        assert!(made(&cache, &schema, Key("huge", 0, HALF_BYTES_MAX + 1)));
        assert!(made(&cache, &schema, Key("huge", 0, HALF_BYTES_MAX + 1)), "what would fill a shard is not kept");
    }
}
