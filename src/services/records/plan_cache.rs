//! Plans are made once per text: the bounded memory of parsed, resolved and rendered questions.
//!
//! Keeps true: a plan is handed out only for the very schema it was made from, so a changed or restored tenant never
//! meets an old plan; at most `2 × SHARDS × SHARD_LEN_MAX` plans exist.
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
/// Plans in the young half of a shard.
const SHARD_LEN_MAX: usize = limits::PLAN_CACHE_LEN / 4;

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
}

#[derive(Debug)]
struct Entry<P> {
    schema: Arc<Schema>,
    plan: Arc<P>,
}

impl<K: Hash + Eq, P> PlanCache<K, P> {
    pub(super) fn new() -> Self {
        let shards =
            (0..SHARDS).map(|_| RwLock::new(Generations { young: HashMap::new(), old: HashMap::new() })).collect();
        Self { shards, hasher: RandomState::new() }
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
        shard.write().keep(key, Entry { schema: Arc::clone(schema), plan: Arc::clone(&plan) });
        Ok(plan)
    }

    fn shard(&self, key: &K) -> Option<&RwLock<Generations<K, P>>> {
        let hash = self.hasher.hash_one(key);
        self.shards.get(usize::try_from(hash % SHARDS as u64).unwrap_or(0))
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

    fn keep(&mut self, key: K, entry: Entry<P>) {
        if self.young.len() >= SHARD_LEN_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn made(cache: &PlanCache<u32, u32>, schema: &Arc<Schema>, key: u32) -> bool {
        let mut made = false;
        let plan = cache.get_or_make::<Infallible>(schema, key, || {
            made = true;
            Ok(key)
        });
        assert_eq!(plan.map(|plan| *plan), Ok(key));
        made
    }

    #[test]
    fn a_plan_is_made_once_per_schema() {
        let cache = PlanCache::new();
        let (first, second) = (Arc::new(Schema::new(1, vec![])), Arc::new(Schema::new(1, vec![])));
        assert!(made(&cache, &first, 1));
        assert!(!made(&cache, &first, 1));
        assert!(made(&cache, &second, 1), "another schema with the same version is another schema");
    }

    #[test]
    fn the_memory_is_bounded() {
        let cache = PlanCache::new();
        let schema = Arc::new(Schema::new(1, vec![]));
        let count = u32::try_from(SHARD_LEN_MAX * SHARDS * 4).expect("small");
        for key in 0..count {
            made(&cache, &schema, key);
        }
        let held: usize = cache.shards.iter().map(|shard| shard.read().young.len() + shard.read().old.len()).sum();
        assert!(held <= 2 * SHARDS * SHARD_LEN_MAX);
        assert!(!made(&cache, &schema, count - 1), "the youngest stays");
    }
}
