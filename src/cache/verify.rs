//! Verification: recomputing answers and comparing, because a proof of coherence deserves a witness in production.
//!
//! Keeps true: only answers that were current before and after the recomputation are judged; a difference is counted,
//! logged with its key, and the kept answer is thrown away. Does not do: explaining the difference.

use crate::cache::entry::Loaded;
use crate::cache::memory::Held;
use crate::cache::stats::Counters;
use crate::cache::tenant::{Answer, Request, Source, TenantCache};
use crate::cache::{Cache, warm};
use crate::kernel::digest::sha256;
use crate::kernel::ident::TenantId;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Recomputed and equal.
    pub equal: u64,
    /// Overtaken by a write, or not answerable: nothing follows.
    pub skipped: u64,
    /// Why, by the words and how often.
    pub reasons: warm::Reasons,
    /// Keys whose kept answer differed.
    pub different: Vec<String>,
}

const OVERTAKEN: &str = "a write, a purge or time has overtaken it";

impl VerifyReport {
    fn skip(&mut self, why: &'static str) {
        self.skipped += 1;
        *self.reasons.entry(why).or_default() += 1;
    }
}

impl Cache {
    /// Recomputes at most `sample` kept answers, taken evenly over memory, and compares; of one tenant, or of all.
    ///
    /// `recompute` asks past the cache and says at which log position, or why it cannot. Only answers that were kept with a replay can be asked.
    pub async fn verify<F, Fut>(&self, only: Option<&TenantId>, sample: usize, mut recompute: F) -> VerifyReport
    where
        F: FnMut(warm::HotKey) -> Fut,
        Fut: Future<Output = Result<(Bytes, i64), &'static str>>,
    {
        let wanted = |held: &Held| held.replay.is_some() && only.is_none_or(|tenant| held.key.tenant() == tenant);
        let candidates: Vec<_> = self.0.memory.all().filter(|(_, held)| wanted(held)).collect();
        let stride = (candidates.len() / sample.max(1)).max(1);
        let mut report = VerifyReport::default();
        for (slot, held) in candidates.into_iter().step_by(stride).take(sample) {
            let Some(replay) = held.replay.clone().filter(|_| held.proof.is_current()) else {
                report.skip(OVERTAKEN);
                continue;
            };
            let key = held.key.to_string();
            let hot = warm::HotKey { key, tenant: held.key.tenant().clone(), replay, score: 0.0 };
            match recompute(hot).await.map(|(body, lsn)| judge(&held, &sha256(&body), lsn)) {
                Err(why) => report.skip(why),
                Ok(Verdict::Overtaken) => report.skip(OVERTAKEN),
                Ok(Verdict::Equal) => report.equal += 1,
                Ok(Verdict::Different) => {
                    self.0.memory.remove_this(&slot, &held);
                    report.different.push(held.key.to_string());
                }
            }
        }
        report
    }
}

impl TenantCache {
    /// Whether this hit is one of those that are recomputed ([`crate::cache::CacheOptions::verify_every`]).
    pub fn verify_is_due(&self) -> bool {
        let every = u64::from(self.shared.verify_every);
        every > 0 && self.shared.verify_turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(every)
    }

    /// Whether a hit may be served at once. `false` leaves the turn to [`Self::verify_is_due`] of whoever can wait.
    pub fn may_pass_unverified(&self) -> bool {
        let every = u64::from(self.shared.verify_every);
        if every == 0 {
            return true;
        }
        let turn = &self.shared.verify_turn;
        let passes = !turn.load(Ordering::Relaxed).is_multiple_of(every);
        if passes {
            turn.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }

    /// Recomputes a hit and compares; the caller gets the recomputed answer if they differ.
    pub async fn verify_hit<E, F, Fut>(&self, request: Request<'_>, hit: Answer, load: F) -> Result<Answer, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded, E>>,
    {
        let loaded = self.load(request, load).await?;
        match judge(hit.held(), loaded.entry.etag(), loaded.reach) {
            Verdict::Different => {
                self.shared.memory.remove_this(&self.slot(request.key), hit.held());
                Ok(self.answer(loaded, Source::Bypass))
            }
            Verdict::Equal | Verdict::Overtaken => Ok(hit),
        }
    }
}

enum Verdict {
    Equal,
    Different,
    Overtaken,
}

/// Compares a kept answer with the digest of what was read at log position `lsn`.
fn judge(held: &Arc<Held>, etag: &[u8; 32], lsn: i64) -> Verdict {
    if etag == held.entry.etag() {
        Counters::bump(&held.counters.verified);
        return Verdict::Equal;
    }
    // A success moves the proof up to what the cache has been told; a snapshot beyond that has seen a commit of which
    // the observers have not spoken yet.
    if !held.proof.is_current() || lsn > held.proof.at() {
        return Verdict::Overtaken;
    }
    Counters::bump(&held.counters.verified);
    Counters::bump(&held.counters.mismatches);
    tracing::error!(cache.key = %held.key, "a kept answer differs from its recomputation");
    Verdict::Different
}
