//! How much one key may do in a time: a rate limiter with bounded memory and no lock that everybody shares.
//!
//! Keeps true: the decision is a pure function of one number per key and the time (GCRA, ITU-T I.371, a leaky bucket
//! that stores only when it will be empty); a key that was forgotten to make room is treated as new, never as refused.
//! Does not do: knowing what keys mean, reading clocks, HTTP.

use crate::kernel::limits;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;

/// So much in such a time; the whole of it may be used at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    permits: u32,
    window_ms: u32,
}

/// Where a key stands after it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether this one is within the quota.
    pub allowed: bool,
    /// Permits left now.
    pub remaining: u32,
    /// Seconds, rounded up, until all permits are back.
    pub reset_s: u32,
    /// Seconds, rounded up, until one more is allowed; 0 if one is.
    pub retry_after_s: u32,
}

impl Quota {
    /// `None` if `permits` is 0, which means no limit.
    pub fn new(permits: u32, window_s: u32) -> Option<Self> {
        (permits > 0).then(|| Self { permits, window_ms: window_s.clamp(1, 86_400).saturating_mul(1_000) })
    }

    /// Permits per window.
    pub const fn permits(&self) -> u32 {
        self.permits
    }

    /// The window, seconds.
    pub const fn window_s(&self) -> u32 {
        self.window_ms / 1_000
    }

    fn window_us(&self) -> i64 {
        i64::from(self.window_ms) * 1_000
    }

    fn interval_us(&self) -> i64 {
        (self.window_us() / i64::from(self.permits)).max(1)
    }

    /// Counts one. `empty_us` is when the key's bucket will be empty; the first result is that moment afterwards.
    fn count(&self, empty_us: i64, now_us: i64) -> (i64, Standing) {
        let (interval, window) = (self.interval_us(), self.window_us());
        // A clock that was set back must not lock anybody out for longer than one window.
        let before = empty_us.clamp(now_us, now_us.saturating_add(window));
        let after = before.saturating_add(interval);
        let allowed = after - now_us <= window;
        let empty = if allowed { after } else { before };
        let room = window - (empty - now_us);
        let standing = Standing {
            allowed,
            remaining: u32::try_from(room / interval).unwrap_or(u32::MAX).min(self.permits),
            reset_s: seconds_up(empty - now_us),
            retry_after_s: if allowed { 0 } else { seconds_up(after - now_us - window).max(1) },
        };
        (empty, standing)
    }
}

fn seconds_up(us: i64) -> u32 {
    u32::try_from((us.max(0) + 999_999) / 1_000_000).unwrap_or(u32::MAX)
}

/// Counts keys against one quota.
///
/// Shared by all workers. Each shard has its own lock, held for one map operation; a shard holds at most its part of
/// `limits::THROTTLE_KEYS_MAX` keys and then forgets those nearest to a full quota.
#[derive(Debug)]
pub struct Throttle {
    quota: Quota,
    shards: Vec<Mutex<HashMap<u64, i64>>>,
    hasher: RandomState,
}

impl Throttle {
    /// Nobody has done anything yet.
    pub fn new(quota: Quota) -> Self {
        let shards = (0..limits::THROTTLE_SHARDS).map(|_| Mutex::default()).collect();
        Self { quota, shards, hasher: RandomState::new() }
    }

    /// What is allowed.
    pub const fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Counts one for `key` at `now_ms`.
    pub fn take(&self, key: &impl Hash, now_ms: i64) -> Standing {
        let now_us = now_ms.saturating_mul(1_000);
        let (hash, mut shard) = self.shard(key);
        let known = shard.get(&hash).copied();
        let (empty_us, standing) = self.quota.count(known.unwrap_or(now_us), now_us);
        if known.is_none() && shard.len() >= limits::THROTTLE_KEYS_MAX / limits::THROTTLE_SHARDS {
            make_room(&mut shard, now_us);
        }
        shard.insert(hash, empty_us);
        standing
    }

    /// Where `key` would stand if one were counted at `now_ms`; nothing is.
    pub fn look(&self, key: &impl Hash, now_ms: i64) -> Standing {
        let now_us = now_ms.saturating_mul(1_000);
        let (hash, shard) = self.shard(key);
        self.quota.count(shard.get(&hash).copied().unwrap_or(now_us), now_us).1
    }

    /// Takes back one that was counted for `key` and turned out not to matter.
    pub fn give_back(&self, key: &impl Hash) {
        let (hash, mut shard) = self.shard(key);
        if let Some(empty_us) = shard.get_mut(&hash) {
            *empty_us = empty_us.saturating_sub(self.quota.interval_us());
        }
    }

