//! Letting the cache follow what is measured: memory, time to live, compression level; and saying what it did.
//!
//! Keeps true: a decision is a pure function of two measurements and the present tuning, moves one step at a time, stays
//! within fixed bounds around what was configured, and is logged with its reason.
//! Does not do: measuring or applying; the facade does both.

use crate::cache::compress::{Encoding, Levels};
use crate::cache::disk::{DiskState, DiskStats};
use crate::cache::entry::Compressed;
use crate::cache::stats::Counts;
use crate::schema::cache_policy::Policy;

/// What may be adapted, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of memory for answers.
    pub memory_bytes_max: u64,
    /// What was configured; memory moves between half of it and all of it.
    pub memory_bytes_configured: u64,
    /// Times to live in per cent of what classes ask for, 100 to 400.
    pub ttl_percent: u32,
    /// Compression levels.
    pub levels: Levels,
}

impl Tuning {
    /// The tuning before anything was measured.
    pub fn starting(memory_bytes: u64) -> Self {
        Self {
            memory_bytes_max: memory_bytes,
            memory_bytes_configured: memory_bytes,
            ttl_percent: 100,
            levels: Levels::default(),
        }
    }

    /// Milliseconds an answer under `policy` is kept: a class's time may be lengthened, one that was asked for in seconds is
    /// kept to.
    pub fn ttl_ms(&self, policy: &Policy) -> i64 {
        match policy.ttl_s {
            Some(_) => policy.ttl_ms(),
            None => policy.ttl_ms().saturating_mul(i64::from(self.ttl_percent)) / 100,
        }
    }
}

/// What was measured at one moment; counters run since start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// All counters.
    pub counts: Counts,
    /// Bytes memory holds.
    pub memory_bytes: u64,
    /// The disk tier.
    pub disk: DiskStats,
    /// Compression by coding, in the order of [`Encoding::CODED`].
    pub compressed: [Compressed; 4],
}

impl Measured {
    fn compressed(&self, encoding: Encoding) -> Compressed {
        encoding.slot().and_then(|slot| self.compressed.get(slot)).copied().unwrap_or_default()
    }
}

/// Something the cache changed about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What.
    pub what: &'static str,
    /// From which value.
    pub from: u64,
    /// To which value.
    pub to: u64,
    /// Why, in figures.
    pub why: String,
}

/// Milliseconds between decisions.
pub const ADAPT_EVERY_MS: i64 = 30_000;
/// Reads between two decisions below which nothing is concluded.
const READS_MIN: u64 = 1_000;
const LOG_LEN_MAX: usize = 100;
const TTL_PERCENT_MAX: u32 = 400;
/// Thousandths of one core's time that a coding may take, above which a lighter level is tried; and below which a heavier
/// one is.
const COMPRESS_BUSY_MILLI: u64 = 50;
const COMPRESS_QUIET_MILLI: u64 = 5;
/// Lightest and heaviest level of each coding; beyond these, time rises much faster than bytes fall.
const ZSTD_LEVELS: (u64, u64) = (1, 6);
const BROTLI_LEVELS: (u64, u64) = (1, 5);
const GZIP_LEVELS: (u64, u64) = (1, 9);

/// The shell's memory of earlier measurements, and the log.
#[derive(Debug)]
pub struct Adaptive {
    tuning: Tuning,
    last: Option<(Measured, i64)>,
    log: Vec<Decision>,
    decided: u64,
}

impl Adaptive {
    /// Starts from `tuning`.
    pub fn new(tuning: Tuning) -> Self {
        Self { tuning, last: None, log: Vec::new(), decided: 0 }
    }

