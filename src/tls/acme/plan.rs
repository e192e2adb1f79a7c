//! What to obtain next: a pure decision over names, dates and earlier failures.
//!
//! Keeps true: a name that failed waits at least `FIRST_WAIT_S`, twice as long after each further failure, up to
//! `LONGEST_WAIT_S`; renewals of many certificates of one day are spread over days; at most so many orders in any hour.
//! Does not do: clocks, randomness (a seed comes in), I/O.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

const FIRST_WAIT_S: i64 = 60;
const LONGEST_WAIT_S: i64 = 12 * 3_600;
const HOUR_S: i64 = 3_600;

/// An obtained certificate.
#[derive(Debug, Clone)]
pub(in crate::tls) struct Holding {
    pub(in crate::tls) name: String,
    pub(in crate::tls) not_before_s: i64,
    pub(in crate::tls) not_after_s: i64,
}

/// What was tried; owned by the task that obtains.
#[derive(Debug)]
pub(super) struct Attempts {
    per_hour_max: usize,
    seed: u64,
    /// Orders of the last hour; as long as `per_hour_max` at most.
    orders_s: VecDeque<i64>,
    /// Failures in a row and the moment before which it is not tried again; only wanted names stay.
    failed: HashMap<String, (u32, i64)>,
    /// Obtained in this round, so that an old holding is not renewed twice.
    done: HashMap<String, i64>,
}

impl Attempts {
    pub(super) fn new(per_hour_max: u32, seed: u64) -> Self {
        let per_hour_max = usize::try_from(per_hour_max).unwrap_or(usize::MAX);
        Self { per_hour_max, seed, orders_s: VecDeque::new(), failed: HashMap::new(), done: HashMap::new() }
    }

    /// The next name to place an order for, counted as placed.
    pub(super) fn next_due(
        &mut self,
        wanted: &BTreeSet<String>,
        holding: &[Holding],
        renew_before_s: i64,
        now_s: i64,
    ) -> Option<String> {
        self.failed.retain(|name, _| wanted.contains(name));
        self.done.retain(|_, done_s| now_s - *done_s < HOUR_S);
        while self.orders_s.front().is_some_and(|placed_s| now_s - *placed_s >= HOUR_S) {
            self.orders_s.pop_front();
        }
        if self.orders_s.len() >= self.per_hour_max {
            return None;
        }
        let due = |name: &&String| {
            let waits = self.failed.get(*name).is_some_and(|(_, until_s)| now_s < *until_s);
            let held = holding.iter().find(|holding| holding.name == **name);
            let renews = held.is_none_or(|held| now_s >= self.renewal_s(held, renew_before_s));
            !waits && renews && !self.done.contains_key(*name)
        };
        let name = wanted.iter().find(due)?.clone();
        self.orders_s.push_back(now_s);
        // Until the outcome is told, nobody asks again.
        self.done.insert(name.clone(), now_s);
        Some(name)
    }

    pub(super) fn succeeded(&mut self, name: &str) {
        self.failed.remove(name);
    }

    /// The moment from which it may be tried again.
    pub(super) fn failed(&mut self, name: &str, now_s: i64) -> i64 {
        self.done.remove(name);
        let count = self.failed.get(name).map_or(0, |(count, _)| *count).saturating_add(1);
        let wait_s = FIRST_WAIT_S.saturating_mul(1_i64 << (count - 1).min(20)).min(LONGEST_WAIT_S);
        let until_s = now_s + wait_s + self.spread(name, wait_s / 4);
        self.failed.insert(name.to_owned(), (count, until_s));
        until_s
    }

    /// When a certificate is renewed: `renew_before_s` ahead of its end, but not in its first two thirds.
    fn renewal_s(&self, held: &Holding, renew_before_s: i64) -> i64 {
        let ahead_s = renew_before_s.min((held.not_after_s - held.not_before_s) / 3);
        held.not_after_s - ahead_s + self.spread(&held.name, ahead_s / 10)
    }

    /// From 0 up to `width`, the same for the same name.
    fn spread(&self, name: &str, width: i64) -> i64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, name).hash(&mut hasher);
        i64::try_from(hasher.finish() >> 1).unwrap_or(0).rem_euclid(width.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: i64 = 86_400;

    fn wanted(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_failure_is_tried_again_later_and_later_but_not_forever_later() {
        let mut attempts = Attempts::new(1_000, 7);
        let (mut now_s, mut waits) = (0, Vec::new());
        for _ in 0..16 {
            assert_eq!(attempts.next_due(&wanted(&["a"]), &[], 0, now_s).as_deref(), Some("a"));
            assert_eq!(attempts.next_due(&wanted(&["a"]), &[], 0, now_s), None, "not twice at once");
            let until_s = attempts.failed("a", now_s);
            assert_eq!(attempts.next_due(&wanted(&["a"]), &[], 0, until_s - 1), None);
            waits.push(until_s - now_s);
            now_s = until_s;
        }
        assert!(waits[0] >= FIRST_WAIT_S && waits.is_sorted(), "{waits:?}");
        assert!(waits[15] <= LONGEST_WAIT_S * 5 / 4, "{waits:?}");
    }

    #[test]
    fn orders_are_bounded_per_hour() {
        let mut attempts = Attempts::new(3, 7);
        let names = wanted(&["a", "b", "c", "d", "e"]);
        let mut placed = |now_s| std::iter::from_fn(|| attempts.next_due(&names, &[], 0, now_s)).count();
        assert_eq!((placed(0), placed(HOUR_S - 1), placed(HOUR_S)), (3, 0, 3));
    }

    #[test]
    fn certificates_are_renewed_in_their_last_third_and_not_all_at_once() {
        let attempts = Attempts::new(3, 7);
        let moments: BTreeSet<i64> = (0..100)
            .map(|number| {
                let held = Holding { name: format!("{number}.test"), not_before_s: 0, not_after_s: 90 * DAY_S };
                attempts.renewal_s(&held, 30 * DAY_S)
            })
            .collect();
        assert!(moments.iter().all(|moment| (60 * DAY_S..63 * DAY_S).contains(moment)), "{moments:?}");
        assert!(moments.len() > 90);
        let short = Holding { name: "a".into(), not_before_s: 0, not_after_s: 6 * DAY_S };
        assert!(attempts.renewal_s(&short, 30 * DAY_S) >= 4 * DAY_S, "a short one is not renewed at once forever");
    }

    #[test]
    fn what_is_held_and_fresh_is_left_alone() {
        let mut attempts = Attempts::new(3, 7);
        let held = Holding { name: "a".into(), not_before_s: 0, not_after_s: 90 * DAY_S };
        assert_eq!(attempts.next_due(&wanted(&["a"]), std::slice::from_ref(&held), 30 * DAY_S, DAY_S), None);
        let due = attempts.next_due(&wanted(&["a"]), &[held], 30 * DAY_S, 64 * DAY_S);
        assert_eq!(due.as_deref(), Some("a"));
    }
}
