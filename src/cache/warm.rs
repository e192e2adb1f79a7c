//! Warming: which answers were hot, and filling them again at a pace that leaves the node to its users.
//!
//! Keeps true: the list is bounded; priority is frequency that fades with a half-life of an hour. Warming asks through
//! the ordinary read path (the caller's `refill`), so a warmed answer is as coherent and as guarded as any other.
//! Does not do: knowing how to ask. A key's replay bytes are opaque here.

use crate::cache::Cache;
use crate::cache::key::{Key, KeyParts};
use crate::kernel::ident::TenantId;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Hot keys remembered by one node.
pub const HOT_KEYS_MAX: usize = 4_096;
/// Hot keys of one tenant, while others have some too.
pub const HOT_KEYS_PER_TENANT: usize = HOT_KEYS_MAX / 4;
/// Longest replay that is remembered, bytes.
pub const REPLAY_BYTES_MAX: usize = 4_096;
const HALF_LIFE_MS: f64 = 3_600_000.0;
const LIST_BYTES_MAX: usize = 1024 * 1024;
const LIST_VERSION: u8 = 1;

/// One answer worth having before somebody asks.
#[derive(Debug, Clone, PartialEq)]
pub struct HotKey {
    /// The text of the key.
    pub key: String,
    /// Whose it is.
    pub tenant: TenantId,
    /// How to ask for it.
    pub replay: Arc<[u8]>,
    /// Faded hits.
    pub score: f64,
}

/// Why something was not asked, by its words, and how often.
pub type Reasons = BTreeMap<&'static str, u64>;

/// What warming did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WarmReport {
    /// Asked for.
    pub filled: u64,
    /// Already in memory and current.
    pub present: u64,
    /// Asked for in vain.
    pub failed: u64,
    /// Why.
    pub reasons: Reasons,
}

/// What came of asking for an answer before somebody does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refill {
    /// It is there.
    Filled,
    /// It is there under another key, with another note: the schema is another one by now.
    Moved(Key, Arc<[u8]>),
    /// There is none, and why.
    Failed(&'static str),
}

#[derive(Debug, Clone)]
struct Heat {
    key: String,
    tenant: TenantId,
    replay: Arc<[u8]>,
    score: f64,
    at_ms: i64,
}

impl Heat {
    fn now(&self, now_ms: i64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a fading score")]
        let age = (now_ms - self.at_ms).max(0) as f64;
        self.score * (-age / HALF_LIFE_MS).exp2()
    }
}

/// The remembered keys.
#[derive(Debug, Default)]
pub struct HotKeys {
    keys: HashMap<[u8; 32], Heat>,
    /// Whether the list of the process before this one was taken over: it may be replaced by an empty one.
    took_over: bool,
    /// Tenants that went before it was: it may name them.
    gone: HashSet<TenantId>,
}

impl HotKeys {
    /// Adds `hits` to a key.
    pub fn note(&mut self, key: &Key, replay: &Arc<[u8]>, hits: u32, now_ms: i64) {
        if replay.len() > REPLAY_BYTES_MAX {
            return;
        }
        match self.keys.get_mut(key.digest()) {
            Some(heat) => {
                heat.score = heat.now(now_ms) + f64::from(hits);
                heat.at_ms = now_ms;
            }
            None => {
                let heat = Heat {
                    key: key.to_string(),
                    tenant: key.tenant().clone(),
                    replay: Arc::clone(replay),
                    score: f64::from(hits),
                    at_ms: now_ms,
                };
                self.keys.insert(*key.digest(), heat);
            }
        }
        // Sorting now and then is cheaper than keeping order on every note.
        if self.keys.len() > HOT_KEYS_MAX + HOT_KEYS_MAX / 4 {
            self.cool(now_ms);
        }
    }

    /// Goes on under `key` with what was known of the question under `old`.
    fn follow(&mut self, old: &[u8; 32], key: &Key, replay: &Arc<[u8]>, now_ms: i64) {
        let Some(mut heat) = self.keys.remove(old) else { return };
        // It may have been asked for under its new key already.
        let score = self.keys.get(key.digest()).map_or(0.0, |known| known.now(now_ms));
        (heat.score, heat.at_ms) = (heat.now(now_ms) + score, now_ms);
        (heat.key, heat.replay) = (key.to_string(), Arc::clone(replay));
        self.keys.insert(*key.digest(), heat);
    }

