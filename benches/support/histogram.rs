//! A log-bucketed latency histogram: 64 buckets per power of two, so a quantile is off by less than 1.6 %.
//!
//! Keeps true: recording is two shifts and an add, memory is fixed. Does not do: merging across units.

use std::time::Duration;

const SUB_BITS: u32 = 6;
const SUBS: usize = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUBS;

/// Latencies in nanoseconds.
#[derive(Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    /// An empty histogram.
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0 }
    }

    /// Adds one latency.
    pub(crate) fn record(&mut self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanos)] += 1;
        self.count += 1;
    }

    /// Adds everything `other` holds.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
    }

    /// How many latencies were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The latency below which `quantile` (0 to 1) of all lie, microseconds; 0 when empty.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        let wanted = (self.count as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return lower_bound(index) as f64 / 1_000.0;
            }
        }
        0.0
    }
}

fn bucket_of(nanos: u64) -> usize {
    if nanos < SUBS as u64 {
        return nanos as usize;
    }
    let octave = 63 - nanos.leading_zeros();
    let sub = (nanos >> (octave - SUB_BITS)) as usize & (SUBS - 1);
    (octave - SUB_BITS + 1) as usize * SUBS + sub
}

fn lower_bound(index: usize) -> u64 {
    let (octave, sub) = (index / SUBS, index % SUBS);
    if octave == 0 {
        return sub as u64;
    }
    ((SUBS + sub) as u64) << (octave - 1)
}
