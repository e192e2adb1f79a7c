//! The time of one call of something small, in process.
//!
//! Keeps true: a figure is the median of many samples, each long enough for the clock. Does not do: statistics beyond it.

use super::rounds::median;
use std::hint::black_box;
use std::time::Duration;
use tenantry::kernel::clock;

const SAMPLES: usize = 31;
const SAMPLE: Duration = Duration::from_millis(4);

/// Median microseconds per call.
pub(crate) fn per_call_us<T>(mut call: impl FnMut() -> T) -> f64 {
    let mut calls = 1_usize;
    loop {
        let elapsed = time(calls, &mut call);
        if elapsed >= SAMPLE {
            break;
        }
        let wanted = SAMPLE.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        calls = (calls as f64 * wanted.clamp(1.5, 10.0)).ceil() as usize;
    }
    let samples = (0..SAMPLES).map(|_| time(calls, &mut call).as_secs_f64() * 1e6 / calls as f64).collect();
    median(samples)
}

fn time<T>(calls: usize, call: &mut impl FnMut() -> T) -> Duration {
    let began = clock::instant();
    for _ in 0..calls {
        black_box(call());
    }
    began.elapsed()
}