    /// Takes over what an earlier process knew, where nothing is known by itself; what there is of it for tenants that are
    /// not gone.
    pub fn adopt(&mut self, mut list: Vec<HotKey>, now_ms: i64) -> Vec<HotKey> {
        let gone = std::mem::take(&mut self.gone);
        list.retain(|hot| !gone.contains(&hot.tenant));
        self.took_over = true;
        for hot in &list {
            let Some(digest) = digest_of(hot) else { continue };
            self.keys.entry(digest).or_insert_with(|| Heat {
                key: hot.key.clone(),
                tenant: hot.tenant.clone(),
                replay: Arc::clone(&hot.replay),
                score: hot.score,
                at_ms: now_ms,
            });
        }
        if self.keys.len() > HOT_KEYS_MAX + HOT_KEYS_MAX / 4 {
            self.cool(now_ms);
        }
        list
    }

    /// Whether the list on disk may be replaced by this one: an empty one, of a process that ends before it has read that of
    /// the last, would only lose it. Where a tenant is gone, it goes.
    pub fn may_replace(&self) -> bool {
        !self.keys.is_empty() || self.took_over || !self.gone.is_empty()
    }

    /// Forgets a tenant.
    pub fn forget(&mut self, tenant: &TenantId) {
        if !self.took_over {
            self.gone.insert(tenant.clone());
        }
        self.keys.retain(|_, heat| &heat.tenant != tenant);
    }

    /// The keys, hottest first.
    pub fn ranked(&self, now_ms: i64) -> Vec<HotKey> {
        let mut list: Vec<HotKey> = self
            .keys
            .values()
            .map(|heat| HotKey {
                key: heat.key.clone(),
                tenant: heat.tenant.clone(),
                replay: Arc::clone(&heat.replay),
                score: heat.now(now_ms),
            })
            .collect();
        list.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.key.cmp(&b.key)));
        let keeps = shared_out(list.iter().map(|hot| &hot.tenant));
        let mut keeps = keeps.iter();
        list.retain(|_| keeps.next().copied().unwrap_or(false));
        list
    }

    fn cool(&mut self, now_ms: i64) {
        let mut ranked: Vec<(f64, [u8; 32], TenantId)> =
            self.keys.iter().map(|(digest, heat)| (heat.now(now_ms), *digest, heat.tenant.clone())).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let keeps = shared_out(ranked.iter().map(|(.., tenant)| tenant));
        for ((_, digest, _), _) in ranked.iter().zip(keeps).filter(|(_, keeps)| !keeps) {
            self.keys.remove(digest);
        }
    }
}

/// Which of the ranked keys are remembered: of each tenant the hottest up to its part, then whatever is hottest among the
/// rest while there is room, so that a tenant which is alone has everything and none can push out all others.
fn shared_out<'tenant>(ranked: impl Iterator<Item = &'tenant TenantId>) -> Vec<bool> {
    let mut counts: HashMap<&TenantId, usize> = HashMap::new();
    let mut keeps: Vec<bool> = ranked
        .map(|tenant| {
            let count = counts.entry(tenant).or_default();
            *count += 1;
            *count <= HOT_KEYS_PER_TENANT
        })
        .collect();
    let first = keeps.iter().filter(|keeps| **keeps).count();
    let (surplus, room) = (first.saturating_sub(HOT_KEYS_MAX), HOT_KEYS_MAX.saturating_sub(first));
    keeps.iter_mut().filter(|keep| !**keep).take(room).for_each(|keep| *keep = true);
    keeps.iter_mut().rev().filter(|keep| **keep).take(surplus).for_each(|keep| *keep = false);
    keeps
}

impl WarmReport {
    fn fail(&mut self, why: &'static str) {
        self.failed += 1;
        *self.reasons.entry(why).or_default() += 1;
    }
}

impl Cache {
    /// The hot keys of this process, hottest first.
    pub fn hot_keys(&self) -> Vec<HotKey> {
        self.0.hot.lock().ranked(self.0.clock.now_ms())
    }

