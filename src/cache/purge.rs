//! Forgetting on request: by key, by tag, by event, by collection, or everything of a tenant.
//!
//! Keeps true: when a purge returns, nothing it names is served again from either tier, not even by a load that began
//! before it, and not after a restart. Other tenants are not touched.
//! Does not do: coherence. Writes void answers by stamp; a purge is for what the log cannot know.

use crate::cache::key::{Key, KeyParts};
use crate::cache::stamp::mark_hash;
use crate::cache::stats::Counters;
use crate::cache::tenant::TenantCache;
use crate::kernel::ident::CollectionId;
use std::sync::Arc;

const BY_TAG: u8 = 11;
const BY_COLLECTION: u8 = 12;
const BY_VISIBLE: u8 = 13;
const BY_KEY: u8 = 14;
const BY_EVENT: u8 = 15;
/// What an entry's tag begins with if it is the name of an event; no tag of a policy can.
const EVENT_SIGN: char = '!';

/// What to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// Everything of the tenant.
    All,
    /// Every answer of a collection.
    Collection(CollectionId),
    /// Every answer that carries a tag.
    Tag(Arc<str>),
    /// Every answer whose policy names an event that has happened.
    Event(Arc<str>),
    /// One answer, or without a digest every answer with the same visible parts.
    Key(KeyParts),
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
pub(crate) fn marks(key: &Key, tags: &[Arc<str>]) -> Box<[u64]> {
    let visible = [key.tenant().as_str(), key.category().as_str(), key.resource().as_str()].join(":");
    let mut marks = Vec::with_capacity(3 + tags.len());
    marks.push(mark_hash(BY_COLLECTION, key.resource().as_str()));
    marks.push(mark_hash(BY_VISIBLE, &format!("{visible}:{}", key.sub().as_str())));
    marks.push(digest_mark(key.digest()));
    marks.extend(tags.iter().map(|tag| tag_mark(tag)));
    marks.into_boxed_slice()
}

impl TenantCache {
    /// Forgets what `purge` names, in memory, on disk and in flight.
    pub async fn purge(&self, purge: &Purge) {
        let counted = self.shared.prepare_purge(&self.part).await;
        let positions = &self.part.positions;
        match purge {
            Purge::All => positions.void_all(),
            Purge::Collection(collection) => {
                Counters::bump(&self.part.counters.of(collection).purges);
                positions.void_mark(mark_hash(BY_COLLECTION, collection.as_str()));
            }
            Purge::Tag(tag) => positions.void_mark(mark_hash(BY_TAG, tag)),
            Purge::Event(event) => positions.void_mark(mark_hash(BY_EVENT, event)),
            // A text that names another tenant names nothing here.
            Purge::Key(parts) if &parts.tenant != self.tenant() => return,
            Purge::Key(parts) => match &parts.digest {
                Some(digest) => positions.void_mark(digest_mark(digest)),
                None => positions.void_mark(mark_hash(BY_VISIBLE, &parts.visible())),
            },
        }
        let incarnation = self.part.incarnation;
        self.shared.memory.retain(|slot, held| slot.incarnation != incarnation || held.proof.is_current());
        self.shared.persist_purges(&self.part, counted).await;
    }
}

fn digest_mark(digest: &[u8; 32]) -> u64 {
    let (first, _) = digest.split_first_chunk::<8>().expect("invariant: a digest has 32 bytes");
    u64::from_le_bytes(*first) ^ u64::from(BY_KEY)
}
