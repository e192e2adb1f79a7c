//! Time as a parameter: the [`Clock`] trait, its real and manual forms, and hybrid logical timestamps.
//!
//! Keeps true: a [`HlcSource`] never issues a stamp that is not larger than every stamp it issued or observed,
//! whatever the wall clock does. Does not do: sleeping, time zones, formatting.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the present comes from; tests replace it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since the Unix epoch, UTC.
    fn now_ms(&self) -> i64;
}

/// The machine's wall clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine for the time")]
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(elapsed) => i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// A moment of the machine's steady clock, to measure spans and to set deadlines of work under way.
///
/// Nothing that is kept, told or decided about data depends on it; what does takes a [`Clock`].
#[expect(clippy::disallowed_methods, reason = "the one place that asks the machine's steady clock")]
pub fn instant() -> Instant {
    Instant::now()
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Starts at `now_ms` milliseconds since the Unix epoch.
    pub fn new(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    /// Moves the clock by `delta_ms`, which may be negative.
    pub fn advance_ms(&self, delta_ms: i64) {
        self.0.fetch_add(delta_ms, Ordering::SeqCst);
    }

    /// Sets the clock.
    pub fn set_ms(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A hybrid logical timestamp: 48 bits of milliseconds since the Unix epoch, 16 bits of counter, in one `i64`.
///
/// Source: Kulkarni et al., "Logical Physical Clocks", 2014; packing as REPLICATION.md 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(i64);

const COUNTER_BITS: u32 = 16;
const MILLIS_MAX: i64 = (1 << (63 - COUNTER_BITS)) - 1;

impl Hlc {
    /// The stamp before every other.
    pub const ZERO: Hlc = Hlc(0);

    /// Rebuilds a stamp from its stored form.
    pub const fn from_i64(raw: i64) -> Self {
        Self(raw)
    }

    /// The stored form.
    pub const fn as_i64(self) -> i64 {
        self.0
    }

    /// The wall-clock part, milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0 >> COUNTER_BITS
    }

    /// The logical part.
    pub const fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// Issues hybrid logical timestamps for one origin.
///
/// Not shared: the writer of a tenant owns it. It must be seeded from the largest stamp in the file at open.
#[derive(Debug, Clone)]
pub struct HlcSource {
    last: Hlc,
}

impl HlcSource {
    /// Continues after `last`, the largest stamp known.
    pub const fn seeded(last: Hlc) -> Self {
        Self { last }
    }

    /// The next stamp: larger than all before, close to `now_ms` where the wall clock allows.
    pub fn tick(&mut self, now_ms: i64) -> Hlc {
        let wall = now_ms.clamp(0, MILLIS_MAX) << COUNTER_BITS;
        // A full counter carries into the millisecond part, so the order holds even then.
        let next = wall.max(self.last.0.saturating_add(1));
        self.last = Hlc(next);
        self.last
    }

    /// Takes note of a stamp that came from elsewhere.
    pub fn observe(&mut self, seen: Hlc) {
        self.last = self.last.max(seen);
    }

    /// The largest stamp issued or observed.
    pub const fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stamps_rise_strictly_through_clock_jumps_and_restarts(walls in prop::collection::vec((any::<i64>(), any::<bool>()), 1..200)) {
            let mut source = HlcSource::seeded(Hlc::ZERO);
            let mut last = Hlc::ZERO;
            for (wall, restart) in walls {
                if restart {
                    source = HlcSource::seeded(last);
                }
                // Far-future walls are clamped, so leave room for the counter to keep rising.
                let next = source.tick(wall % (1 << 46));
                prop_assert!(next > last);
                last = next;
            }
        }

        #[test]
        fn a_stamp_is_never_behind_the_wall_clock(walls in prop::collection::vec(0_i64..(1 << 46), 1..50)) {
            let mut source = HlcSource::seeded(Hlc::ZERO);
            for wall in walls {
                prop_assert!(source.tick(wall).millis() >= wall);
            }
        }
    }

    #[test]
    fn the_counter_carries_into_the_milliseconds() {
        let mut source = HlcSource::seeded(Hlc::from_i64((5 << 16) | 0xffff));
        let next = source.tick(5);
        assert_eq!((next.millis(), next.counter()), (6, 0));
    }

    #[test]
    fn an_observed_stamp_is_exceeded() {
        let mut source = HlcSource::seeded(Hlc::ZERO);
        source.observe(Hlc::from_i64(900 << 16));
        assert!(source.tick(10) > Hlc::from_i64(900 << 16));
    }
}