    /// The hot keys that the previous process left on disk, hottest first; `None` if the disk does not answer. They are
    /// remembered like this process's own, so that a second stop soon after a start does not lose them.
    pub async fn hot_keys_of_last_run(&self) -> Option<Vec<HotKey>> {
        let list = self.0.read_hot().await?;
        Some(self.0.hot.lock().adopt(list, self.0.clock.now_ms()))
    }

    /// Fills `keys` in order, one every `pace`, by asking `refill` for each that is not already there.
    ///
    /// `refill` asks through the ordinary read path and says whether it got an answer, and where it is kept if not under the
    /// key of the question; what is known of it goes along. Cancel by dropping.
    #[expect(clippy::disallowed_methods, reason = "the pace is a span of time")]
    pub async fn warm<F, Fut>(&self, keys: Vec<HotKey>, pace: Duration, mut refill: F) -> WarmReport
    where
        F: FnMut(HotKey) -> Fut,
        Fut: Future<Output = Refill>,
    {
        let mut report = WarmReport::default();
        for hot in keys {
            if self.holds_current(&hot) {
                report.present += 1;
                continue;
            }
            let (digest, tenant) = (digest_of(&hot), hot.tenant.clone());
            match refill(hot).await {
                Refill::Filled => report.filled += 1,
                Refill::Moved(key, replay) => {
                    report.filled += 1;
                    if let Some(old) = digest {
                        let (late, now_ms) = (self.take_hits(&tenant, old), self.0.clock.now_ms());
                        let mut hot = self.0.hot.lock();
                        hot.follow(&old, &key, &replay, now_ms);
                        if late > 0 {
                            hot.note(&key, &replay, late, now_ms);
                        }
                    }
                }
                Refill::Failed(why) => report.fail(why),
            }
            tokio::time::sleep(pace).await;
        }
        report
    }

    /// The hits of an answer that upkeep has not learned of; of a question that goes on under another key they would bring
    /// the old one back.
    fn take_hits(&self, tenant: &TenantId, digest: [u8; 32]) -> u32 {
        let part = self.0.parts.read().get(tenant).cloned();
        let slot = part.map(|part| crate::cache::memory::Slot { incarnation: part.incarnation, digest });
        let held = slot.and_then(|slot| self.0.memory.peek(&slot));
        held.map_or(0, |held| held.hits.swap(0, Ordering::Relaxed))
    }

    /// Whether memory has a current answer under the key.
    pub fn holds_current(&self, hot: &HotKey) -> bool {
        let digest = digest_of(hot);
        let part = self.0.parts.read().get(&hot.tenant).cloned();
        digest.zip(part).is_some_and(|(digest, part)| {
            let slot = crate::cache::memory::Slot { incarnation: part.incarnation, digest };
            self.0.memory.find(&slot).is_some_and(|held| held.proof.is_current())
        })
    }
}

fn digest_of(hot: &HotKey) -> Option<[u8; 32]> {
    KeyParts::parse(&hot.key)?.digest
}

/// Writes a list, hottest first, as much of it as fits.
pub(crate) fn encode(list: &[HotKey]) -> Bytes {
    let mut out = vec![LIST_VERSION];
    for hot in list {
        if out.len() + hot.key.len() + hot.replay.len() + 32 > LIST_BYTES_MAX {
            break;
        }
        for part in [hot.key.as_bytes(), &hot.replay] {
            out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&hot.score.to_le_bytes());
    }
    Bytes::from(out)
}

/// Reads a list as far as it makes sense.
pub(crate) fn decode(bytes: &[u8]) -> Vec<HotKey> {
    let mut list = Vec::new();
    let Some((&LIST_VERSION, mut rest)) = bytes.split_first() else { return list };
    while let Some(hot) = decode_one(&mut rest) {
        list.push(hot);
        if list.len() >= HOT_KEYS_MAX {
            break;
        }
    }
    list
}