    /// Looks at what was measured; returns the new tuning if something is to change.
    pub fn step(&mut self, measured: &Measured, now_ms: i64) -> Option<Tuning> {
        let (before, then_ms) = match &self.last {
            Some((before, then_ms)) if now_ms - then_ms < ADAPT_EVERY_MS => {
                let _ = (before, then_ms);
                return None;
            }
            Some((before, then_ms)) => (before.clone(), *then_ms),
            None => {
                self.last = Some((measured.clone(), now_ms));
                return None;
            }
        };
        let decided = decide(&self.tuning, &before, measured, now_ms - then_ms, now_ms);
        self.last = Some((measured.clone(), now_ms));
        if decided.1.is_empty() {
            return None;
        }
        self.tuning = decided.0;
        for decision in decided.1 {
            tracing::info!(
                cache.what = decision.what, cache.from = decision.from, cache.to = decision.to, cache.why = %decision.why,
                "cache adapted"
            );
            self.log.push(decision);
            self.decided += 1;
        }
        let surplus = self.log.len().saturating_sub(LOG_LEN_MAX);
        self.log.drain(..surplus);
        Some(self.tuning.clone())
    }

    /// Decisions since start.
    pub fn decided(&self) -> u64 {
        self.decided
    }

    /// The latest decisions, newest last.
    pub fn log(&self) -> &[Decision] {
        &self.log
    }
}

/// What should change, given two measurements `elapsed_ms` apart.
pub fn decide(
    tuning: &Tuning,
    before: &Measured,
    after: &Measured,
    elapsed_ms: i64,
    at_ms: i64,
) -> (Tuning, Vec<Decision>) {
    let mut next = tuning.clone();
    let mut log = Vec::new();
    let mut say = |what, from: u64, to: u64, why: String| {
        if from != to {
            log.push(Decision { at_ms, what, from, to, why });
        }
    };
    let counts = after.counts.since(&before.counts);
    let reads = counts.l1_hits + counts.l2_hits + counts.misses;
    if reads >= READS_MIN {
        let (memory, why) = memory_for(tuning, &counts, after);
        next.memory_bytes_max = memory;
        say("memory_bytes", tuning.memory_bytes_max, memory, why);
        let (ttl, why) = ttl_for(tuning, &counts, reads);
        next.ttl_percent = ttl;
        say("ttl_percent", u64::from(tuning.ttl_percent), u64::from(ttl), why);
    }
    let work = |encoding| after.compressed(encoding).since(&before.compressed(encoding));
    let (zstd, brotli, gzip) = levels_of(tuning.levels);
    let level = |from, bounds, work: Compressed| level_for(from, bounds, work, elapsed_ms);
    let (zstd_next, zstd_why) = level(zstd, ZSTD_LEVELS, work(Encoding::Zstd));
    let (brotli_next, brotli_why) = level(brotli, BROTLI_LEVELS, work(Encoding::Brotli));
    // One level for both, because they are one algorithm in two wrappings.
    let (gzip_next, gzip_why) = level(gzip, GZIP_LEVELS, work(Encoding::Gzip).with(&work(Encoding::Deflate)));
    next.levels = levels_from(zstd_next, brotli_next, gzip_next);
    say("zstd_level", zstd, zstd_next, zstd_why);
    say("brotli_level", brotli, brotli_next, brotli_why);
    say("gzip_level", gzip, gzip_next, gzip_why);
    (next, log)
}

/// Memory that is never filled is given back to the system, down to half; memory that evicts while the disk has to help
/// out is taken again. The disk tier takes what memory lets go.
fn memory_for(tuning: &Tuning, counts: &Counts, after: &Measured) -> (u64, String) {
    let (now, configured) = (tuning.memory_bytes_max, tuning.memory_bytes_configured);
    let step = configured / 8;
    let pressed = counts.evictions > counts.misses / 4 && counts.evictions > 0;
    if pressed && now < configured {
        let why = format!("{} evictions against {} misses", counts.evictions, counts.misses);
        return ((now + step).min(configured), why);
    }
    let disk_works = after.disk.state == DiskState::Ready;
    if !pressed && disk_works && counts.evictions == 0 && after.memory_bytes < now / 4 {
        return ((now - step).max(configured / 2), format!("{} of {now} bytes in use", after.memory_bytes));
    }
    (now, String::new())
}

