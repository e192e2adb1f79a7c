//! Which tenants there are, in memory: read on every request, changed only after the control database has committed.
//!
//! Keeps true: a lookup takes no lock and never sees half an entry; a slug or host leads to an entry only while that entry
//! itself claims it, so the moments inside a rename show either the old or the new name, never a stranger.
//! Does not do: persistence, deciding on changes.

use crate::kernel::ident::{TenantId, TenantSlug};
use crate::services::budget::TenantLimits;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a tenant is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TenantState {
    /// Its file is being made; not addressable yet.
    Creating,
    /// It answers.
    Active,
    /// It answers nobody but superusers' administrative requests.
    Suspended,
    /// Its file is being removed; not addressable any more.
    Deleting,
}

impl TenantState {
    /// The state as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleting => "deleting",
        }
    }

    /// Reads the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Creating, Self::Active, Self::Suspended, Self::Deleting].into_iter().find(|state| state.as_str() == text)
    }
}

/// The blueprint a tenant was made from or migrated to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlueprintRef {
    /// Its name.
    pub name: Arc<str>,
    /// Its version.
    pub version: u32,
}

/// One tenant as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantEntry {
    /// The unchanging id.
    pub id: TenantId,
    /// The present slug.
    pub slug: TenantSlug,
    /// The present name, free text.
    pub name: Arc<str>,
    /// Where it is in its life.
    pub state: TenantState,
    /// What it was made from.
    pub blueprint: Option<BlueprintRef>,
    /// Host names that lead to it, lower case, besides `<slug>.<base host>`.
    pub hosts: Vec<Arc<str>>,
    /// What it may do, where that differs from the node's defaults.
    pub limits: TenantLimits,
    /// Origins whose pages may call it; `None` is the node's own list.
    pub cors_origins: Option<Vec<Arc<str>>>,
    /// Creation, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Last change of the entry, milliseconds since the Unix epoch.
    pub updated_ms: i64,
}

const SHARDS: usize = 64;

/// A map whose readers take no lock and whose changes copy one shard of 64.
#[derive(Debug)]
struct Shards<V> {
    shards: Vec<ArcSwap<HashMap<Arc<str>, V>>>,
    hasher: RandomState,
}

impl<V: Clone> Shards<V> {
    fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(), hasher: RandomState::new() }
    }

    fn shard(&self, key: &str) -> &ArcSwap<HashMap<Arc<str>, V>> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits choose a shard")]
        let at = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards.get(at).expect("invariant: the index is below the number of shards")
    }

    fn get(&self, key: &str) -> Option<V> {
        self.shard(key).load().get(key).cloned()
    }

    fn change(&self, key: &str, value: Option<V>) {
        let shard = self.shard(key);
        let mut next = HashMap::clone(&shard.load());
        match value {
            Some(value) => next.insert(Arc::from(key), value),
            None => next.remove(key),
        };
        shard.store(Arc::new(next));
    }

    fn values(&self) -> Vec<V> {
        self.shards.iter().flat_map(|shard| shard.load().values().cloned().collect::<Vec<_>>()).collect()
    }
}

/// All tenants of the node.
#[derive(Debug)]
pub struct Directory {
    by_id: Shards<Arc<TenantEntry>>,
    by_slug: Shards<TenantId>,
    by_host: Shards<TenantId>,
    /// Counts changes; raised after each, so that what was looked up before is told from what is so now.
    version: AtomicU64,
    /// Serialises changes; readers never take it.
    changing: Mutex<()>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            by_id: Shards::new(),
            by_slug: Shards::new(),
            by_host: Shards::new(),
            version: AtomicU64::new(0),
            changing: Mutex::new(()),
        }
    }
}

impl Directory {
    /// Finds by id.
    pub fn find(&self, id: &TenantId) -> Option<Arc<TenantEntry>> {
        self.by_id.get(id.as_str())
    }

    /// Finds by slug.
    pub fn find_slug(&self, slug: &str) -> Option<Arc<TenantEntry>> {
        let entry = self.find(&self.by_slug.get(slug)?)?;
        (entry.slug.as_str() == slug).then_some(entry)
    }