    fn shard(&self, key: &impl Hash) -> (u64, parking_lot::MutexGuard<'_, HashMap<u64, i64>>) {
        let hash = self.hasher.hash_one(key);
        let at = usize::try_from(hash >> 32).unwrap_or(0) % self.shards.len();
        (hash, self.shards.get(at).expect("invariant: the remainder is below the length").lock())
    }
}

/// Forgets keys whose quota is whole again, which changes nothing; if that is too little, also the quarter nearest to it.
fn make_room(shard: &mut HashMap<u64, i64>, now_us: i64) {
    let before = shard.len();
    shard.retain(|_, empty_us| *empty_us > now_us);
    if shard.len() > before / 4 * 3 {
        let mut moments: Vec<i64> = shard.values().copied().collect();
        let quarter = moments.len() / 4;
        let (_, threshold, _) = moments.select_nth_unstable(quarter);
        let threshold = *threshold;
        shard.retain(|_, empty_us| *empty_us > threshold);
    }
}

/// What counts as one address: IPv4 whole, IPv6 by its /64, which is what one subscriber gets (RFC 6177).
pub fn address_group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn throttle(permits: u32, window_s: u32) -> Throttle {
        Throttle::new(Quota::new(permits, window_s).unwrap())
    }

    #[test]
    fn a_quota_may_be_used_at_once_and_comes_back_evenly() {
        let throttle = throttle(10, 10);
        for left in (0..10).rev() {
            let standing = throttle.take(&"a", 0);
            assert!(standing.allowed);
            assert_eq!(standing.remaining, left);
        }
        let refused = throttle.take(&"a", 0);
        assert_eq!((refused.allowed, refused.remaining, refused.retry_after_s, refused.reset_s), (false, 0, 1, 10));
        assert!(throttle.take(&"b", 0).allowed, "another key is another bucket");
        assert!(throttle.take(&"a", 1_000).allowed && !throttle.take(&"a", 1_000).allowed);
        throttle.give_back(&"a");
        assert!(throttle.look(&"a", 1_000).allowed && throttle.look(&"a", 1_000).allowed, "looking takes nothing");
        assert!(throttle.take(&"a", 1_000).allowed);
        assert!(!throttle.look(&"a", 1_000).allowed);
        assert_eq!(throttle.take(&"a", 100_000).remaining, 9);
    }

    #[test]
    fn a_clock_set_back_locks_nobody_out() {
        let throttle = throttle(2, 10);
        throttle.take(&"a", 1_000_000_000);
        assert!(throttle.take(&"a", 0).retry_after_s <= 10);
        assert!(throttle.take(&"a", 10_000).allowed);
    }

    #[test]
    fn memory_is_bounded_and_the_busiest_are_remembered() {
        let throttle = throttle(4, 60);
        (0..5).for_each(|_| assert!(throttle.take(&"busy", 0).remaining < 4));
        for key in 0..limits::THROTTLE_KEYS_MAX * 2 {
            throttle.take(&key, 1);
        }
        let kept: usize = throttle.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(kept <= limits::THROTTLE_KEYS_MAX);
        assert!(!throttle.take(&"busy", 1).allowed);
    }

    #[test]
    fn an_ipv6_subscriber_is_one_address() {
        let group = |text: &str| address_group(text.parse().unwrap());
        assert_eq!(group("2001:db8::1"), group("2001:db8::ffff:1"));
        assert_ne!(group("2001:db8::1"), group("2001:db8:0:1::1"));
        assert_eq!(group("::ffff:10.0.0.1"), group("10.0.0.1"));
        assert_ne!(group("10.0.0.1"), group("10.0.0.2"));
    }

    proptest! {
        /// In any stretch of one window no more than two quotas pass: one saved up, one that came back meanwhile.
        #[test]
        fn never_more_than_the_quota_and_what_came_back(
            permits in 1_u32..50, window_s in 1_u32..20, gaps in prop::collection::vec(0_i64..500, 1..300),
        ) {
            let throttle = throttle(permits, window_s);
            let (mut now_ms, mut allowed) = (0, Vec::new());
            for gap in gaps {
                now_ms += gap;
                if throttle.take(&0, now_ms).allowed {
                    allowed.push(now_ms);
                }
            }
            let window_ms = i64::from(window_s) * 1_000;
            for (at, end) in allowed.iter().enumerate() {
                let within = allowed[..=at].iter().filter(|start| **start > end - window_ms).count();
                prop_assert!(within <= 2 * permits as usize, "{within} in a window of {permits}");
            }
        }
    }
}