/// Coherence does not rest on time, so answers that expire while still current were dropped for nothing.
fn ttl_for(tuning: &Tuning, counts: &Counts, reads: u64) -> (u32, String) {
    let now = tuning.ttl_percent;
    if counts.expired * 20 > reads && counts.evictions == 0 {
        let why = format!("{} of {reads} reads found an expired answer and nothing was evicted", counts.expired);
        return ((now + 50).min(TTL_PERCENT_MAX), why);
    }
    if counts.evictions * 10 > reads && now > 100 {
        return ((now - 50).max(100), format!("{} evictions in {reads} reads", counts.evictions));
    }
    (now, String::new())
}

/// Variants are made once per answer, so the level follows the time that new answers cost.
fn level_for(level: u64, (lightest, heaviest): (u64, u64), work: Compressed, elapsed_ms: i64) -> (u64, String) {
    let elapsed_ms = u64::try_from(elapsed_ms).unwrap_or(0).max(1);
    // Microseconds per millisecond are thousandths of one core.
    let milli = work.micros / elapsed_ms;
    let why = |word: &str| format!("{word}{} bytes in {} ms of {elapsed_ms}", work.bytes_in, work.micros / 1_000);
    if milli > COMPRESS_BUSY_MILLI && level > lightest {
        return (level - 1, why("compressed "));
    }
    if work.count > 0 && milli < COMPRESS_QUIET_MILLI && level < heaviest {
        return (level + 1, why("compressed only "));
    }
    (level, String::new())
}

fn levels_of(levels: Levels) -> (u64, u64, u64) {
    (u64::try_from(levels.zstd).unwrap_or(1), u64::from(levels.brotli), u64::from(levels.gzip))
}