    /// Finds by one of its own host names (lower case, without port).
    pub fn find_host(&self, host: &str) -> Option<Arc<TenantEntry>> {
        let entry = self.find(&self.by_host.get(host)?)?;
        entry.hosts.iter().any(|own| &**own == host).then_some(entry)
    }

    /// How often the directory has changed. What was looked up after reading this holds while it stays the same.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Puts `entry` in place of whatever had its id.
    pub(super) fn put(&self, entry: Arc<TenantEntry>) {
        let _one_at_a_time = self.changing.lock();
        let before = self.find(&entry.id);
        self.by_id.change(entry.id.as_str(), Some(Arc::clone(&entry)));
        self.by_slug.change(entry.slug.as_str(), Some(entry.id.clone()));
        for host in &entry.hosts {
            self.by_host.change(host, Some(entry.id.clone()));
        }
        if let Some(before) = before {
            self.forget_names(&before, Some(&entry));
        }
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes the tenant.
    pub(super) fn remove(&self, id: &TenantId) {
        let _one_at_a_time = self.changing.lock();
        if let Some(before) = self.find(id) {
            self.by_id.change(id.as_str(), None);
            self.forget_names(&before, None);
        }
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Every entry, in the order of slugs.
    pub fn entries(&self) -> Vec<Arc<TenantEntry>> {
        let mut entries = self.by_id.values();
        entries.sort_by(|a, b| a.slug.cmp(&b.slug));
        entries
    }

    fn forget_names(&self, before: &TenantEntry, after: Option<&TenantEntry>) {
        if after.is_none_or(|after| after.slug != before.slug)
            && self.by_slug.get(before.slug.as_str()).as_ref() == Some(&before.id)
        {
            self.by_slug.change(before.slug.as_str(), None);
        }
        for host in &before.hosts {
            if after.is_none_or(|after| !after.hosts.contains(host))
                && self.by_host.get(host).as_ref() == Some(&before.id)
            {
                self.by_host.change(host, None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(id: &str, slug: &str, hosts: &[&str]) -> Arc<TenantEntry> {
        Arc::new(TenantEntry {
            id: TenantId::parse(id).unwrap(),
            slug: TenantSlug::parse(slug).unwrap(),
            name: Arc::from(slug),
            state: TenantState::Active,
            blueprint: None,
            hosts: hosts.iter().map(|host| Arc::from(*host)).collect(),
            limits: TenantLimits::default(),
            cors_origins: None,
            created_ms: 0,
            updated_ms: 0,
        })
    }

    #[test]
    fn a_renamed_tenant_leaves_its_old_names_to_others() {
        let directory = Directory::default();
        directory.put(entry("t1", "one", &["one.example"]));
        directory.put(entry("t1", "uno", &["uno.example"]));
        assert!(directory.find_slug("one").is_none() && directory.find_host("one.example").is_none());
        directory.put(entry("t2", "one", &["one.example"]));
        assert_eq!(directory.find_slug("one").unwrap().id.as_str(), "t2");
        directory.remove(&TenantId::parse("t1").unwrap());
        assert!(directory.find_slug("uno").is_none() && directory.find_host("uno.example").is_none());
        assert_eq!(directory.find_host("one.example").unwrap().id.as_str(), "t2");
    }

    proptest! {
        #[test]
        fn names_lead_to_whoever_claims_them(steps in prop::collection::vec((0_u8..4, 0_u8..6, any::<bool>()), 1..40)) {
            let directory = Directory::default();
            let mut model: HashMap<String, String> = HashMap::new();
            for (id, slug, remove) in steps {
                let (id, slug) = (format!("t{id}"), format!("s{slug}"));
                if remove {
                    directory.remove(&TenantId::parse(&id).unwrap());
                    model.remove(&id);
                } else if model.iter().all(|(owner, taken)| taken != &slug || owner == &id) {
                    directory.put(entry(&id, &slug, &[]));
                    model.insert(id, slug);
                }
            }
            for slug in (0..6).map(|n| format!("s{n}")) {
                let owner = model.iter().find(|(_, taken)| *taken == &slug).map(|(owner, _)| owner.clone());
                prop_assert_eq!(directory.find_slug(&slug).map(|entry| entry.id.to_string()), owner);
            }
            prop_assert_eq!(directory.entries().len(), model.len());
        }
    }
}
