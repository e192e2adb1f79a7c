//! Forgetting on request: by key, by tag, by event, by collection, or everything of a tenant.
//!
//! Keeps true: when a purge returns, nothing it names is served again from either tier, not even by a load that began
//! before it, and not after a restart. Other tenants are not touched. What is reported was there and named: an answer that
//! only shares both slots of the table of purges with what was named is loaded again, and not counted.
//! Does not do: coherence. Writes void answers by stamp; a purge is for what the log cannot know.

use crate::cache::key::{Category, Key, KeyParts};
use crate::cache::memory::Held;
use crate::cache::stamp::{Dependencies, Dependency, mark_hash};
use crate::cache::stats::Counters;
use crate::cache::tenant::TenantCache;
use crate::kernel::ident::CollectionId;
use crate::schema::cache_policy::is_tag;
use std::sync::Arc;

const BY_TAG: u8 = 11;
const BY_COLLECTION: u8 = 12;
const BY_VISIBLE: u8 = 13;
const BY_KEY: u8 = 14;
const BY_EVENT: u8 = 15;
const BY_LISTS: u8 = 16;
/// What an entry's tag begins with if it is the name of an event; no tag of a policy can.
const EVENT_SIGN: char = '!';

/// What to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// Everything of the tenant.
    All,
    /// Every answer of a collection.
    Collection(CollectionId),
    /// Every answer that may show several records of a collection, or one inside another record.
    Lists(CollectionId),
    /// Every answer that carries a tag.
    Tag(Arc<str>),
    /// Every answer whose policy names an event that has happened.
    Event(Arc<str>),
    /// One answer, or without a digest every answer with the same visible parts.
    Key(KeyParts),
}

/// What a purge found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Answers that served until then: those in memory, and for the full text of a key the one on disk.
    pub answers: u64,
    /// Answers of the tenant that lie on disk, copies of those in memory among them: what the purge names is void there
    /// too, and not counted.
    pub on_disk: u64,
}

/// The name of an event as an entry carries it among its tags.
pub(crate) fn event_tag(event: &str) -> Arc<str> {
    Arc::from(format!("{EVENT_SIGN}{event}"))
}

fn tag_mark(tag: &str) -> u64 {
    match tag.strip_prefix(EVENT_SIGN) {
        Some(event) => mark_hash(BY_EVENT, event),
        None => mark_hash(BY_TAG, tag),
    }
}

/// The marks by which an answer can be purged.
pub(crate) fn marks(key: &Key, tags: &[Arc<str>], dependencies: &Dependencies) -> Box<[u64]> {
    let visible =
        [key.tenant().as_str(), key.category().as_str(), key.resource().as_str(), key.sub().as_str()].join(":");
    gather(&visible, key.resource(), key.digest(), tags, lists_of(key, dependencies))
}

/// The same from a key's text.
pub(crate) fn marks_of(
    parts: &KeyParts,
    digest: &[u8; 32],
    tags: &[Arc<str>],
    dependencies: &Dependencies,
) -> Box<[u64]> {
    let lists = listed(parts.category, &parts.resource, &parts.sub, dependencies);
    gather(&parts.visible(), &parts.resource, digest, tags, lists)
}

fn gather<'id>(
    visible: &str,
    resource: &CollectionId,
    digest: &[u8; 32],
    tags: &[Arc<str>],
    lists: impl Iterator<Item = &'id CollectionId>,
) -> Box<[u64]> {
    let own = [mark_hash(BY_COLLECTION, resource.as_str()), mark_hash(BY_VISIBLE, visible), digest_mark(digest)];
    let tags = tags.iter().map(|tag| tag_mark(tag));
    own.into_iter().chain(tags).chain(lists.map(|id| mark_hash(BY_LISTS, id.as_str()))).collect()
}

fn lists_of<'held>(key: &'held Key, dependencies: &'held Dependencies) -> impl Iterator<Item = &'held CollectionId> {
    listed(key.category(), key.resource(), key.sub().as_str(), dependencies)
}

/// The collections whose `:lists` word an answer carries in `Cache-Tag`.
fn listed<'held>(
    category: Category,
    resource: &'held CollectionId,
    sub: &str,
    dependencies: &'held Dependencies,
) -> impl Iterator<Item = &'held CollectionId> {
    // A record whose id no header can carry goes by that word too.
    let own = category != Category::Record || !is_tag(sub);
    let others = dependencies.as_slice().iter().filter_map(|one| match one {
        Dependency::Collection(id) | Dependency::Partition(id, _) => Some(id),
        Dependency::Record(..) => None,
    });
    own.then_some(resource).into_iter().chain(others)
}

impl Purge {
    /// Whether it names an answer of its tenant.
    fn names(&self, held: &Held) -> bool {
        let (key, tags) = (&held.key, held.entry.tags());
        match self {
            Self::All => true,
            Self::Collection(id) => key.resource() == id,
            Self::Lists(id) => lists_of(key, &held.dependencies).any(|listed| listed == id),
            Self::Tag(tag) => tags.contains(tag),
            Self::Event(event) => tags.contains(&event_tag(event)),
            Self::Key(parts) => parts.names(key),
        }
    }
}

impl TenantCache {
    /// Forgets what `purge` names, in memory, on disk and in flight; what it found.
    pub async fn purge(&self, purge: &Purge) -> Purged {
        // A text that names another tenant names nothing here.
        if matches!(purge, Purge::Key(parts) if &parts.tenant != self.tenant()) {
            return Purged::default();
        }
        let counted = self.shared.prepare_purge(&self.part).await;
        let found = self.count(purge).await;
        let positions = &self.part.positions;
        match purge {
            Purge::All => positions.void_all(),
            Purge::Collection(collection) => {
                Counters::bump(&self.part.counters.of(collection).purges);
                positions.void_mark(mark_hash(BY_COLLECTION, collection.as_str()));
            }
            Purge::Lists(collection) => positions.void_mark(mark_hash(BY_LISTS, collection.as_str())),
            Purge::Tag(tag) => positions.void_mark(mark_hash(BY_TAG, tag)),
            Purge::Event(event) => positions.void_mark(mark_hash(BY_EVENT, event)),
            Purge::Key(parts) => match &parts.digest {
                Some(digest) => positions.void_mark(digest_mark(digest)),
                None => positions.void_mark(mark_hash(BY_VISIBLE, &parts.visible())),
            },
        }
        let incarnation = self.part.incarnation;
        self.shared.memory.retain(|slot, held| slot.incarnation != incarnation || held.proof.is_current());
        self.shared.persist_purges(&self.part, counted).await;
        found
    }

    async fn count(&self, purge: &Purge) -> Purged {
        let (incarnation, now_ms) = (self.part.incarnation, self.shared.clock.now_ms());
        let serves = |held: &Held| !held.entry.is_expired(now_ms) && held.proof.is_current();
        let named = |held: &Held| purge.names(held) && serves(held);
        let all = self.shared.memory.all().filter(|(slot, _)| slot.incarnation == incarnation);
        let mut answers = all.filter(|(_, held)| named(held)).count() as u64;
        if let Purge::Key(parts @ KeyParts { digest: Some(digest), .. }) = purge
            && answers == 0
        {
            answers = u64::from(self.shared.has_on_disk(&self.part, parts, digest).await);
        }
        Purged { answers, on_disk: self.shared.disk_usage(self.tenant()).entries }
    }
}

fn digest_mark(digest: &[u8; 32]) -> u64 {
    let (first, _) = digest.split_first_chunk::<8>().expect("invariant: a digest has 32 bytes");
    u64::from_le_bytes(*first) ^ u64::from(BY_KEY)
}