fn levels_from(zstd: u64, brotli: u64, gzip: u64) -> Levels {
    let small = |level: u64| u32::try_from(level).unwrap_or(1);
    Levels { zstd: i32::try_from(zstd).unwrap_or(1), brotli: small(brotli), gzip: small(gzip) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn measured(counts: Counts) -> Measured {
        let mut disk = DiskStats::off();
        disk.state = DiskState::Ready;
        Measured { counts, memory_bytes: 900, disk, compressed: Default::default() }
    }

    #[test]
    fn pressure_and_idleness_move_memory_within_its_bounds() {
        let configured = Tuning::starting(1_000);
        let quiet = measured(Counts::default());
        let mut idle = measured(Counts { l1_hits: 5_000, ..Counts::default() });
        idle.memory_bytes = 10;
        let (mut tuning, log) = decide(&configured, &quiet, &idle, 30_000, 1);
        assert_eq!((tuning.memory_bytes_max, log.len()), (875, 1));
        for _ in 0..10 {
            tuning = decide(&tuning, &quiet, &idle, 30_000, 1).0;
        }
        assert_eq!(tuning.memory_bytes_max, 500);
        let pressed = measured(Counts { misses: 2_000, evictions: 1_500, ..Counts::default() });
        for _ in 0..10 {
            tuning = decide(&tuning, &quiet, &pressed, 30_000, 1).0;
        }
        assert_eq!(tuning.memory_bytes_max, 1_000);
    }

    #[test]
    fn needless_expiry_lengthens_life_unless_seconds_were_asked_for() {
        let quiet = measured(Counts::default());
        let expiring = measured(Counts { l1_hits: 2_000, expired: 500, misses: 500, ..Counts::default() });
        let (tuning, log) = decide(&Tuning::starting(1_000), &quiet, &expiring, 30_000, 7);
        assert_eq!((tuning.ttl_percent, log[0].what, log[0].at_ms), (150, "ttl_percent", 7));
        // A class's time is lengthened, one that was asked for in seconds is not.
        assert_eq!(tuning.ttl_ms(&Policy::default()), 450_000);
        assert_eq!(tuning.ttl_ms(&Policy { ttl_s: Some(7), ..Policy::default() }), 7_000);
    }

    #[test]
    fn each_coding_follows_the_time_that_it_takes_itself() {
        let (start, quiet) = (Tuning::starting(1_000), measured(Counts::default()));
        let costing = |encoding: Encoding, micros: u64| {
            let mut after = quiet.clone();
            after.compressed[encoding.slot().unwrap()] =
                Compressed { count: 9, bytes_in: 90_000, bytes_out: 9, micros };
            let (tuning, log) = decide(&start, &quiet, &after, 30_000, 1);
            (tuning.levels, log.first().map(|decision| decision.what))
        };
        let base = start.levels;
        for (encoding, what, lighter, heavier) in [
            (Encoding::Zstd, "zstd_level", base, Levels { zstd: 2, ..base }),
            (Encoding::Brotli, "brotli_level", Levels { brotli: 3, ..base }, Levels { brotli: 5, ..base }),
            (Encoding::Gzip, "gzip_level", Levels { gzip: 5, ..base }, Levels { gzip: 7, ..base }),
            (Encoding::Deflate, "gzip_level", Levels { gzip: 5, ..base }, Levels { gzip: 7, ..base }),
        ] {
            assert_eq!(costing(encoding, 10_000), (heavier, Some(what)));
            assert_eq!(costing(encoding, 600_000), (base, None), "a fiftieth of a core is neither");
            assert_eq!(costing(encoding, 6_000_000), (lighter, (lighter != base).then_some(what)));
        }
    }

    #[test]
    fn it_waits_between_decisions_and_remembers_the_latest_hundred() {
        let mut adaptive = Adaptive::new(Tuning::starting(1_000));
        let mut counts = Counts::default();
        assert_eq!(adaptive.step(&measured(counts), 0), None);
        let mut changes = 0;
        for round in 1..400_i64 {
            if round % 2 == 0 {
                counts.expired += 2_000
            } else {
                counts.evictions += 2_000
            }
            counts.l1_hits += 2_000;
            assert_eq!(adaptive.step(&measured(counts), round * ADAPT_EVERY_MS - 1), None);
            changes += usize::from(adaptive.step(&measured(counts), round * ADAPT_EVERY_MS).is_some());
        }
        assert!(changes > 100);
        assert_eq!(adaptive.log().len(), 100);
    }

    /// Everything that was logged, as text.
    #[derive(Clone, Default)]
    struct Logged(std::sync::Arc<parking_lot::Mutex<String>>);

    impl tracing::Subscriber for Logged {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut text = self.0.lock();
            event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                text.push_str(&format!("{field}={value:?} "));
            });
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn the_log_says_what_was_changed_and_why() {
        let logged = Logged::default();
        let expiring = Counts { l1_hits: 2_000, expired: 500, misses: 500, ..Counts::default() };
        // A place that logs for the first time, on another thread and at this moment, may not be heard; the next time it is.
        for _ in 0..100 {
            let mut adaptive = Adaptive::new(Tuning::starting(1_000));
            tracing::subscriber::with_default(logged.clone(), || {
                adaptive.step(&measured(Counts::default()), 0);
                adaptive.step(&measured(expiring), ADAPT_EVERY_MS).unwrap();
            });
            if !logged.0.lock().is_empty() {
                break;
            }
        }
        let text = logged.0.lock().clone();
        let why = "500 of 2500 reads found an expired answer and nothing was evicted";
        for part in ["cache adapted", "cache.what=\"ttl_percent\"", "cache.from=100", "cache.to=150", why] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_measured_tuning_stays_within_bounds(
            rounds in prop::collection::vec((0_u64..10_000, 0_u64..10_000, 0_u64..10_000, 0_u64..10_000, 0_u64..1_u64 << 30), 1..30),
        ) {
            let mut tuning = Tuning::starting(1 << 20);
            for (l1_hits, misses, evictions, expired, micros) in rounds {
                let before = measured(Counts::default());
                let mut after = measured(Counts { l1_hits, misses, evictions, expired, ..Counts::default() });
                after.compressed = [Compressed { count: 1, bytes_in: 1, bytes_out: 1, micros }; 4];
                let (next, log) = decide(&tuning, &before, &after, 30_000, 0);
                prop_assert_eq!(next == tuning, log.is_empty());
                prop_assert!((1 << 19..=1 << 20).contains(&next.memory_bytes_max));
                prop_assert!((100..=TTL_PERCENT_MAX).contains(&next.ttl_percent));
                prop_assert!((1..=5).contains(&next.levels.brotli));
                prop_assert!((1..=6).contains(&next.levels.zstd) && (1..=9).contains(&next.levels.gzip));
                tuning = next;
            }
        }
    }
}