fn decode_one(rest: &mut &[u8]) -> Option<HotKey> {
    let mut part = || -> Option<&[u8]> {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let (part, tail) = tail.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        *rest = tail;
        Some(part)
    };
    let key = std::str::from_utf8(part()?).ok()?.to_owned();
    let replay = Arc::from(part()?);
    let (score, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    let tenant = KeyParts::parse(&key)?.tenant;
    Some(HotKey { key, tenant, replay, score: f64::from_le_bytes(*score) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::{CallerClass, Category, Sub};
    use crate::kernel::ident::CollectionId;
    use proptest::prelude::*;

    fn key(n: u32) -> Key {
        let (tenant, posts) = (TenantId::parse("demo").unwrap(), CollectionId::parse("posts").unwrap());
        Key::new(&tenant, Category::List, &posts, Sub::Word("page"), &[&n.to_le_bytes()], &CallerClass::everyone())
    }

    #[test]
    fn recent_and_frequent_keys_come_first() {
        let (mut hot, replay) = (HotKeys::default(), Arc::from(&b"q"[..]));
        hot.note(&key(1), &replay, 100, 0);
        hot.note(&key(2), &replay, 30, 7_200_000);
        hot.note(&key(3), &replay, 20, 7_200_000);
        let order: Vec<_> = hot.ranked(7_200_000).into_iter().map(|hot| hot.key).collect();
        assert_eq!(order, [key(2), key(1), key(3)].map(|key| key.to_string()), "100 fades to 25 in two hours");
    }

    #[test]
    fn a_question_takes_its_heat_along_to_another_key() {
        let (mut hot, old, new) = (HotKeys::default(), Arc::from(&b"old"[..]), Arc::from(&b"new"[..]));
        hot.note(&key(1), &old, 100, 0);
        hot.note(&key(2), &new, 10, 7_200_000);
        hot.follow(key(1).digest(), &key(2), &new, 7_200_000);
        hot.follow(key(3).digest(), &key(4), &new, 7_200_000);
        let ranked = hot.ranked(7_200_000);
        let known: Vec<_> = ranked.iter().map(|hot| (hot.key.as_str(), &*hot.replay, hot.score)).collect();
        assert_eq!(known, [(&*key(2).to_string(), &b"new"[..], 35.0)]);
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_hottest() {
        let (mut hot, replay) = (HotKeys::default(), Arc::from(&b"q"[..]));
        for n in 0..20_000 {
            hot.note(&key(n), &replay, n % 7 + 1, 0);
        }
        hot.note(&key(99_999), &replay, 1_000, 0);
        assert!(hot.keys.len() <= HOT_KEYS_MAX + HOT_KEYS_MAX / 4);
        assert_eq!(hot.ranked(0)[0].key, key(99_999).to_string());
        hot.forget(&TenantId::parse("demo").unwrap());
        assert!(hot.ranked(0).is_empty());
    }

    #[test]
    fn no_tenant_takes_the_whole_list_and_one_alone_does() {
        let (mut hot, replay) = (HotKeys::default(), Arc::from(&b"q"[..]));
        let of = |tenant: &str, n: u32| {
            let (tenant, posts) = (TenantId::parse(tenant).unwrap(), CollectionId::parse("posts").unwrap());
            Key::new(&tenant, Category::List, &posts, Sub::Word("page"), &[&n.to_le_bytes()], &CallerClass::everyone())
        };
        for n in 0..20_000 {
            hot.note(&of("loud", n), &replay, 100, 0);
        }
        assert_eq!(hot.ranked(0).len(), HOT_KEYS_MAX);
        for n in 0..20_000 {
            hot.note(&of("quiet", n % 2_000), &replay, 1, 0);
            hot.note(&of("loud", n), &replay, 100, 0);
        }
        let ranked = hot.ranked(0);
        let quiet = ranked.iter().filter(|hot| hot.tenant.as_str() == "quiet").count();
        assert_eq!((ranked.len(), quiet >= HOT_KEYS_PER_TENANT), (HOT_KEYS_MAX, true), "{quiet}");
    }

    proptest! {
        #[test]
        fn lists_survive_the_disk_and_noise_does_no_harm(
            scores in prop::collection::vec(0.0_f64..1e9, 0..20), noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let list: Vec<HotKey> = scores.iter().zip(0..).map(|(score, n)| HotKey {
                key: key(n).to_string(), tenant: TenantId::parse("demo").unwrap(), replay: Arc::from(&b"r"[..]), score: *score,
            }).collect();
            prop_assert_eq!(decode(&encode(&list)), list);
            decode(&noise);
            let versioned: Vec<u8> = [LIST_VERSION].into_iter().chain(noise).collect();
            decode(&versioned);
        }
    }
}
